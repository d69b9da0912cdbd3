//! Where the programs are: the map `uplinks`, an array in which each link has the first free place from its index on.
//! A link comes before another goes, and keeps its place while it is there. Told by `surround` alone.

use std::io;

use aya::Ebpf;
use aya::maps::{Array, MapData};
use ebpf::maps;
use ebpf::packet::uplink::{Uplink, place};

use super::{BPF_ANY, Surroundings, take};
use crate::dataplane::{DataplaneError, os_error};

/// The map.
pub(super) struct Uplinks(Array<MapData, [u8; 44]>);

impl Uplinks {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, DataplaneError> {
        let map = Array::try_from(take(ebpf, maps::UPLINKS)?);
        map.map(Self).map_err(|error| DataplaneError::Other(maps::UPLINKS, error.to_string()))
    }

    /// Makes the map say what the surroundings do.
    pub(super) fn tell(&mut self, to: &Surroundings) -> io::Result<()> {
        let there = (0..maps::UPLINKS_ENTRIES).map(|place| self.0.get(&place, 0).map_err(os_error));
        let there = there.map(|bytes| Ok(Uplink::from_bytes(&bytes?))).collect::<io::Result<Vec<_>>>()?;
        let wanted: Vec<Uplink> = to.uplinks.iter().map(|uplink| uplink.value(to)).collect();
        let changes = changes(&there, &wanted).ok_or_else(|| {
            io::Error::other(format!(
                "{} uplinks are too many: choose fewer of the node's links",
                wanted.len()
            ))
        })?;
        for (place, uplink) in changes {
            self.0.set(place, uplink.to_bytes(), BPF_ANY).map_err(os_error)?;
        }
        Ok(())
    }
}

/// What must be stored where, in order. None if there are more links than places.
fn changes(there: &[Uplink], wanted: &[Uplink]) -> Option<Vec<(u32, Uplink)>> {
    let (mut after, mut changes) = (there.to_vec(), Vec::new());
    for uplink in wanted {
        let places = || (0..maps::UPLINKS_ENTRIES).map(|step| place(uplink.index, step));
        let has = |place: &u32, index| after[*place as usize].index == index;
        let place = places().find(|place| has(place, uplink.index));
        let place = place.or_else(|| places().find(|place| has(place, Uplink::NOWHERE)))?;
        if after[place as usize] != *uplink {
            after[place as usize] = *uplink;
            changes.push((place, *uplink));
        }
    }
    let is_wanted = |index| wanted.iter().any(|uplink| uplink.index == index);
    let gone =
        (0..).zip(after).filter(|(_, uplink)| uplink.index != Uplink::NOWHERE && !is_wanted(uplink.index));
    changes.extend(gone.map(|(place, uplink)| (place, uplink.at(Uplink::NOWHERE))));
    Some(changes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebpf::address::Address;

    fn uplink(index: u32) -> Uplink {
        Uplink::new(Address::NONE, Address::NONE, 14, 32768, 60999).at(index)
    }

    /// The map after each of several surroundings: who is where.
    fn told(all: &[&[u32]]) -> Vec<(u32, u32)> {
        let mut map = vec![uplink(Uplink::NOWHERE); maps::UPLINKS_ENTRIES as usize];
        for indexes in all {
            let wanted: Vec<Uplink> = indexes.iter().copied().map(uplink).collect();
            for (place, uplink) in changes(&map, &wanted).expect("room") {
                map[place as usize] = uplink;
            }
            assert_eq!(changes(&map, &wanted), Some(Vec::new()), "{indexes:?}: nothing is left to do");
        }
        (0..).zip(map.iter().map(|uplink| uplink.index)).filter(|(_, index)| *index != 0).collect()
    }

    #[test]
    fn links_of_one_place_stand_behind_each_other_and_stay_where_they_are() {
        assert_eq!(told(&[&[2, 66]]), [(2, 2), (3, 66)]);
        assert_eq!(told(&[&[2, 66], &[66]]), [(3, 66)], "whoever stays keeps its place");
        assert_eq!(told(&[&[2, 66], &[66], &[130, 66]]), [(2, 130), (3, 66)]);
        assert_eq!(
            told(&[&[63, 127, 191]]),
            [(0, 127), (1, 191), (63, 63)],
            "behind the last comes the first"
        );
    }

    #[test]
    fn as_many_links_as_places_and_not_one_more() {
        let all: Vec<u32> = (1..=maps::UPLINKS_ENTRIES + 1).collect();
        assert_eq!(told(&[&all[1..]]).len(), maps::UPLINKS_ENTRIES as usize);
        let wanted: Vec<Uplink> = all.into_iter().map(uplink).collect();
        assert_eq!(changes(&vec![uplink(0); maps::UPLINKS_ENTRIES as usize], &wanted), None);
    }
}

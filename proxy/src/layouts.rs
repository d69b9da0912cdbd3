//! The directories of pinned maps, one a layout: which are there, and what moves from an older one to ours. While
//! both are there the older programs serve from the older maps; nothing here decides when that ends.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use ebpf::address::Address;
use ebpf::affinity::{AffinityKey, AffinityWord};
use ebpf::choice::{ChoiceKey, ChoiceWord};
use ebpf::maps;

use crate::adopt::{Contents, adopt};
use crate::current::{Current, Sizes};
use crate::dataplane::{DataplaneError, Kernel};
use crate::sys;
use crate::tables::Tables;

/// Maps without ids: the same maps serve both layouts.
const SHARED: [&str; 12] = [
    maps::PODS,
    maps::FOUND,
    maps::HOSTPORTS,
    maps::REVERSE_UDP,
    maps::STATS,
    maps::NODE,
    // Flows carry ids too, but only to see that a backend serves no more: then another is chosen.
    maps::FLOWS,
    maps::FLEETING,
    maps::CROWD,
    maps::FRAGMENTS,
    maps::UPLINKS,
    maps::RANGES,
];

/// The directories of a bpf directory.
#[derive(Clone, Debug)]
pub(crate) struct Layouts {
    /// Ours.
    pub(crate) own: PathBuf,
    /// The newest one before ours, where there is one.
    pub(crate) older: Option<PathBuf>,
}

/// Whether an entry may replace one that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overwrite {
    Yes,
    No,
}

/// What an older layout calls by which number, as the newer one does.
struct Ids {
    services: HashMap<u32, u32>,
    backends: HashMap<u32, u32>,
}

/// Where maps of our own layout go that are too small: the oldest layout there can be.
const OUTGROWN: &str = "v0";

/// Puts the maps of `number` aside if they are smaller than `wanted`: they serve as an older layout does, until
/// larger ones are filled.
pub(crate) fn outgrow(bpf_dir: &Path, number: u32, wanted: &Sizes) -> io::Result<()> {
    let (own, aside) = (bpf_dir.join(format!("v{number}")), bpf_dir.join(OUTGROWN));
    // Without all of its maps it is nothing that could serve.
    let small = Kernel::pinned(&own).is_ok_and(|kernel| kernel.sizes().is_below(wanted));
    if small && !aside.exists() { std::fs::rename(own, aside) } else { Ok(()) }
}

impl Layouts {
    /// Looks for layouts beside `number`. The number of a newer one is the error.
    pub(crate) fn find(bpf_dir: &Path, number: u32) -> Result<Self, u32> {
        let entries = std::fs::read_dir(bpf_dir).into_iter().flatten().filter_map(Result::ok);
        let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.strip_prefix('v')?.parse().ok());
        let mut older: Option<u32> = None;
        for found in numbers.filter(|found| *found != number) {
            if found > number {
                return Err(found);
            }
            older = older.max(Some(found));
        }
        let folder = |number: u32| bpf_dir.join(format!("v{number}"));
        Ok(Self { own: folder(number), older: older.map(folder) })
    }

    /// Pins the maps that both layouts share in ours, too.
    pub(crate) fn share(&self) -> io::Result<()> {
        let Some(older) = &self.older else { return Ok(()) };
        for name in SHARED {
            let pin = self.own.join(name);
            if let Some(map) = sys::open_pinned(&older.join(name))?
                && !pin.exists()
            {
                sys::pin(map.as_fd(), &pin)?;
            }
        }
        Ok(())
    }

    /// Removes the older layout, once its links are ours. What cannot be removed is no layout any more: the next
    /// start must not upgrade from it again.
    pub(crate) fn forget_older(&mut self) -> io::Result<()> {
        let Some(older) = self.older.take() else { return Ok(()) };
        let mut names = (0_u32..).map(|number| older.with_file_name(format!("gone-{number}")));
        let gone = names.find(|path| !path.exists()).expect("there are more names than directories");
        std::fs::rename(&older, &gone)?;
        std::fs::remove_dir_all(gone)
    }

    /// Copies affinities and choices from the older maps to ours, where `current` is. What names a service or
    /// a backend that is no more is left out.
    pub(crate) fn carry(
        &self,
        desired: &Tables,
        current: &Current,
        overwrite: Overwrite,
    ) -> Result<(), DataplaneError> {
        let Some(older) = &self.older else { return Ok(()) };
        let ids = Ids::new(&adopt(&Kernel::pinned(older)?, desired), current);
        let failed =
            |name: &'static str| move |error: io::Error| DataplaneError::Other(name, error.to_string());
        copy::<[u8; 20], u64>(maps::AFFINITY, (older, &self.own), overwrite, |key, word| {
            ids.affinity(key, word)
        })
        .map_err(failed(maps::AFFINITY))?;
        copy::<[u8; 16], u64>(maps::CHOICE, (older, &self.own), overwrite, |key, word| ids.choice(key, word))
            .map_err(failed(maps::CHOICE))
    }
}

impl Ids {
    fn new(old: &Current, new: &Current) -> Self {
        let (mut services, mut backends) = (HashMap::new(), HashMap::new());
        for (key, block) in &old.tables().services {
            let (Some(from), Some(to)) = (old.service_id(key), new.service_id(key)) else { continue };
            services.insert(from, to);
            let slots =
                new.tables().services.get(key).map(|block| block.slots.as_slice()).unwrap_or_default();
            let there: HashMap<(IpAddr, u16), u32> = std::iter::zip(slots, new.backend_ids(key))
                .map(|(slot, &id)| ((slot.ip, slot.port), id))
                .collect();
            for (slot, &from) in std::iter::zip(&block.slots, old.backend_ids(key)) {
                there.get(&(slot.ip, slot.port)).map(|&to| backends.insert(from, to));
            }
        }
        Self { services, backends }
    }

    fn affinity(&self, key: &[u8; 20], word: u64) -> Option<([u8; 20], u64)> {
        let [a, b, c, d, client @ ..] = *key;
        let service = *self.services.get(&u32::from_ne_bytes([a, b, c, d]))?;
        let key = AffinityKey::new(service, Address::from_bytes(client));
        let old = AffinityWord(word);
        let word = AffinityWord::new(*self.backends.get(&old.backend())?, old.seconds());
        Some((key.to_bytes(), word.0))
    }

    fn choice(&self, key: &[u8; 16], word: u64) -> Option<([u8; 16], u64)> {
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *key;
        let service = *self.services.get(&u32::from_ne_bytes([i, j, k, l]))?;
        let key = ChoiceKey::new(u64::from_ne_bytes([a, b, c, d, e, f, g, h]), service);
        let backend = *self.backends.get(&ChoiceWord(word).backend())?;
        Some((key.to_bytes(), ChoiceWord::new(&key, backend).0))
    }
}

/// Copies what `translate` makes of each element.
fn copy<K: Copy + Default, V: Copy>(
    name: &str,
    (from, to): (&Path, &Path),
    overwrite: Overwrite,
    translate: impl Fn(&K, V) -> Option<(K, V)>,
) -> io::Result<()> {
    let open = |folder: &Path| sys::open_pinned(&folder.join(name));
    let (Some(from), Some(to)) = (open(from)?, open(to)?) else { return Ok(()) };
    for (key, value) in sys::elements::<K, V>(from.as_fd())? {
        if let Some((key, value)) = translate(&key, value) {
            sys::insert(to.as_fd(), &key, &value, overwrite == Overwrite::Yes)?;
        }
    }
    Ok(())
}

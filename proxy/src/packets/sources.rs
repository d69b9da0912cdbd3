//! Who may use guarded frontends (R13): the map `sources`, by service id. What is wanted is added before the
//! frontends change, and what is not is removed afterwards, so that nobody is shut out in between.

use std::collections::BTreeSet;
use std::io;

use aya::Ebpf;
use aya::maps::MapData;
use aya::maps::lpm_trie::{Key, LpmTrie};
use ebpf::address::Address;
use ebpf::maps;
use ipnet::IpNet;

use super::{BPF_ANY, MAPPED, take};
use crate::dataplane::{DataplaneError, os_error};

/// Bits of the service id before the address.
const SERVICE_BITS: u32 = 32;

/// Length of the prefix, then service id and address as they lie in memory.
type Entry = (u32, [u8; 20]);

/// The map.
pub(super) struct Sources {
    map: LpmTrie<MapData, [u8; 20], u32>,
    /// What is in it.
    known: BTreeSet<Entry>,
}

impl Sources {
    pub(super) fn open(ebpf: &mut Ebpf) -> Result<Self, DataplaneError> {
        let map: LpmTrie<MapData, [u8; 20], u32> = LpmTrie::try_from(take(ebpf, maps::SOURCES)?)
            .map_err(|error| DataplaneError::Other(maps::SOURCES, error.to_string()))?;
        let known =
            map.iter().filter_map(Result::ok).map(|(key, _)| (key.prefix_len(), key.data())).collect();
        Ok(Self { map, known })
    }

    /// Adds what is wanted and not there yet.
    pub(super) fn grow(&mut self, wanted: &[(u32, IpNet)]) -> io::Result<()> {
        for entry in wanted.iter().map(entry) {
            if self.known.contains(&entry) {
                continue;
            }
            self.map.insert(&Key::new(entry.0, entry.1), 1, BPF_ANY).map_err(os_error)?;
            self.known.insert(entry);
        }
        Ok(())
    }

    /// Removes what is not wanted.
    pub(super) fn shrink(&mut self, wanted: &[(u32, IpNet)]) -> io::Result<()> {
        let wanted: BTreeSet<Entry> = wanted.iter().map(entry).collect();
        for entry in self.known.difference(&wanted) {
            self.map.remove(&Key::new(entry.0, entry.1)).map_err(os_error)?;
        }
        self.known = wanted;
        Ok(())
    }
}

fn entry((service, net): &(u32, IpNet)) -> Entry {
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&service.to_ne_bytes());
    bytes[4..].copy_from_slice(&Address::from(net.network()).bytes());
    let bits = u32::from(net.prefix_len()) + if net.addr().is_ipv4() { MAPPED } else { 0 };
    (SERVICE_BITS + bits, bytes)
}

//! The map `hostports`: which port of the node leads to which port of which pod. Written by attach alone, each entry
//! where none was, so that of two pods one wins; emptied by detach; the hooks read it.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::LAYOUT;
use super::map::{Map, MapError};

/// What a client dials: address, port, protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostPortKey {
    /// Unspecified is any of the node's addresses of the family.
    pub(crate) address: IpAddr,
    pub(crate) port: u16,
    /// As in the IP header.
    pub(crate) protocol: u8,
}

/// Where it leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostPortEntry {
    /// The pod's host end.
    pub(crate) index: u32,
    pub(crate) container_port: u16,
}

/// The open map.
pub(crate) struct HostPorts {
    map: Map<20, 8>,
    /// What services answer on; it has the same keys.
    frontends: Option<Map<20, 8>>,
    folder: PathBuf,
}

impl HostPorts {
    /// Opens the map below `bpf_dir`, the daemon's directory of pins; None where it is not there.
    pub(crate) fn open(bpf_dir: &Path) -> Result<Option<Self>, MapError> {
        let folder = bpf_dir.join(LAYOUT);
        let Some(map) = Map::open(folder.join("hostports"))? else { return Ok(None) };
        let frontends = Map::open(folder.join("frontends"))?;
        Ok(Some(Self { map, frontends, folder }))
    }

    /// Takes a port; false if it is taken.
    pub(crate) fn take(&self, key: HostPortKey, entry: HostPortEntry) -> Result<bool, MapError> {
        self.map.put_new(&key.to_bytes(), &entry.to_bytes(key))
    }

    pub(crate) fn get(&self, key: HostPortKey) -> Result<Option<HostPortEntry>, MapError> {
        Ok(self.map.get(&key.to_bytes())?.map(HostPortEntry::from_bytes))
    }

    pub(crate) fn entries(&self) -> Result<Vec<(HostPortKey, HostPortEntry)>, MapError> {
        let read = |(key, value)| (HostPortKey::from_bytes(key), HostPortEntry::from_bytes(value));
        Ok(self.map.elements()?.into_iter().map(read).collect())
    }

    /// A service answers on the port: it wins.
    pub(crate) fn is_of_service(&self, key: HostPortKey) -> Result<bool, MapError> {
        let found = self.frontends.as_ref().map(|map| map.get(&key.to_bytes())).transpose()?;
        Ok(found.flatten().is_some())
    }

    /// Gives back every port that leads to the host end.
    pub(crate) fn release(&self, index: u32) -> Result<usize, MapError> {
        let own: Vec<_> = self.entries()?.into_iter().filter(|(_, entry)| entry.index == index).collect();
        own.iter().try_for_each(|(key, _)| self.map.remove(&key.to_bytes()))?;
        Ok(own.len())
    }

    /// Removes those of `entries` that are still the same and whose host end is gone, as `is_gone` knows. Indices are
    /// not used again and only this removes what is not its own, one process at a time: so nobody's new entry is hit.
    pub(crate) fn remove_gone(
        &self,
        entries: &[(HostPortKey, HostPortEntry)],
        is_gone: impl Fn(u32) -> bool,
    ) -> Result<usize, MapError> {
        let gone: Vec<_> = entries.iter().filter(|(_, entry)| is_gone(entry.index)).collect();
        if gone.is_empty() {
            return Ok(0);
        }
        let folder = File::open(&self.folder).map_err(|source| MapError::new(&self.folder, source))?;
        flock(&folder, FlockOperation::LockExclusive)
            .map_err(|error| MapError::new(&self.folder, error.into()))?;
        let mut count = 0;
        for (key, entry) in gone {
            if self.get(*key)? == Some(*entry) {
                self.map.remove(&key.to_bytes())?;
                count += 1;
            }
        }
        Ok(count)
    }
}

impl HostPortKey {
    /// The layout of `FrontendKey` in ebpf/src/frontend.rs.
    fn to_bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        let address = match self.address {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        bytes[..16].copy_from_slice(&address.octets());
        bytes[16..18].copy_from_slice(&self.port.to_be_bytes());
        bytes[18] = self.protocol;
        bytes
    }

    fn from_bytes(bytes: [u8; 20]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, protocol, _] = bytes;
        let address = Ipv6Addr::from([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]);
        let address = address.to_ipv4_mapped().map_or(IpAddr::V6(address), |ip: Ipv4Addr| IpAddr::V4(ip));
        Self { address, port: u16::from_be_bytes([q, r]), protocol }
    }

    /// A reader may find an element that has just been handed to another key: it compares this. The same as that of
    /// `FrontendKey`.
    fn check(self) -> u16 {
        let words = self.to_bytes();
        let words = words.as_chunks::<4>().0.iter().enumerate().map(|(index, bytes)| match index {
            4 => {
                let [a, b, c, d] = *bytes;
                u32::from(u16::from_ne_bytes([a, b])) << 16 | u32::from(u16::from_ne_bytes([c, d]))
            }
            _ => u32::from_ne_bytes(*bytes),
        });
        let sum = words.fold(1u32, |sum, word| (sum.rotate_left(13) ^ word).wrapping_mul(0x9e37_79b1));
        let [a, b, ..] = sum.to_be_bytes();
        u16::from_be_bytes([a, b])
    }
}

impl HostPortEntry {
    fn to_bytes(self, key: HostPortKey) -> [u8; 8] {
        let [a, b, c, d] = self.index.to_ne_bytes();
        let ([e, f], [g, h]) = (self.container_port.to_be_bytes(), key.check().to_ne_bytes());
        [a, b, c, d, e, f, g, h]
    }

    const fn from_bytes(bytes: [u8; 8]) -> Self {
        let [a, b, c, d, e, f, ..] = bytes;
        Self { index: u32::from_ne_bytes([a, b, c, d]), container_port: u16::from_be_bytes([e, f]) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_entries_read_back() {
        for address in ["0.0.0.0", "::", "192.0.2.10", "2001:db8::7"] {
            let key = HostPortKey { address: address.parse().unwrap(), port: 8080, protocol: 17 };
            assert_eq!(HostPortKey::from_bytes(key.to_bytes()), key);
            let entry = HostPortEntry { index: 70_000, container_port: 80 };
            assert_eq!(HostPortEntry::from_bytes(entry.to_bytes(key)), entry);
        }
    }

    #[test]
    fn the_bytes_are_those_that_the_hooks_read() {
        let key = HostPortKey { address: "0.0.0.0".parse().unwrap(), port: 0x1f90, protocol: 6 };
        let mut expected = [0; 20];
        expected[10..12].copy_from_slice(&[0xff, 0xff]);
        expected[16..19].copy_from_slice(&[0x1f, 0x90, 6]);
        assert_eq!(key.to_bytes(), expected);
        let value = HostPortEntry { index: 7, container_port: 80 }.to_bytes(key);
        assert_eq!(value[..6], [&7u32.to_ne_bytes()[..], &[0, 80]].concat());
    }
}

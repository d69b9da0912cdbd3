//! The map `pods`: which addresses a network namespace, and which the pod behind a host end has. The hooks read it.
//! Written by attach, emptied by detach, filled anew by the daemon.

use std::net::{IpAddr, Ipv6Addr};
use std::path::Path;

use super::LAYOUT;
use super::map::{Map, MapError};

/// Marks a key that is a link's index; the others are cookies of network namespaces.
const INDEX: u64 = 1 << 63;

/// The map's value: the IPv4 address mapped into IPv6, then the IPv6 address; zero where there is none.
pub type PodValue = [u8; 32];

/// A key of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PodKey {
    /// The cookie of the pod's network namespace.
    Namespace(u64),
    /// The index of the pod's host end.
    Link(u32),
}

/// The open map.
pub(crate) struct Pods(Map<8, 32>);

impl Pods {
    /// Opens the map below `bpf_dir`, the daemon's directory of pins; None where it is not there.
    pub(crate) fn open(bpf_dir: &Path) -> Result<Option<Self>, MapError> {
        Ok(Map::open(bpf_dir.join(LAYOUT).join("pods"))?.map(Self))
    }

    /// Says which addresses the pod has whose namespace is that of `cookie` and whose host end is `index`.
    pub(crate) fn insert(&self, cookie: u64, index: u32, addresses: &[IpAddr]) -> Result<(), MapError> {
        let value = pod_value(addresses);
        self.0.put(&PodKey::Namespace(cookie).to_bytes(), &value)?;
        self.0.put(&PodKey::Link(index).to_bytes(), &value)
    }

    /// Whether the programs know the pod.
    pub(crate) fn contains(&self, key: PodKey) -> Result<bool, MapError> {
        Ok(self.0.get(&key.to_bytes())?.is_some())
    }

    /// Forgets a pod; unknown is fine.
    pub(crate) fn remove(&self, key: PodKey) -> Result<(), MapError> {
        self.0.remove(&key.to_bytes())
    }

    pub(crate) fn keys(&self) -> Result<Vec<PodKey>, MapError> {
        Ok(self.0.elements()?.into_iter().map(|(key, _)| PodKey::from_bytes(key)).collect())
    }
}

impl PodKey {
    fn to_bytes(self) -> [u8; 8] {
        match self {
            Self::Namespace(cookie) => cookie.to_ne_bytes(),
            Self::Link(index) => (INDEX | u64::from(index)).to_ne_bytes(),
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "an index is 32 bits")]
    fn from_bytes(bytes: [u8; 8]) -> Self {
        let word = u64::from_ne_bytes(bytes);
        if word & INDEX == 0 { Self::Namespace(word) } else { Self::Link(word as u32) }
    }
}

/// The value of the map for the addresses of a pod.
pub fn pod_value(addresses: &[IpAddr]) -> PodValue {
    let mut value = [0; 32];
    for address in addresses {
        match address {
            IpAddr::V4(ip) => value[..16].copy_from_slice(&ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => value[16..].copy_from_slice(&Ipv6Addr::octets(ip)),
        }
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back() {
        for key in [PodKey::Namespace(4123), PodKey::Link(7), PodKey::Link(u32::MAX)] {
            assert_eq!(PodKey::from_bytes(key.to_bytes()), key);
        }
        assert_eq!(u64::from_ne_bytes(PodKey::Link(7).to_bytes()), (1 << 63) + 7);
    }

    #[test]
    fn value_holds_both_families() {
        let value = pod_value(&["10.1.2.3".parse().unwrap(), "fd00::7".parse().unwrap()]);
        assert_eq!(value[..16], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3]);
        assert_eq!(value[16..18], [0xfd, 0]);
        assert_eq!(value[31], 7);
        assert_eq!(pod_value(&[]), [0; 32]);
    }
}

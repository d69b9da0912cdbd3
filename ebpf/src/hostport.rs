//! Map `hostports`: HASH, pinned, NO_PREALLOC. Key: [`FrontendKey`], whose address `::` or `::ffff:0.0.0.0`
//! stands for every address of the node. Value: one u64 in memory order: interface index of the pod's host
//! end (native), container port (network order), check of the key. Whoever makes pods writes it with plain
//! bpf(2) and NOEXIST; the hooks look here after `frontends`, and find the pod's address in `pods`.

use crate::address::{Address, Port};
use crate::frontend::FrontendKey;
use crate::kernel::Kernel;

/// Map value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct HostPortWord(pub u64);

impl HostPortWord {
    /// The word of `key`.
    #[inline(always)]
    pub const fn new(key: &FrontendKey, host_end: u32, port: Port) -> Self {
        Self(host_end as u64 | (port.word() as u64) << 32 | (key.check() as u64) << 48)
    }

    /// The interface index of the pod's link on the node.
    #[inline(always)]
    pub const fn host_end(self) -> u32 {
        self.0 as u32
    }

    /// The port in the pod.
    #[inline(always)]
    pub const fn port(self) -> Port {
        Port::from_word((self.0 >> 32) as u16)
    }

    /// Whether this is a word of `key`, and not of another key that took over the element.
    #[inline(always)]
    pub const fn is_of(self, key: &FrontendKey) -> bool {
        (self.0 >> 48) as u16 == key.check()
    }
}

/// The key that stands for `key` on every address of the node.
#[inline(always)]
pub const fn on_any_address(key: &FrontendKey) -> FrontendKey {
    let any = if key.address().is_ipv4() { Address::from_ipv4_word(0) } else { Address::NONE };
    FrontendKey::new(any, key.port(), key.protocol())
}

/// The key in `pods` of the pod behind an interface of the node, beside those of namespaces.
#[inline(always)]
pub const fn pod_behind(host_end: u32) -> u64 {
    1 << 63 | host_end as u64
}

/// The pod that has the port of the node which a socket dials, and its port there.
#[inline(always)]
pub(crate) fn lead<K: Kernel>(kernel: &K, key: &FrontendKey) -> Option<(Address, Port)> {
    let any = on_any_address(key);
    let word = match kernel.host_port(key) {
        Some(word) if word.is_of(key) => word,
        Some(_) | None => match kernel.host_port(&any) {
            Some(word) if word.is_of(&any) && kernel.is_own(key.address()) => word,
            Some(_) | None => return None,
        },
    };
    // A pod that talks to itself is left alone.
    if key.address().is_loopback() && kernel.netns_cookie() != kernel.node_netns() {
        return None;
    }
    let pod = kernel.pod(pod_behind(word.host_end()))?;
    let address = if key.address().is_ipv4() { pod.ipv4 } else { pod.ipv6 };
    if address.is_none() { None } else { Some((address, word.port())) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::TCP;

    #[test]
    fn the_value_is_what_other_writers_put_into_memory() {
        let key = FrontendKey::new(Address::from_words([7; 4]), Port::new(8080), TCP);
        let word = HostPortWord::new(&key, 0x0102_0304, Port::new(80));
        let mut bytes = Vec::from(0x0102_0304_u32.to_ne_bytes());
        bytes.extend(80_u16.to_be_bytes());
        bytes.extend(key.check().to_ne_bytes());
        assert_eq!(word.0.to_ne_bytes().as_slice(), bytes);
        assert_eq!((word.host_end(), word.port().number()), (0x0102_0304, 80));
        assert!(word.is_of(&key) && !word.is_of(&on_any_address(&key)));
    }
}

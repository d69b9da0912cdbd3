//! Map `fragments`: LRU, the fragments of one datagram -> the ports that its first one has. The later ones carry
//! none, and are found by what the first one said.

use crate::address::{Address, mix};
use crate::packet::flow::Ports;

/// Map key: source, destination, identification, protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FragmentKey {
    /// The source address.
    pub source: Address,
    /// The destination address.
    pub destination: Address,
    /// The identification, as it lies in memory.
    pub id: u32,
    /// The protocol as in the IP header, zeros.
    pub protocol: u32,
}

const _: () = assert!(size_of::<FragmentKey>() == 40);

/// Map value: ports (32 bits), check of the key (32 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct FragmentWord(pub u64);

impl FragmentWord {
    /// The ports of the datagram of `key`.
    #[inline(always)]
    pub const fn new(key: &FragmentKey, ports: Ports) -> Self {
        Self(ports.0 as u64 | (key.check() as u64) << 32)
    }

    /// The ports, if this is a word of `key`.
    #[inline(always)]
    pub const fn ports(self, key: &FragmentKey) -> Option<Ports> {
        if (self.0 >> 32) as u32 == key.check() { Some(Ports(self.0 as u32)) } else { None }
    }
}

impl FragmentKey {
    #[inline(always)]
    const fn check(&self) -> u32 {
        let ([a, b, c, d], [e, f, g, h]) = (self.source.words(), self.destination.words());
        let source = mix(mix(mix(mix(1, a), b), c), d);
        mix(mix(mix(mix(mix(mix(source, e), f), g), h), self.id), self.protocol)
    }
}

//! Map `fragments`: LRU, the fragments of one datagram -> the ports that its first one has. The later ones carry
//! none, and are found by what the first one said. Those that come before it are held until it does, in the map
//! `held`, which only the programs know.

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

/// How many fragments of one datagram are held: as many as the largest one has on Ethernet.
pub const HELD_SLOTS: u32 = 48;
/// For how many seconds. What comes later is as good as lost: one way is seldom that much slower than another.
pub const HELD_SECONDS: u32 = 1;
/// The longest frame that is held: more than Ethernet has, and a power of two for the verifier's sake.
pub const HELD_BYTES: usize = 2048;

/// Map key of `held`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct HeldKey {
    /// The datagram.
    pub fragment: FragmentKey,
    /// Below [`HELD_SLOTS`].
    pub slot: u32,
}

/// Map value of `held`: a whole frame.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Held {
    /// How many bytes it has.
    pub size: u32,
    /// When it came, in [`crate::packet::flow::seconds`].
    pub seen: u32,
    /// The frame.
    pub bytes: [u8; HELD_BYTES],
}

impl FragmentKey {
    #[inline(always)]
    const fn check(&self) -> u32 {
        let ([a, b, c, d], [e, f, g, h]) = (self.source.words(), self.destination.words());
        let source = mix(mix(mix(mix(1, a), b), c), d);
        mix(mix(mix(mix(mix(mix(source, e), f), g), h), self.id), self.protocol)
    }
}

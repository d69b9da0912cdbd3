//! Maps of what the daemon knows and the packet hooks ask: `uplinks`, the links that the hooks are at; `ranges`,
//! which addresses are pods', nodes' or reached directly; `sources`, who may use a guarded frontend.

use crate::address::{Address, Port};
use crate::maps::UPLINKS_ENTRIES;

/// Map value of `uplinks`: ARRAY, [`place`] -> this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Uplink {
    /// The IPv4 source of what is rewritten when it leaves here, or `::`.
    pub ipv4: Address,
    /// The IPv6 one, or `::`.
    pub ipv6: Address,
    /// The length of the link's header: 14 for Ethernet, 0 where packets have none.
    pub header: u32,
    /// Two ports in host order: the first and the last that the host itself takes for its connections.
    host_ports: u32,
    /// The index of the link, or [`Uplink::NOWHERE`].
    pub index: u32,
}

const _: () = assert!(size_of::<Uplink>() == 44);

/// Where the map `uplinks` has a link: at the first of these places that was free. Every packet asks, and nearly always
/// the first answer is the right one, which a hash would take ten times as long to give.
#[inline(always)]
pub const fn place(index: u32, step: u32) -> u32 {
    index.wrapping_add(step) % UPLINKS_ENTRIES
}

/// The first port that is used as a source: those below are for servers.
const FIRST: u32 = 1024;
/// How many ports there are.
const PORTS: u32 = 65536;

impl Uplink {
    /// The index of no link.
    pub const NOWHERE: u32 = 0;

    /// A link whose host takes the ports `first..=last` for itself.
    pub const fn new(ipv4: Address, ipv6: Address, header: u32, first: u16, last: u16) -> Self {
        let host_ports = first as u32 | (last as u32) << 16;
        Self { ipv4, ipv6, header, host_ports, index: Self::NOWHERE }
    }

    /// The same, of the link with this index.
    #[must_use]
    pub const fn at(self, index: u32) -> Self {
        Self { index, ..self }
    }

    /// The value as the map has it.
    pub const fn to_bytes(&self) -> [u8; 44] {
        // SAFETY: eleven words without padding.
        unsafe { core::mem::transmute(*self) }
    }

    /// From a value of the map.
    pub const fn from_bytes(bytes: &[u8; 44]) -> Self {
        // SAFETY: eleven words, which any bytes are.
        unsafe { core::mem::transmute(*bytes) }
    }

    /// Its address of a family, or `::`.
    #[inline(always)]
    pub const fn address(&self, ipv4: bool) -> Address {
        if ipv4 { self.ipv4 } else { self.ipv6 }
    }

    /// Whether the host may take this port for itself, or a server has it.
    #[inline(always)]
    pub const fn is_reserved(&self, port: Port) -> bool {
        let number = port.number() as u32;
        number < FIRST || number.wrapping_sub(self.first()) < self.span()
    }

    /// One of the ports that are not reserved, for a random number.
    #[inline(always)]
    pub const fn pick(&self, random: u32) -> Port {
        let free = (PORTS - FIRST - self.span()) as u64;
        let number = FIRST + ((random as u64 * free) >> 32) as u32;
        Port::new(if number < self.first() { number } else { number + self.span() } as u16)
    }

    /// The first reserved port, at least [`FIRST`].
    #[inline(always)]
    const fn first(&self) -> u32 {
        let first = self.host_ports & 0xffff;
        if first < FIRST { FIRST } else { first }
    }

    /// How many ports the host takes; none if it leaves too few.
    #[inline(always)]
    const fn span(&self) -> u32 {
        let end = (self.host_ports >> 16) + 1;
        let span = end.saturating_sub(self.first());
        // A host that takes all for itself shares them.
        if span > PORTS - 2 * FIRST { 0 } else { span }
    }
}

/// Map key of `ranges`: LPM_TRIE, bits of the prefix (native), address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct RangeKey {
    /// Bits of the prefix; an IPv4 range has 96 more.
    pub bits: u32,
    /// The address.
    pub address: Address,
}

const _: () = assert!(size_of::<RangeKey>() == 20);

/// What an address is, in `ranges`.
pub mod range {
    /// A pod of this node: masqueraded when it leaves the cluster.
    pub const POD: u32 = 1;
    /// This node's own.
    pub const NODE: u32 = 1 << 1;
    /// Reached by pods with their own addresses.
    pub const DIRECT: u32 = 1 << 2;
}

/// Map key of `sources`: LPM_TRIE, bits of the prefix (native), service id, address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct SourceKey {
    /// Bits of the prefix: 32 of the service id, then as in [`RangeKey`].
    pub bits: u32,
    /// The service id.
    pub service: u32,
    /// The address.
    pub address: Address,
}

const _: () = assert!(size_of::<SourceKey>() == 24);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_of_the_host_are_never_picked_and_all_others_can_be() {
        let uplink = Uplink::new(Address::NONE, Address::NONE, 14, 32768, 60999);
        assert_eq!(uplink.pick(0).number(), 1024);
        assert_eq!(uplink.pick(u32::MAX).number(), 65535);
        let mut last = 0;
        for step in 0..=0xffff_u32 {
            let port = uplink.pick(step << 16);
            assert!(!uplink.is_reserved(port) && port.number() >= last, "{}", port.number());
            last = port.number();
        }
        assert!([1, 1023, 32768, 60999].iter().all(|&port| uplink.is_reserved(Port::new(port))));
        assert!([1024, 32767, 61000, 65535].iter().all(|&port| !uplink.is_reserved(Port::new(port))));
    }

    #[test]
    fn a_host_that_takes_every_port_shares_them() {
        let uplink = Uplink::new(Address::NONE, Address::NONE, 14, 1024, 65535);
        assert!(!uplink.is_reserved(Port::new(40_000)));
        assert_eq!(uplink.pick(u32::MAX).number(), 65535);
    }
}

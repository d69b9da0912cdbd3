//! Maps `flows` (HASH) and `fleeting` (LRU): what is known of a flow, one entry for each side on which its packets
//! are rewritten. Of the two entries of a translation each can be made from the other. A new flow is half open until
//! both ends have spoken. While too many of `flows` are, what is new goes to `fleeting`, where a flood drives out
//! nothing else, and moves once both ends have spoken. `crowd` (ARRAY) tells how many are half open, and when there
//! was last something in `fleeting`.

use crate::address::{Address, Port, mix_pair};
use crate::element::read_backwards;

/// ICMP in the IP header.
pub const ICMP: u8 = 1;
/// ICMPv6 in the IP header.
pub const ICMP6: u8 = 58;

/// Where a packet is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// It comes in from an uplink; its destination can be rewritten.
    Arrive = 0,
    /// It goes out by an uplink; its source can be rewritten.
    Leave = 1,
}

/// The ports of a packet as they lie in memory: source, destination. An echo request has its identifier as
/// source port and zero as destination port; a reply the other way round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Ports(pub u32);

impl Ports {
    /// From two ports.
    #[inline(always)]
    pub const fn new(source: Port, destination: Port) -> Self {
        Self((source.word() as u32 | (destination.word() as u32) << 16).to_le())
    }

    /// The source port.
    #[inline(always)]
    pub const fn source(self) -> Port {
        Port::from_word(u32::from_le(self.0) as u16)
    }

    /// The destination port.
    #[inline(always)]
    pub const fn destination(self) -> Port {
        Port::from_word((u32::from_le(self.0) >> 16) as u16)
    }

    /// Those of an answer.
    #[inline(always)]
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self(self.0.rotate_left(16))
    }
}

/// Map key: what the headers of a packet say, and where it is seen. 16 + 16 + 4 + 1 + 1 bytes and two zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct FlowKey {
    /// The source address.
    pub source: Address,
    /// The destination address.
    pub destination: Address,
    /// The ports.
    pub ports: Ports,
    /// Four bytes: protocol, side, zeros.
    kind: u32,
}

const _: () = assert!(size_of::<FlowKey>() == 40);

impl FlowKey {
    /// What is seen on `side`; the protocol as in the IP header.
    #[inline(always)]
    pub const fn new(source: Address, destination: Address, ports: Ports, protocol: u8, side: Side) -> Self {
        Self { source, destination, ports, kind: (protocol as u32 | (side as u32) << 8).to_le() }
    }

    /// The protocol as in the IP header.
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        u32::from_le(self.kind) as u8
    }

    /// Where it is seen.
    #[inline(always)]
    pub const fn side(&self) -> Side {
        if u32::from_le(self.kind) & 0x100 == 0 { Side::Arrive } else { Side::Leave }
    }

    /// An answer to it, seen on `side`.
    #[inline(always)]
    #[must_use]
    pub const fn answer(&self, side: Side) -> Self {
        Self::new(self.destination, self.source, self.ports.reversed(), self.protocol(), side)
    }

    /// The key as the map has it.
    pub const fn to_bytes(&self) -> [u8; 40] {
        // SAFETY: ten words without padding.
        unsafe { core::mem::transmute(*self) }
    }

    /// From a key of the map.
    pub const fn from_bytes(bytes: &[u8; 40]) -> Self {
        // SAFETY: ten words, which any bytes are.
        unsafe { core::mem::transmute(*bytes) }
    }

    /// The check that an entry of this key carries.
    #[inline(always)]
    pub const fn check(&self) -> u32 {
        // SAFETY: ten words are five pairs of words.
        let [a, b, c, d, e]: [u64; 5] = unsafe { core::mem::transmute(*self) };
        (mix_pair(mix_pair(mix_pair(mix_pair(mix_pair(1, a), b), c), d), e) >> 32) as u32
    }
}

/// CLOCK_MONOTONIC in the seconds of flows, which have 2^30 nanoseconds each: for that a shift will do, where a hook
/// cannot but divide by a power of ten, which takes tens of nanoseconds.
#[expect(clippy::cast_possible_truncation, reason = "seconds since boot fit 32 bits for 146 years")]
#[inline(always)]
pub const fn seconds(nanoseconds: u64) -> u32 {
    (nanoseconds >> 30) as u32
}

/// So many flows of `flows` may be half open: an eighth of it.
pub const HALF_OPEN_FLOWS: i64 = 1 << 15;

/// After so many seconds without a packet nothing of `fleeting` counts any more, in [`seconds`]. No kind of flow that is
/// half open lives longer (RFC 4787, REQ-5, for datagrams).
pub const FLEETING_SECONDS: u32 = 180;

/// Map value: check of the key, state, the address and the ports that the packet gets, backend id, service id,
/// second of the last packet. A writer copies from the front, so the check is read last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Flow {
    check: u32,
    /// [`Flow::FINISHED`] and the other flags.
    pub state: u32,
    /// What becomes of the destination of what arrives, or of the source of what leaves.
    pub address: Address,
    /// What becomes of the ports.
    pub ports: Ports,
    /// The backend id, or [`Flow::NOBODY`], or [`Flow::HOST_PORT`].
    pub backend: u32,
    /// The service id.
    pub service: u32,
    /// When its last packet was seen, in [`seconds`].
    pub seen: u32,
}

const _: () = assert!(size_of::<Flow>() == 40);

impl Flow {
    /// This side has sent its last data (FIN).
    pub const FINISHED: u32 = 1;
    /// This side has ended the flow (RST).
    pub const RESET: u32 = 1 << 1;
    /// The side of the answers.
    pub const ANSWER: u32 = 1 << 8;
    /// Seen, and left as it is: an answer to it must not be masqueraded.
    pub const UNTOUCHED: u32 = 1 << 9;
    /// Both ends have spoken.
    pub const CONFIRMED: u32 = 1 << 10;

    /// No backend: the node's own stack refuses it, or it is a source that is rewritten.
    pub const NOBODY: u32 = u32::MAX;
    /// The backend is the pod behind a host port.
    pub const HOST_PORT: u32 = u32::MAX - 1;

    /// An entry of `key`.
    #[inline(always)]
    pub const fn new(key: &FlowKey, address: Address, ports: Ports, seen: u32) -> Self {
        let check = key.check();
        Self { check, state: 0, address, ports, backend: Self::NOBODY, service: 0, seen }
    }

    /// Whether a flag is set.
    #[inline(always)]
    pub const fn has(&self, flag: u32) -> bool {
        self.state & flag != 0
    }

    /// Whether its packets become the same.
    #[inline(always)]
    pub const fn leads_as(&self, other: &Self) -> bool {
        self.address.is(&other.address) && self.ports.0 == other.ports.0
    }

    /// Whether this is an entry of `key`, and not of another key that took over the element.
    #[inline(always)]
    pub const fn is_of(&self, key: &FlowKey) -> bool {
        self.check == key.check()
    }

    /// The packet of `key` after it was rewritten.
    #[inline(always)]
    pub const fn rewritten(&self, key: &FlowKey) -> FlowKey {
        let (source, destination) = match key.side() {
            Side::Arrive => (key.source, self.address),
            Side::Leave => (self.address, key.destination),
        };
        FlowKey::new(source, destination, self.ports, key.protocol(), key.side())
    }

    /// The entry for the other direction: it takes an answer to the rewritten packet back.
    #[inline(always)]
    pub const fn other(&self, key: &FlowKey) -> (FlowKey, Self) {
        let (side, address) = match key.side() {
            Side::Arrive => (Side::Leave, key.destination),
            Side::Leave => (Side::Arrive, key.source),
        };
        let answer = self.rewritten(key).answer(side);
        let other = Self {
            check: answer.check(),
            state: (self.state ^ Self::ANSWER) & !(Self::FINISHED | Self::RESET),
            address,
            ports: key.ports.reversed(),
            backend: self.backend,
            service: self.service,
            seen: self.seen,
        };
        (answer, other)
    }

    /// From a value of the map.
    pub const fn from_bytes(bytes: &[u8; 40]) -> Self {
        // SAFETY: ten words, which any bytes are.
        unsafe { core::mem::transmute(*bytes) }
    }

    /// Reads an element that another CPU may be handing to another key, the check last.
    ///
    /// # Safety
    ///
    /// `element` must point to an element of the map.
    #[inline(always)]
    pub unsafe fn read(element: *const Self) -> Self {
        // SAFETY: the caller vouches for the element, which has five pairs of words.
        let pairs: [u64; 5] = unsafe { read_backwards(element.cast()) };
        // SAFETY: ten words, which any bytes are.
        unsafe { core::mem::transmute(pairs) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::TCP;
    use std::net::IpAddr;

    fn address(text: &str) -> Address {
        Address::from(text.parse::<IpAddr>().unwrap())
    }

    #[test]
    fn each_entry_of_a_translation_gives_the_other() {
        let ports = Ports::new(Port::new(40_000), Port::new(30_080));
        for side in [Side::Arrive, Side::Leave] {
            let key = FlowKey::new(address("198.51.100.7"), address("192.0.2.1"), ports, TCP, side);
            let new = Ports::new(Port::new(40_001), Port::new(8080));
            let mut flow = Flow::new(&key, address("10.244.1.2"), new, 77);
            flow.backend = 5;
            let (other_key, other) = flow.other(&key);
            assert!(other.is_of(&other_key) && other.has(Flow::ANSWER));
            assert_eq!(other.rewritten(&other_key), key.answer(other_key.side()));
            assert_eq!(other.other(&other_key), (key, flow));
        }
    }

    #[test]
    fn ports_lie_in_memory_as_in_a_packet() {
        let ports = Ports::new(Port::new(0x0102), Port::new(0x0304));
        assert_eq!(ports.0.to_ne_bytes(), [1, 2, 3, 4]);
        assert_eq!((ports.source().number(), ports.destination().number()), (0x0102, 0x0304));
        assert_eq!(ports.reversed().0.to_ne_bytes(), [3, 4, 1, 2]);
    }
}

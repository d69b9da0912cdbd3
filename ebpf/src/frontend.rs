//! Map `frontends`: HASH, what a client dials -> one word. The word is read in one load and carries a check
//! of its key, because a freed hash element may be handed to another key under a reader that still holds it.

use crate::address::{Address, Port, mix};

/// Address, port and protocol that a client dials. Map key: 16 + 2 + 1 bytes and a zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct FrontendKey {
    address: Address,
    port: Port,
    /// Two bytes: protocol, zero.
    protocol: u16,
}

const _: () = assert!(size_of::<FrontendKey>() == 20);

/// TCP in the IP header.
pub const TCP: u8 = 6;
/// UDP in the IP header.
pub const UDP: u8 = 17;

impl FrontendKey {
    /// A frontend; the protocol as in the IP header.
    #[inline(always)]
    pub const fn new(address: Address, port: Port, protocol: u8) -> Self {
        Self { address, port, protocol: (protocol as u16).to_le() }
    }

    /// The entry that stands for all other ports of the address.
    #[inline(always)]
    pub const fn any_port(address: Address) -> Self {
        Self::new(address, Port::new(0), 0)
    }

    /// The address.
    #[inline(always)]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// The port.
    #[inline(always)]
    pub const fn port(&self) -> Port {
        self.port
    }

    /// The protocol as in the IP header.
    #[inline(always)]
    pub const fn protocol(&self) -> u8 {
        u16::from_le(self.protocol) as u8
    }

    /// The key as the map has it.
    pub const fn to_bytes(&self) -> [u8; 20] {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = self.address.bytes();
        let ([q, r], [s, t]) = (self.port.word().to_ne_bytes(), self.protocol.to_ne_bytes());
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t]
    }

    /// From a key of the map.
    pub const fn from_bytes(bytes: &[u8; 20]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t] = *bytes;
        Self {
            address: Address::from_bytes([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]),
            port: Port::from_word(u16::from_ne_bytes([q, r])),
            protocol: u16::from_ne_bytes([s, t]),
        }
    }

    /// The check that the word of this key carries.
    #[inline(always)]
    pub const fn check(&self) -> u16 {
        let [a, b, c, d] = self.address.words();
        let rest = (self.port.word() as u32) << 16 | self.protocol as u32;
        let sum = mix(mix(mix(mix(mix(1, a), b), c), d), rest);
        (sum >> 16) as u16
    }
}

/// Map value: service id (32 bits), flags (16 bits), check of the key (16 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct FrontendWord(pub u64);

impl FrontendWord {
    /// Sockets use the local window (R3: the cluster IP of a service with internal policy Local).
    pub const SOCKET_LOCAL: u16 = 1;
    /// Packets from outside use the local window (external policy Local, or the above for a cluster IP).
    pub const PACKET_LOCAL: u16 = 1 << 1;
    /// Left untranslated while the daemon answers on this address itself: see `maps::NODE`.
    pub const HERE_FIRST: u16 = 1 << 2;
    /// Only for sockets of the node's own network namespace (R16: loopback).
    pub const NODE_ONLY: u16 = 1 << 3;
    /// No service behind it: refuse (R4, for the ports that a service does not have).
    pub const REFUSE: u16 = 1 << 4;
    /// Packets from outside are let in by `sources` only (R13).
    pub const GUARDED: u16 = 1 << 5;

    /// The word of `key`.
    #[inline(always)]
    pub const fn new(key: &FrontendKey, service: u32, flags: u16) -> Self {
        Self(service as u64 | (flags as u64) << 32 | (key.check() as u64) << 48)
    }

    /// The service id.
    #[inline(always)]
    pub const fn service(self) -> u32 {
        self.0 as u32
    }

    /// The flags.
    #[inline(always)]
    pub const fn flags(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// Whether a flag is set.
    #[inline(always)]
    pub const fn has(self, flag: u16) -> bool {
        self.flags() & flag != 0
    }

    /// Whether this is a word of `key`, and not of another key that took over the element.
    #[inline(always)]
    pub const fn is_of(self, key: &FrontendKey) -> bool {
        (self.0 >> 48) as u16 == key.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_gives_back_what_was_put_in() {
        let key = FrontendKey::new(Address::from_words([7; 4]), Port::new(443), TCP);
        let word = FrontendWord::new(&key, 0xdead_beef, FrontendWord::NODE_ONLY);
        assert_eq!(word.service(), 0xdead_beef);
        assert!(word.has(FrontendWord::NODE_ONLY) && !word.has(FrontendWord::HERE_FIRST));
        assert!(word.is_of(&key));
    }

    #[test]
    fn a_key_survives_the_round_trip() {
        let bytes = std::array::from_fn(|index| u8::try_from(index).unwrap());
        assert_eq!(FrontendKey::from_bytes(&bytes).to_bytes(), bytes);
    }

    #[test]
    fn keys_that_differ_in_one_part_have_different_checks() {
        let key = FrontendKey::new(Address::from_words([7; 4]), Port::new(443), TCP);
        for other in [
            FrontendKey::new(Address::from_words([8; 4]), Port::new(443), TCP),
            FrontendKey::new(Address::from_words([7; 4]), Port::new(444), TCP),
            FrontendKey::new(Address::from_words([7; 4]), Port::new(443), UDP),
        ] {
            assert!(!FrontendWord::new(&other, 1, 0).is_of(&key), "{other:?}");
        }
    }
}

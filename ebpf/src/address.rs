//! One form for every address: 16 bytes in network order, IPv4 as `::ffff:a.b.c.d`. So there is one map and
//! one logic for both families, and an IPv4-mapped IPv6 socket address is IPv4 without a special case.

/// An IPv4 or IPv6 address: 16 bytes in network order, held as the four words of a socket address, because
/// the kernel's compiler handles single bytes one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Address([u32; 4]);

const _: () = assert!(size_of::<Address>() == 16);

/// A port: two bytes in network order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(transparent)]
pub struct Port(u16);

const _: () = assert!(size_of::<Port>() == 2);

impl Address {
    /// The address `::`, which no endpoint and no pod has.
    pub const NONE: Self = Self([0; 4]);

    /// From 16 bytes in network order.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self([
            u32::from_ne_bytes([a, b, c, d]),
            u32::from_ne_bytes([e, f, g, h]),
            u32::from_ne_bytes([i, j, k, l]),
            u32::from_ne_bytes([m, n, o, p]),
        ])
    }

    /// The 16 bytes in network order.
    pub const fn bytes(&self) -> [u8; 16] {
        let [[a, b, c, d], [e, f, g, h], [i, j, k, l], [m, n, o, p]] = [
            self.0[0].to_ne_bytes(),
            self.0[1].to_ne_bytes(),
            self.0[2].to_ne_bytes(),
            self.0[3].to_ne_bytes(),
        ];
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p]
    }

    /// From four words as a socket address holds them: network order in memory.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        Self(words)
    }

    /// From an IPv4 word as a socket address holds it: network order in memory.
    #[inline(always)]
    pub const fn from_ipv4_word(word: u32) -> Self {
        Self([0, 0, 0xffff_u32.to_be(), word])
    }

    /// The four words of a socket address.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.0
    }

    /// Whether it is the same: without a branch or a call.
    #[inline(always)]
    pub const fn is(&self, other: &Self) -> bool {
        let ([a, b, c, d], [e, f, g, h]) = (self.0, other.0);
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
    }

    /// Whether it is an IPv4 address.
    #[inline(always)]
    pub const fn is_ipv4(&self) -> bool {
        let [a, b, c, _] = self.0;
        a == 0 && b == 0 && c == 0xffff_u32.to_be()
    }

    /// Whether it is 127.0.0.0/8 or `::1`.
    #[inline(always)]
    pub const fn is_loopback(&self) -> bool {
        let [a, b, c, d] = self.0;
        let ipv4 = self.is_ipv4() && d.to_ne_bytes()[0] == 127;
        ipv4 || (a | b | c == 0 && d == 1u32.to_be())
    }

    /// Whether it is `::`.
    #[inline(always)]
    pub const fn is_none(&self) -> bool {
        let [a, b, c, d] = self.0;
        a | b | c | d == 0
    }
}

impl Port {
    /// From a number in host order.
    #[inline(always)]
    pub const fn new(number: u16) -> Self {
        Self(number.to_be())
    }

    /// From two bytes of a socket address, as they lie in memory.
    #[inline(always)]
    pub const fn from_word(word: u16) -> Self {
        Self(word)
    }

    /// The two bytes of a socket address, as they lie in memory.
    #[inline(always)]
    pub const fn word(self) -> u16 {
        self.0
    }

    /// The number in host order.
    #[inline(always)]
    pub const fn number(self) -> u16 {
        u16::from_be(self.0)
    }
}

/// A checksum of some words: it tells keys apart, it does not resist an attacker.
#[inline(always)]
pub(crate) const fn mix(seed: u32, word: u32) -> u32 {
    (seed.rotate_left(13) ^ word).wrapping_mul(0x9e37_79b1)
}

/// The same for two words at once, where there are many; its upper half is the checksum.
#[inline(always)]
pub(crate) const fn mix_pair(seed: u64, pair: u64) -> u64 {
    (seed.rotate_left(23) ^ pair).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(not(target_arch = "bpf"))]
mod host {
    use core::net::IpAddr;

    use super::Address;

    impl From<IpAddr> for Address {
        fn from(ip: IpAddr) -> Self {
            match ip {
                IpAddr::V4(ip) => Self::from_bytes(ip.to_ipv6_mapped().octets()),
                IpAddr::V6(ip) => Self::from_bytes(ip.octets()),
            }
        }
    }

    impl From<Address> for IpAddr {
        fn from(address: Address) -> Self {
            Self::from(address.bytes()).to_canonical()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    #[test]
    fn both_families_survive_the_round_trip() {
        for text in ["10.96.0.10", "fd00::1", "::1", "127.0.0.1"] {
            let ip: IpAddr = text.parse().unwrap();
            let address = Address::from(ip);
            assert_eq!(IpAddr::from(address), ip);
            assert_eq!(Address::from_words(address.words()), address);
            assert_eq!(address.is_ipv4(), ip.is_ipv4());
        }
    }

    #[test]
    fn loopback_is_known_in_both_families() {
        let is = |text: &str| Address::from(text.parse::<IpAddr>().unwrap()).is_loopback();
        assert!(is("127.0.0.1") && is("127.255.0.9") && is("::1"));
        assert!(!is("128.0.0.1") && !is("10.127.0.1") && !is("::2") && !is("::") && !is("fd00::1"));
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_one() {
        let mapped: IpAddr = "::ffff:10.96.0.10".parse().unwrap();
        let plain: IpAddr = "10.96.0.10".parse().unwrap();
        assert_eq!(Address::from(mapped), Address::from(plain));
    }
}

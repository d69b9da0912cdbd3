//! One form for every address: 16 bytes in network order, IPv4 as `::ffff:a.b.c.d`. So there is one map and
//! one logic for both families, and an IPv4-mapped IPv6 socket address is IPv4 without a special case.

/// An IPv4 or IPv6 address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C, align(4))]
pub struct Address(pub [u8; 16]);

const _: () = assert!(size_of::<Address>() == 16);

impl Address {
    /// The address `::`, which no endpoint and no pod has.
    pub const NONE: Self = Self([0; 16]);

    /// From four words as a socket address holds them: network order in memory.
    #[inline(always)]
    pub const fn from_words(words: [u32; 4]) -> Self {
        let [a, b, c, d] =
            [words[0].to_ne_bytes(), words[1].to_ne_bytes(), words[2].to_ne_bytes(), words[3].to_ne_bytes()];
        Self([a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3], c[0], c[1], c[2], c[3], d[0], d[1], d[2], d[3]])
    }

    /// From an IPv4 word as a socket address holds it: network order in memory.
    #[inline(always)]
    pub const fn from_ipv4_word(word: u32) -> Self {
        Self::from_words([0, 0, 0xffff_u32.to_be(), word])
    }

    /// The four words of a socket address.
    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        let b = &self.0;
        [
            u32::from_ne_bytes([b[0], b[1], b[2], b[3]]),
            u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
            u32::from_ne_bytes([b[8], b[9], b[10], b[11]]),
            u32::from_ne_bytes([b[12], b[13], b[14], b[15]]),
        ]
    }

    /// Whether it is an IPv4 address.
    #[inline(always)]
    pub const fn is_ipv4(&self) -> bool {
        let [a, b, c, _] = self.words();
        a == 0 && b == 0 && c == 0xffff_u32.to_be()
    }

    /// Whether it is `::`.
    #[inline(always)]
    pub const fn is_none(&self) -> bool {
        let [a, b, c, d] = self.words();
        a | b | c | d == 0
    }
}

/// A checksum of some words: it tells keys apart, it does not resist an attacker.
#[inline(always)]
pub(crate) const fn mix(seed: u32, word: u32) -> u32 {
    (seed.rotate_left(13) ^ word).wrapping_mul(0x9e37_79b1)
}

#[cfg(not(target_arch = "bpf"))]
mod host {
    use core::net::IpAddr;

    use super::Address;

    impl From<IpAddr> for Address {
        fn from(ip: IpAddr) -> Self {
            match ip {
                IpAddr::V4(ip) => Self(ip.to_ipv6_mapped().octets()),
                IpAddr::V6(ip) => Self(ip.octets()),
            }
        }
    }

    impl From<Address> for IpAddr {
        fn from(address: Address) -> Self {
            Self::from(address.0).to_canonical()
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
    fn a_mapped_address_is_the_ipv4_one() {
        let mapped: IpAddr = "::ffff:10.96.0.10".parse().unwrap();
        let plain: IpAddr = "10.96.0.10".parse().unwrap();
        assert_eq!(Address::from(mapped), Address::from(plain));
    }
}

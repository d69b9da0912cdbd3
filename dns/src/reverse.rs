//! Reverse names: which address or range of addresses a name under `in-addr.arpa` or `ip6.arpa` stands
//! for, and whether it is ours. Pure; called by `zone` and `dump`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::name::{DomainName, Folded};
use crate::zone::Cut;

/// The addresses under a reverse name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The lowest address.
    pub(crate) first: IpAddr,
    /// The highest.
    pub(crate) last: IpAddr,
    /// The bits that the labels fix.
    bits: u8,
    /// Labels left of those that fix bits: below an address, or no part of one.
    pub(crate) extra: usize,
}

impl Range {
    /// The address, where all its bits are fixed.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        (self.first == self.last).then_some(self.first)
    }
}

/// Reads a name under `arpa`; None for one that is in neither reverse tree.
pub(crate) fn parse(name: &Folded) -> Option<Range> {
    let above = name.count().checked_sub(2)?;
    match name.label(above) {
        b"in-addr" => Some(parse4(name, above)),
        b"ip6" => Some(parse6(name, above)),
        _ => None,
    }
}

fn parse4(name: &Folded, above: usize) -> Range {
    let (mut first, mut bits, mut left) = (0, 0_u8, above);
    while bits < 32 && left > 0 {
        let Some(octet) = decimal(name.label(left - 1)) else { break };
        bits += 8;
        left -= 1;
        first |= u32::from(octet) << (32 - bits);
    }
    let free = u32::MAX.checked_shr(bits.into()).unwrap_or(0);
    Range {
        first: Ipv4Addr::from(first).into(),
        last: Ipv4Addr::from(first | free).into(),
        bits,
        extra: left,
    }
}

fn parse6(name: &Folded, above: usize) -> Range {
    let (mut first, mut bits, mut left) = (0, 0_u8, above);
    while bits < 128 && left > 0 {
        let Some(nibble) = hexadecimal(name.label(left - 1)) else { break };
        bits += 4;
        left -= 1;
        first |= u128::from(nibble) << (128 - bits);
    }
    let free = u128::MAX.checked_shr(bits.into()).unwrap_or(0);
    Range {
        first: Ipv6Addr::from(first).into(),
        last: Ipv6Addr::from(first | free).into(),
        bits,
        extra: left,
    }
}

/// How many labels stand above the apex of the zone of ours that holds the range; None where none does.
/// A range whose length is no whole number of labels is several zones, one for each value of the next label.
pub(crate) fn cut(range: &Range, ours: &[IpNet]) -> Option<Cut> {
    let holding = ours.iter().filter(|net| net.contains(&range.first));
    let step = if range.first.is_ipv4() { 8 } else { 4 };
    let apexes = holding.map(|net| net.prefix_len().div_ceil(step) * step);
    let apex = apexes.filter(|bits| *bits <= range.bits).min()?;
    Some(Cut(usize::from((range.bits - apex) / step) + range.extra))
}

/// The reverse name of an address.
pub(crate) fn name_of(address: IpAddr) -> DomainName {
    let text = match address {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(ip) => {
            let nibbles =
                ip.octets().into_iter().rev().map(|octet| format!("{:x}.{:x}.", octet & 15, octet >> 4));
            nibbles.collect::<String>() + "ip6.arpa"
        }
    };
    DomainName::parse(&text).expect("a reverse name has short labels and at most 74 octets")
}

fn decimal(label: &[u8]) -> Option<u8> {
    let canonical = label == b"0" || label.first().is_some_and(|digit| (b'1'..=b'9').contains(digit));
    if !canonical {
        return None;
    }
    str::from_utf8(label).ok()?.parse().ok()
}

fn hexadecimal(label: &[u8]) -> Option<u8> {
    match label {
        [digit @ b'0'..=b'9'] => Some(digit - b'0'),
        [digit @ b'a'..=b'f'] => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let ours = ["10.96.0.0/16", "10.244.0.0/14", "192.0.2.128/25", "fd00:1::/32"];
        let ours: Vec<IpNet> = ours.iter().map(|net| net.parse().unwrap()).collect();
        let name = DomainName::parse(text).unwrap().fold();
        let found = parse(&name).map(|range| {
            let cut = cut(&range, &ours).map_or("outside".into(), |cut| format!("cut {}", cut.0));
            format!("{}..{} +{} {cut}", range.first, range.last, range.extra)
        });
        assert_eq!(found.as_deref().unwrap_or("none"), expect, "{text}");
    }

    #[test]
    fn names_become_ranges() {
        check("1.0.96.10.in-addr.arpa", "10.96.0.1..10.96.0.1 +0 cut 2");
        check("0.96.10.in-addr.arpa", "10.96.0.0..10.96.0.255 +0 cut 1");
        check("96.10.in-addr.arpa", "10.96.0.0..10.96.255.255 +0 cut 0");
        check("10.in-addr.arpa", "10.0.0.0..10.255.255.255 +0 outside");
        check("in-addr.arpa", "0.0.0.0..255.255.255.255 +0 outside");
        check("x.1.0.96.10.in-addr.arpa", "10.96.0.1..10.96.0.1 +1 cut 3");
        check("01.0.96.10.in-addr.arpa", "10.96.0.0..10.96.0.255 +1 cut 2");
        check("256.96.10.in-addr.arpa", "10.96.0.0..10.96.255.255 +1 cut 1");
        check("245.10.in-addr.arpa", "10.245.0.0..10.245.255.255 +0 cut 0");
        check("248.10.in-addr.arpa", "10.248.0.0..10.248.255.255 +0 outside");
        check("200.2.0.192.in-addr.arpa", "192.0.2.200..192.0.2.200 +0 cut 0");
        check("9.2.0.192.in-addr.arpa", "192.0.2.9..192.0.2.9 +0 outside");
        check("1.0.0.0.0.0.d.f.ip6.arpa", "fd00:1::..fd00:1:ffff:ffff:ffff:ffff:ffff:ffff +0 cut 0");
        check("a.1.0.0.0.0.0.d.f.ip6.arpa", "fd00:1:a000::..fd00:1:afff:ffff:ffff:ffff:ffff:ffff +0 cut 1");
        check("home.arpa", "none");
    }

    #[test]
    fn addresses_become_names_and_come_back() {
        for text in ["10.96.0.10", "fd00:1::a"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(parse(&name_of(address).fold()).unwrap().address(), Some(address));
        }
    }
}

//! Which addresses of a pod range may be given out, and in which order they are tried. Arithmetic only: whether an
//! address is free is for the kernel to say. Called by attach.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Why no address can be taken.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// Every address of the range is taken.
    #[error("no IP addresses available in {0}")]
    Full(IpNet),
    /// The node has no range to take addresses from.
    #[error("no IP addresses available: this node has no pod range")]
    None,
}

/// The addresses of `range` that may be given out, each once: those behind `seed` first. The seed is the index
/// of the new link, which only grows, so an address is used again as late as possible without any state. The
/// network address and, for IPv4, the broadcast address are left out.
pub(crate) fn candidates(range: IpNet, seed: u32) -> impl Iterator<Item = IpAddr> {
    let (first, count) = usable(range);
    let start = if count == 0 { 0 } else { u128::from(seed) % count };
    (0..count).map(move |step| {
        let number = first + (start + step) % count;
        from_number(number, range)
    })
}

/// The first usable address as a number, and how many there are.
fn usable(range: IpNet) -> (u128, u128) {
    let size = 1u128.checked_shl(u32::from(range.max_prefix_len() - range.prefix_len())).unwrap_or(u128::MAX);
    let (network, reserved) = match range {
        IpNet::V4(range) => (u128::from(range.network().to_bits()), 2),
        // The first address of an IPv6 subnet is every router's (RFC 4291, section 2.6.1).
        IpNet::V6(range) => (range.network().to_bits(), 1),
    };
    (network + 1, size.saturating_sub(reserved))
}

#[expect(clippy::cast_possible_truncation, reason = "the number lies within an IPv4 range")]
fn from_number(number: u128, range: IpNet) -> IpAddr {
    match range {
        IpNet::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(number as u32)),
        IpNet::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(number)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(range: &str, seed: u32, expected: &[&str]) {
        let found: Vec<String> =
            candidates(range.parse().unwrap(), seed).take(8).map(|ip| ip.to_string()).collect();
        assert_eq!(found, expected, "{range} from {seed}");
    }

    #[test]
    fn network_and_broadcast_are_left_out() {
        check("10.1.0.0/30", 0, &["10.1.0.1", "10.1.0.2"]);
        check(
            "10.1.0.8/29",
            0,
            &["10.1.0.9", "10.1.0.10", "10.1.0.11", "10.1.0.12", "10.1.0.13", "10.1.0.14"],
        );
        check("fd00::/126", 0, &["fd00::1", "fd00::2", "fd00::3"]);
    }

    #[test]
    fn the_seed_moves_the_start_and_wraps() {
        check(
            "10.1.0.8/29",
            8,
            &["10.1.0.11", "10.1.0.12", "10.1.0.13", "10.1.0.14", "10.1.0.9", "10.1.0.10"],
        );
        check("fd00::/126", u32::MAX, &["fd00::1", "fd00::2", "fd00::3"]);
    }

    #[test]
    fn a_range_without_room_has_none() {
        check("10.1.0.0/31", 3, &[]);
        check("10.1.0.0/32", 3, &[]);
        check("fd00::/128", 3, &[]);
    }

    #[test]
    fn a_written_host_part_does_not_matter() {
        check("10.1.0.9/30", 0, &["10.1.0.9", "10.1.0.10"]);
    }

    #[test]
    fn the_largest_ranges_do_not_overflow() {
        assert_eq!(candidates("::/0".parse().unwrap(), 5).next(), Some("::6".parse().unwrap()));
        let last = candidates("0.0.0.0/0".parse().unwrap(), u32::MAX - 2).next();
        assert_eq!(last, Some("255.255.255.254".parse().unwrap()));
    }
}

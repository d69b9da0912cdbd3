//! Single values: ports, addresses, ranges, names. Strict where the API server is strict. Called by the
//! conversions beside it and by the manifest source.

use std::net::IpAddr;

use ipnet::IpNet;
use model::Protocol;

use super::Wrong;

/// The longest DNS label, RFC 1035 section 2.3.4.
const LABEL_MAX: usize = 63;
/// The longest DNS name as text without its final dot, RFC 1035 section 2.3.4.
const NAME_MAX: usize = 253;

/// A port, 1 to 65535.
pub(crate) fn port(value: i32) -> Result<u16, Wrong> {
    u16::try_from(value).ok().filter(|port| *port != 0).ok_or(Wrong::Port(value))
}

/// An address as the API accepts it: no leading zeros, no zone, no IPv4-mapped IPv6 (KEP-4858).
pub(crate) fn ip(text: &str) -> Result<IpAddr, Wrong> {
    let mapped = |ip: &IpAddr| matches!(ip, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
    text.parse().ok().filter(|ip| !mapped(ip)).ok_or_else(|| Wrong::Address(text.to_owned()))
}

/// An address that can be somebody else's: what the API server asks of endpoints and of external IPs.
pub(super) fn routable(text: &str) -> Result<IpAddr, Wrong> {
    let ip = ip(text)?;
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || matches!(v4.octets(), [224, 0, 0, _]),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.segments()[0] & 0xff0f == 0xff02,
    };
    let is_nobodys = ip.is_unspecified() || ip.is_loopback() || link_local;
    if is_nobodys { Err(Wrong::Special(ip)) } else { Ok(ip) }
}

/// A range of addresses; bits after the prefix are cut off.
pub(crate) fn net(text: &str) -> Result<IpNet, Wrong> {
    text.parse::<IpNet>().map(|net| net.trunc()).map_err(|_| Wrong::Net(text.to_owned()))
}

/// `TCP`, `UDP` or `SCTP`; TCP where nothing is written.
pub(super) fn protocol(text: Option<&str>) -> Result<Protocol, Wrong> {
    match text {
        None | Some("" | "TCP") => Ok(Protocol::Tcp),
        Some("UDP") => Ok(Protocol::Udp),
        Some("SCTP") => Ok(Protocol::Sctp),
        Some(other) => Err(Wrong::Word { found: other.to_owned(), known: "TCP, UDP, SCTP" }),
    }
}

/// One label, RFC 1123.
pub(crate) fn dns_label(text: &str) -> Result<(), Wrong> {
    if is_label(text) { Ok(()) } else { Err(Wrong::Label(text.to_owned())) }
}

/// Labels with dots between them, no dot at the end.
pub(crate) fn dns_name(text: &str) -> Result<(), Wrong> {
    let good = text.len() <= NAME_MAX && text.split('.').all(is_label);
    if good { Ok(()) } else { Err(Wrong::Dns(text.to_owned())) }
}

fn is_label(text: &str) -> bool {
    let inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty()
        && text.len() <= LABEL_MAX
        && text.bytes().all(inside)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

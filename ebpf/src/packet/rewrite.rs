//! Writes into a packet what a flow says: one address, the ports, and every checksum that covers them. It decides
//! nothing; called by the engine once the flow is known.

use crate::address::Address;
use crate::frontend::{TCP, UDP};
use crate::packet::checksum::{apply, difference, word_difference};
use crate::packet::flow::Flow;
use crate::packet::headers::Headers;
use crate::packet::hook::Buffer;

/// The checksum in an IPv4 header.
const HEADER_CHECK: u32 = 10;
/// The last three words of an IPv4 header: TTL, protocol and checksum, source, destination.
const HEADER_END: u32 = 8;
/// The checksum in an ICMP header.
pub(crate) const ICMP_CHECK: u32 = 2;
const TCP_CHECK: u32 = 16;
const UDP_CHECK: u32 = 6;

/// Rewrites the packet as the flow of its key says.
#[inline(never)]
pub(crate) fn rewrite<B: Buffer, const LEAVES: bool>(buffer: &B, headers: &Headers, flow: &Flow) {
    let key = &headers.key;
    let (protocol, at) = (key.protocol(), headers.transport);
    let has_ports = headers.has_transport() && (protocol == TCP || protocol == UDP);
    if has_ports && headers.ipv4 {
        // The parser has read the same header, so it is there.
        if let Some(change) = set_address_and_ports::<B, LEAVES>(buffer, headers, flow) {
            fix_transport(buffer, headers, flow, change);
        }
        return;
    }
    let old = if LEAVES { &key.source } else { &key.destination };
    let place = Place { network: headers.network, ipv4: headers.ipv4, source: LEAVES, inside: false };
    let change = set_address(buffer, &place, old, &flow.address);
    if has_ports {
        if key.ports.0 != flow.ports.0 {
            buffer.store(at, &[flow.ports.0], false);
        }
        fix_transport(buffer, headers, flow, change);
    } else if headers.has_transport() {
        // An echo: its one identifier stands where the second word begins. ICMP has no pseudo-header.
        if !headers.ipv4 {
            buffer.fix(at + ICMP_CHECK, change, true, false);
        }
        set_echo(buffer, at, flow);
    }
}

/// The end of an IPv4 header and the ports right behind it, in one store. What changed of the addresses; None if the
/// header is not there, and nothing changed.
#[inline(always)]
fn set_address_and_ports<B: Buffer, const LEAVES: bool>(
    buffer: &B,
    headers: &Headers,
    flow: &Flow,
) -> Option<u32> {
    let at = headers.network + HEADER_END;
    let [first, source, destination] = buffer.load::<3>(at)?;
    let [.., new] = flow.address.words();
    let change = word_difference(if LEAVES { source } else { destination }, new);
    let [ttl, protocol, high, low] = first.to_ne_bytes();
    let [high, low] = apply(u16::from_ne_bytes([high, low]), change).to_ne_bytes();
    let first = u32::from_ne_bytes([ttl, protocol, high, low]);
    let (source, destination) = if LEAVES { (new, destination) } else { (source, new) };
    buffer.store(at, &[first, source, destination, flow.ports.0], false);
    Some(change)
}

/// Brings the checksum of TCP or UDP up to date.
#[inline(always)]
fn fix_transport<B: Buffer>(buffer: &B, headers: &Headers, flow: &Flow, change: u32) {
    let optional = headers.key.protocol() == UDP;
    let check = headers.transport + if optional { UDP_CHECK } else { TCP_CHECK };
    buffer.fix(check, change, true, optional);
    if headers.key.ports.0 != flow.ports.0 {
        buffer.fix(check, word_difference(headers.key.ports.0, flow.ports.0), false, optional);
    }
}

/// Gives an echo its identifier: the one port of the two that is not zero.
#[inline(always)]
fn set_echo<B: Buffer>(buffer: &B, at: u32, flow: &Flow) {
    let Some([old]) = buffer.load::<1>(at + 4) else { return };
    let new = old & 0xffff_0000_u32.to_le() | echo_id(flow.ports.0);
    buffer.fix(at + ICMP_CHECK, word_difference(old, new), false, false);
    buffer.store(at + 4, &[new], false);
}

/// The identifier of an echo in the first two bytes of a word, from its ports.
#[inline(always)]
pub(crate) const fn echo_id(ports: u32) -> u32 {
    (ports | ports.rotate_left(16)) & 0xffff_u32.to_le()
}

/// Where an address stands.
pub(crate) struct Place {
    /// Where the IP header begins.
    pub(crate) network: u32,
    /// IPv4, or else IPv6.
    pub(crate) ipv4: bool,
    /// The source, or else the destination.
    pub(crate) source: bool,
    /// In the packet inside an ICMP error, which the checksum of ICMP covers.
    pub(crate) inside: bool,
}

/// Replaces an address of an IP header. What changed, for the checksums that cover it.
#[inline(always)]
pub(crate) fn set_address<B: Buffer>(buffer: &B, place: &Place, old: &Address, new: &Address) -> u32 {
    let network = place.network;
    if place.ipv4 {
        let ([.., old], [.., new]) = (old.words(), new.words());
        let change = word_difference(old, new);
        buffer.store(network + if place.source { 12 } else { 16 }, &[new], false);
        buffer.fix_header(network + HEADER_CHECK, change);
        return change;
    }
    // The header of IPv6 has no checksum of its own that would make up for the change.
    buffer.store(network + if place.source { 8 } else { 24 }, &new.words(), !place.inside);
    difference(old.words(), new.words())
}

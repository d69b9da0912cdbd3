//! Reads the headers of a packet: Ethernet with tags, IPv4 and IPv6, fragments, TCP, UDP and ICMP. Whatever it
//! reads is checked against the length; what it cannot follow is left to the host's stack, with a reason.

use crate::address::{Address, Port};
use crate::frontend::{TCP, UDP};
use crate::packet::flow::{FlowKey, ICMP, ICMP6, Ports, Side};
use crate::packet::fragment::FragmentKey;
use crate::packet::hook::{Buffer, Hook};
use crate::stats::Reason;

const IPV4: u16 = 0x0800_u16.to_be();
const IPV6: u16 = 0x86dd_u16.to_be();
/// IEEE 802.1Q and 802.1ad.
const TAGS: [u16; 2] = [0x8100_u16.to_be(), 0x88a8_u16.to_be()];
/// Where an Ethernet header has the type.
const TYPE_OFFSET: u32 = 12;
const MAX_TAGS: usize = 2;
/// A link with headers of this length is Ethernet.
const ETHERNET: u32 = 14;

/// The fragment header of IPv6 (RFC 8200), and the others that may stand before the transport header.
const FRAGMENT: u8 = 44;
const OPTIONS: [u8; 3] = [0, 43, 60];

/// What kind of packet it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// TCP, UDP or an echo, whole or the first fragment.
    Whole = 0,
    /// A fragment without transport header: the ports of the key are zero.
    Later = 1,
    /// An ICMP error: the key's ports are zero, and another packet's header is inside.
    Error = 2,
    /// Anything else.
    Other = 3,
}

/// The headers of a packet.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Headers {
    /// Addresses, ports, protocol; the side is where it was parsed for.
    pub key: FlowKey,
    /// Where the IP header begins.
    pub network: u32,
    /// Where the transport header begins.
    pub transport: u32,
    /// What it is.
    pub kind: Kind,
    /// IPv4, or else IPv6.
    pub ipv4: bool,
    /// A fragment, the first or a later one.
    pub is_fragment: bool,
    /// The identification of the datagram, if it is a fragment.
    pub id: u32,
    /// The flags of TCP; or the type of ICMP.
    pub flags: u8,
}

/// FIN, SYN, RST and ACK of TCP.
pub mod tcp {
    /// The last of one direction.
    pub const FIN: u8 = 1;
    /// The first of one direction.
    pub const SYN: u8 = 1 << 1;
    /// The end.
    pub const RST: u8 = 1 << 2;
    /// Answers something.
    pub const ACK: u8 = 1 << 4;
}

/// ICMP types: echo requests and replies.
pub mod echo {
    /// ICMP request and reply.
    pub const V4: (u8, u8) = (8, 0);
    /// ICMPv6 request and reply.
    pub const V6: (u8, u8) = (128, 129);
}

impl Headers {
    /// Whether it is the first packet of a connection.
    #[inline(always)]
    pub fn is_syn(&self) -> bool {
        self.key.protocol() == TCP && self.flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }

    /// Whether a checksum of its transport header is in this packet.
    #[inline(always)]
    pub fn has_transport(&self) -> bool {
        matches!(self.kind, Kind::Whole)
    }

    /// What the fragments of its datagram are remembered by.
    #[inline(always)]
    pub fn fragment(&self) -> FragmentKey {
        FragmentKey {
            source: self.key.source,
            destination: self.key.destination,
            id: self.id,
            protocol: self.key.protocol() as u32,
        }
    }
}

/// Reads the packet behind a link header of `link` bytes into `headers`; `leaves` if it goes out. False with
/// a reason counted where it is to be left alone.
// A function of its own for the verifier's sake: what follows is verified once, and not for each way in here. It writes
// each field where it belongs, because a whole that is returned goes over the stack.
#[inline(never)]
pub(crate) fn read<H: Hook>(hook: &H, link: u32, leaves: bool, headers: &mut Headers) -> bool {
    match parse(hook, link, if leaves { Side::Leave } else { Side::Arrive }, headers) {
        Ok(()) => true,
        Err(reason) => {
            hook.count(reason);
            false
        }
    }
}

#[inline(always)]
fn parse<B: Buffer>(buffer: &B, link: u32, side: Side, headers: &mut Headers) -> Result<(), Reason> {
    let Some(network) = network_offset(buffer, link) else { return Err(Reason::NotIp) };
    // As many as IPv4 has; IPv6 has more.
    let Some(words) = buffer.load::<5>(network) else { return Err(Reason::Malformed) };
    headers.network = network;
    match words[0].to_ne_bytes()[0] >> 4 {
        4 => parse_ipv4(buffer, &words, side, headers),
        6 => parse_ipv6(buffer, side, headers),
        _ => Err(Reason::Malformed),
    }
}

/// Behind the link header and its tags; None for what is not IP.
#[inline(always)]
fn network_offset<B: Buffer>(buffer: &B, link: u32) -> Option<u32> {
    if link != ETHERNET {
        return Some(link);
    }
    let mut offset = TYPE_OFFSET;
    for _ in 0..=MAX_TAGS {
        let [word] = buffer.load::<1>(offset)?;
        let [a, b, _, _] = word.to_ne_bytes();
        let kind = u16::from_ne_bytes([a, b]);
        if kind == IPV4 || kind == IPV6 {
            return Some(offset + 2);
        }
        if kind != TAGS[0] && kind != TAGS[1] {
            return None;
        }
        offset += 4;
    }
    None
}

#[inline(always)]
fn parse_ipv4<B: Buffer>(
    buffer: &B,
    words: &[u32; 5],
    side: Side,
    headers: &mut Headers,
) -> Result<(), Reason> {
    let network = headers.network;
    let [version, _, total_high, total_low] = words[0].to_ne_bytes();
    let length = (version as u32 & 0xf) * 4;
    let total = (total_high as u32) << 8 | total_low as u32;
    if length < 20 {
        return Err(Reason::Malformed);
    }
    if length > 20 {
        return Err(Reason::Options);
    }
    // A segment that the card will cut may be too long for the field, which is 0 then.
    let total = if total == 0 { buffer.size() - network } else { total };
    if total < length || total > buffer.size() - network {
        return Err(Reason::Malformed);
    }
    let [_, _, high, low] = words[1].to_ne_bytes();
    let position = (high as u32) << 8 | low as u32;
    let protocol = words[2].to_ne_bytes()[1];
    let (source, destination) = (Address::from_ipv4_word(words[3]), Address::from_ipv4_word(words[4]));
    headers.key = FlowKey::new(source, destination, Ports(0), protocol, side);
    headers.transport = network + length;
    headers.kind = if position & 0x1fff != 0 { Kind::Later } else { Kind::Whole };
    headers.ipv4 = true;
    headers.is_fragment = position & 0x3fff != 0;
    headers.id = words[1] & 0xffff_u32.to_le();
    headers.flags = 0;
    parse_transport(buffer, protocol, total - length, headers)
}

#[inline(always)]
fn parse_ipv6<B: Buffer>(buffer: &B, side: Side, headers: &mut Headers) -> Result<(), Reason> {
    let network = headers.network;
    let Some(words) = buffer.load::<10>(network) else { return Err(Reason::Malformed) };
    let [high, low, next, _] = words[1].to_ne_bytes();
    let payload = (high as u32) << 8 | low as u32;
    let rest = buffer.size() - network - 40;
    let payload = if payload == 0 { rest } else { payload };
    if payload > rest {
        return Err(Reason::Malformed);
    }
    let source = Address::from_words([words[2], words[3], words[4], words[5]]);
    let destination = Address::from_words([words[6], words[7], words[8], words[9]]);
    headers.transport = network + 40;
    headers.kind = Kind::Whole;
    headers.ipv4 = false;
    headers.is_fragment = false;
    headers.id = 0;
    headers.flags = 0;
    let (mut protocol, mut length) = (next, payload);
    if next == FRAGMENT {
        let Some([word, id]) = buffer.load::<2>(network + 40) else { return Err(Reason::Malformed) };
        let [next, _, high, low] = word.to_ne_bytes();
        let position = (high as u32) << 8 | low as u32;
        if length < 8 {
            return Err(Reason::Malformed);
        }
        (protocol, length) = (next, length - 8);
        headers.transport = network + 48;
        headers.is_fragment = true;
        headers.id = id;
        if position & 0xfff8 != 0 {
            headers.kind = Kind::Later;
        }
    }
    headers.key = FlowKey::new(source, destination, Ports(0), protocol, side);
    if protocol == OPTIONS[0] || protocol == OPTIONS[1] || protocol == OPTIONS[2] {
        return Err(Reason::Options);
    }
    parse_transport(buffer, protocol, length, headers)
}

/// Adds what the transport header says; `length` bytes of the packet are its own.
#[inline(always)]
fn parse_transport<B: Buffer>(
    buffer: &B,
    protocol: u8,
    length: u32,
    headers: &mut Headers,
) -> Result<(), Reason> {
    let is_echo = protocol == if headers.ipv4 { ICMP } else { ICMP6 };
    if protocol != TCP && protocol != UDP && !is_echo {
        headers.kind = Kind::Other;
        return Ok(());
    }
    if matches!(headers.kind, Kind::Later) {
        return Ok(());
    }
    if protocol == TCP {
        return parse_tcp(buffer, length, headers);
    }
    if length < 8 {
        return Err(Reason::Malformed);
    }
    let Some([first, second]) = buffer.load::<2>(headers.transport) else { return Err(Reason::Malformed) };
    if protocol == UDP {
        let [high, low, _, _] = second.to_ne_bytes();
        let told = (high as u32) << 8 | low as u32;
        if told != 0 && told < 8 || told > length && !headers.is_fragment {
            return Err(Reason::Malformed);
        }
        headers.key.ports = Ports(first);
        return Ok(());
    }
    headers.flags = first.to_ne_bytes()[0];
    match echo_ports(headers.ipv4, first, second) {
        Some(ports) => headers.key.ports = ports,
        None => headers.kind = if is_error(headers.ipv4, headers.flags) { Kind::Error } else { Kind::Other },
    }
    Ok(())
}

#[inline(always)]
fn parse_tcp<B: Buffer>(buffer: &B, length: u32, headers: &mut Headers) -> Result<(), Reason> {
    if length < 20 {
        return Err(Reason::Malformed);
    }
    let Some([ports, _, _, word]) = buffer.load::<4>(headers.transport) else {
        return Err(Reason::Malformed);
    };
    let [offset, flags, _, _] = word.to_ne_bytes();
    let header = (offset as u32 >> 4) * 4;
    if header < 20 || header > length && !headers.is_fragment {
        return Err(Reason::Malformed);
    }
    headers.key.ports = Ports(ports);
    headers.flags = flags;
    Ok(())
}

/// The ports that an echo stands for, from the first two words of its header.
#[inline(always)]
pub(crate) fn echo_ports(ipv4: bool, first: u32, second: u32) -> Option<Ports> {
    let (request, reply) = if ipv4 { echo::V4 } else { echo::V6 };
    let kind = first.to_ne_bytes()[0];
    let [a, b, _, _] = second.to_ne_bytes();
    let id = Port::from_word(u16::from_ne_bytes([a, b]));
    let none = Port::from_word(0);
    if kind == request {
        return Some(Ports::new(id, none));
    }
    if kind == reply { Some(Ports::new(none, id)) } else { None }
}

/// Destination unreachable, source quench, redirect, time exceeded, parameter problem (RFC 792, RFC 4443).
#[inline(always)]
const fn is_error(ipv4: bool, kind: u8) -> bool {
    if ipv4 { kind >= 3 && kind <= 5 || kind == 11 || kind == 12 } else { kind >= 1 && kind <= 4 }
}

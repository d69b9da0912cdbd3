//! Sends a packet that has arrived and was rewritten straight to the link by which it goes on, past the host's stack. It
//! takes the routes and the neighbours that the stack would take; whatever is not plain goes through the stack after all.

use aya_ebpf::bindings::BPF_FIB_LKUP_RET_SUCCESS;
use aya_ebpf::helpers::generated::{bpf_fib_lookup, bpf_redirect_neigh};
use ebpf::address::Address;
use ebpf::frontend::TCP;
use ebpf::packet::checksum::{apply, word_difference};
use ebpf::packet::flow::Flow;
use ebpf::packet::headers::Headers;
use ebpf::packet::hook::Buffer;

use super::packet::Packet;

const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// TC_ACT_REDIRECT.
pub(super) const REDIRECT: i32 = 7;
const ETHERNET: u32 = 14;
/// The word of an IP header with the TTL.
const TTL_V4: u32 = 8;
const TTL_V6: u32 = 4;

/// `struct bpf_fib_lookup`, without its unions. In: the packet. Out: the link, and the next hop as destination.
#[repr(C)]
struct Route {
    family: u8,
    protocol: u8,
    /// In network order.
    ports: [u16; 2],
    /// The length of the IP packet.
    length: u16,
    link: u32,
    /// Traffic class.
    tos: u32,
    source: [u32; 4],
    destination: [u32; 4],
    /// Tags and hardware addresses, which neighbours are asked for once more.
    link_header: [u32; 4],
}

const _: () = assert!(size_of::<Route>() == 64);

/// `struct bpf_redir_neigh`.
#[repr(C)]
struct NextHop {
    family: u32,
    address: [u32; 4],
}

/// Whether the packet goes on from here; false if the stack must take it.
#[inline(never)]
pub(super) fn send_on(packet: &Packet, headers: &Headers, flow: &Flow) -> bool {
    // SAFETY: the kernel hands a valid context to the hook.
    let (tagged, link) = unsafe { ((*packet.skb()).vlan_present, (*packet.skb()).ifindex) };
    // A tag belongs to a link of its own.
    if headers.network != ETHERNET || tagged != 0 || headers.is_fragment || !headers.has_transport() {
        return false;
    }
    let Some([first, second, third]) = packet.load::<3>(headers.network) else { return false };
    let Some(length) = length(packet, headers) else { return false };
    let [a, b, _, _] = first.to_ne_bytes();
    let mut route = Route {
        family: if headers.ipv4 { AF_INET } else { AF_INET6 },
        protocol: headers.key.protocol(),
        ports: [flow.ports.source().word(), flow.ports.destination().word()],
        length,
        link,
        tos: if headers.ipv4 { b as u32 } else { ((a << 4) | (b >> 4)) as u32 },
        source: words(&headers.key.source),
        destination: words(&flow.address),
        link_header: [0; 4],
    };
    let (skb, size) = (packet.skb().cast(), size_of::<Route>() as i32);
    // SAFETY: the helper reads and writes as many bytes as the route has.
    let found = unsafe { bpf_fib_lookup(skb, &raw mut route as *mut _, size, 0) };
    if found != BPF_FIB_LKUP_RET_SUCCESS as i64
        || !count_hop(packet, headers, if headers.ipv4 { third } else { second })
    {
        return false;
    }
    let mut next = NextHop { family: route.family as u32, address: route.destination };
    let (to, size) = (&raw mut next as *mut _, size_of::<NextHop>() as i32);
    // SAFETY: the helper reads as many bytes as the next hop has.
    unsafe { bpf_redirect_neigh(route.link, to, size, 0) == REDIRECT as i64 }
}

/// An address as the route has it: of IPv4 the first word.
#[inline(always)]
fn words(address: &Address) -> [u32; 4] {
    let words = address.words();
    if address.is_ipv4() { [words[3], 0, 0, 0] } else { words }
}

/// How long the IP packet is, or each of those that the card makes of it: routes have an MTU.
#[inline(always)]
fn length(packet: &Packet, headers: &Headers) -> Option<u16> {
    // SAFETY: the kernel hands a valid context to the hook.
    let segment = unsafe { (*packet.skb()).gso_size };
    let transport = if segment == 0 {
        packet.size() - headers.transport
    } else if headers.key.protocol() == TCP {
        let [word] = packet.load::<1>(headers.transport + 12)?;
        (word.to_ne_bytes()[0] >> 4) as u32 * 4 + segment
    } else {
        8 + segment
    };
    u16::try_from(headers.transport - headers.network + transport).ok()
}

/// Counts the hop down in the header, whose word with the TTL is given. False if the packet may go no further, which the
/// stack says to its sender.
#[inline(always)]
fn count_hop(packet: &Packet, headers: &Headers, word: u32) -> bool {
    let [a, b, high, low] = word.to_ne_bytes();
    if headers.ipv4 {
        if a <= 1 {
            return false;
        }
        let [old, new] = [a, a - 1].map(|ttl| u32::from_ne_bytes([ttl, b, 0, 0]));
        let [high, low] = apply(u16::from_ne_bytes([high, low]), word_difference(old, new)).to_ne_bytes();
        packet.store(headers.network + TTL_V4, &[u32::from_ne_bytes([a - 1, b, high, low])], false);
        return true;
    }
    if low <= 1 {
        return false;
    }
    // The header of IPv6 has no checksum that would make up for it.
    packet.store(headers.network + TTL_V6, &[u32::from_ne_bytes([a, b, high, low - 1])], true);
    true
}

//! ICMP errors: they speak of a packet of a flow, whose header they carry inside. What was done to that packet
//! is undone in there, and the error goes to whom it concerns. Without it path MTU discovery would die.

use crate::address::Address;
use crate::frontend::{TCP, UDP};
use crate::packet::checksum::word_difference;
use crate::packet::flow::{Flow, FlowKey, ICMP, ICMP6, Ports, Side};
use crate::packet::headers::{Headers, echo_ports};
use crate::packet::hook::{Buffer, Hook};
use crate::packet::known::peek;
use crate::packet::rewrite::{ICMP_CHECK, Place, echo_id, set_address};
use crate::stats::Reason;

/// Where the packet inside begins, behind the ICMP header.
const INSIDE: u32 = 8;
/// ICMP redirect (RFC 792).
const REDIRECT: u8 = 5;

/// The packet inside an error.
struct Inside {
    key: FlowKey,
    network: u32,
    transport: u32,
}

/// Translates the error. False if it must not go on.
#[inline(never)]
pub(crate) fn translate<H: Hook, const LEAVES: bool>(hook: &H, headers: &Headers, now: u32) -> bool {
    let inside = match parse(hook, headers) {
        Ok(inside) => inside,
        Err(reason) => {
            hook.count(reason);
            return true;
        }
    };
    // The flow is found by the answer to the packet inside, which travels the way of the error.
    let key = inside.key.answer(if LEAVES { Side::Leave } else { Side::Arrive });
    let Some(flow) = peek(hook, &key, now) else { return true };
    if flow.has(Flow::UNTOUCHED) {
        return true;
    }
    if headers.ipv4 && headers.flags == REDIRECT {
        // The host tells a client about a better way to a backend, of which the client knows nothing.
        return false;
    }
    rewrite::<H, LEAVES>(hook, headers, &inside, &flow);
    hook.count(Reason::ErrorTranslated);
    true
}

#[inline(always)]
fn parse<B: Buffer>(buffer: &B, headers: &Headers) -> Result<Inside, Reason> {
    let network = headers.transport + INSIDE;
    let (source, destination, protocol, length) = if headers.ipv4 {
        let Some(words) = buffer.load::<5>(network) else { return Err(Reason::Malformed) };
        if words[0].to_ne_bytes()[0] != 0x45 {
            return Err(Reason::Options);
        }
        if words[1] & 0xff1f_0000_u32.to_le() != 0 {
            // A later fragment inside has no ports to find the flow by.
            return Err(Reason::FragmentUnknown);
        }
        let addresses = (Address::from_ipv4_word(words[3]), Address::from_ipv4_word(words[4]));
        (addresses.0, addresses.1, words[2].to_ne_bytes()[1], 20)
    } else {
        let Some(words) = buffer.load::<10>(network) else { return Err(Reason::Malformed) };
        let source = Address::from_words([words[2], words[3], words[4], words[5]]);
        let destination = Address::from_words([words[6], words[7], words[8], words[9]]);
        (source, destination, words[1].to_ne_bytes()[2], 40)
    };
    let transport = network + length;
    let Some([first, second]) = buffer.load::<2>(transport) else { return Err(Reason::Malformed) };
    let ports = match protocol {
        TCP | UDP => Ports(first),
        ICMP | ICMP6 => match echo_ports(headers.ipv4, first, second) {
            Some(ports) => ports,
            None => return Err(Reason::NotIp),
        },
        _ => return Err(Reason::NotIp),
    };
    let key = FlowKey::new(source, destination, ports, protocol, headers.key.side());
    Ok(Inside { key, network, transport })
}

#[inline(always)]
fn rewrite<B: Buffer, const LEAVES: bool>(buffer: &B, headers: &Headers, inside: &Inside, flow: &Flow) {
    let ipv4 = headers.ipv4;
    // Inside, source and destination stand the other way round than in the answer that the flow is for.
    let old = if LEAVES { inside.key.destination } else { inside.key.source };
    let place = Place { network: inside.network, ipv4, source: !LEAVES, inside: true };
    let change = set_address(buffer, &place, &old, &flow.address);
    let check = headers.transport + ICMP_CHECK;
    if !ipv4 {
        buffer.fix(check, change, false, false);
    }
    set_ports(buffer, inside, flow.ports.reversed(), check);
    let outer = if LEAVES { headers.key.source } else { headers.key.destination };
    // What leaves may come from a router in between, whose address stays.
    if outer.is(&old) {
        let place = Place { network: headers.network, ipv4, source: LEAVES, inside: false };
        let change = set_address(buffer, &place, &old, &flow.address);
        if !ipv4 {
            buffer.fix(check, change, true, false);
        }
    }
}

/// Changes the ports inside. The checksum behind them is left: no receiver can verify it, as the packet is cut.
#[inline(always)]
fn set_ports<B: Buffer>(buffer: &B, inside: &Inside, new: Ports, check: u32) {
    let protocol = inside.key.protocol();
    let echo = protocol != TCP && protocol != UDP;
    let at = inside.transport + if echo { 4 } else { 0 };
    let Some([old]) = buffer.load::<1>(at) else { return };
    let new = if echo { old & 0xffff_0000_u32.to_le() | echo_id(new.0) } else { new.0 };
    buffer.fix(check, word_difference(old, new), false, false);
    buffer.store(at, &[new], false);
}

//! New flows: where the first packet of one goes, and the two entries that carry the rest of it. Whatever is
//! chosen, the insertion of the entry for the answers is the only arbiter of who has a port.

use crate::address::{Address, Port};
use crate::backend::Backend;
use crate::balance::{self, Stop};
use crate::frontend::{FrontendKey, FrontendWord, TCP, UDP};
use crate::hostport::{on_any_address, pod_behind};
use crate::packet::flow::{Flow, FlowKey, ICMP, ICMP6, Ports, Side};
use crate::packet::headers::{Headers, echo};
use crate::packet::hook::{Hook, Table};
use crate::packet::run::Run;
use crate::packet::uplink::{Uplink, range};
use crate::stats::Reason;

/// How many ports are tried for one flow: with 19 of 20 taken, four flows in five still find one.
const PORT_TRIES: u32 = 32;

/// What becomes of a packet that belongs to no flow yet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct New(u32);

impl New {
    /// Nothing.
    pub(crate) const LEAVE: Self = Self(0);
    /// It is dropped; the reason is counted.
    pub(crate) const DROP: Self = Self(1);
    /// It is rewritten.
    pub(crate) const REWRITE: Self = Self(2);
}

/// A packet arrives from outside. The flow to be is put into the run.
#[inline(never)]
pub(crate) fn arriving<H: Hook>(hook: &H, uplink: &Uplink, run: &mut Run) -> New {
    let protocol = run.headers.key.protocol();
    if protocol != TCP && protocol != UDP {
        return New::LEAVE;
    }
    // Nobody can listen on port 0, so the node's own stack refuses what is sent there.
    run.flow.address = uplink.address(run.headers.ipv4);
    run.flow.ports = Ports::new(run.headers.key.ports.source(), Port::new(0));
    let aimed = aim(hook, &run.headers, &mut run.flow);
    if aimed == New::LEAVE {
        note_untouched(hook, &run.headers, run.flow.seen);
    }
    if aimed != New::REWRITE {
        return aimed;
    }
    if run.flow.address.is_none() {
        hook.count(Reason::NoAddress);
        return New::DROP;
    }
    for _ in 0..PORT_TRIES {
        if install(hook, run) {
            return New::REWRITE;
        }
        // Another flow of this client to the backend has the port: the address stays, the port changes.
        run.flow.ports = Ports::new(uplink.pick(hook.random()), run.flow.ports.destination());
    }
    hook.count(Reason::PortsExhausted);
    New::DROP
}

/// Finds the target of a packet from outside.
#[inline(never)]
fn aim<H: Hook>(hook: &H, headers: &Headers, flow: &mut Flow) -> New {
    let key =
        FrontendKey::new(headers.key.destination, headers.key.ports.destination(), headers.key.protocol());
    let word = match balance::find(hook, &key) {
        Ok(word) => word,
        Err(_) => return aim_at_pod(hook, &key, flow),
    };
    if word.has(FrontendWord::NODE_ONLY) {
        return New::LEAVE;
    }
    if word.has(FrontendWord::GUARDED) && !hook.may_use(word.service(), &headers.key.source) {
        hook.count(Reason::SourceRange);
        return New::DROP;
    }
    let route = match balance::follow(hook, word, word.has(FrontendWord::PACKET_LOCAL)) {
        Ok(route) => route,
        Err(stop) => return stopped(hook, stop),
    };
    if headers.key.protocol() == TCP && !headers.is_syn() {
        hook.count(Reason::MidStream);
        return New::REWRITE;
    }
    let chosen = if route.has_affinity() {
        balance::stick(hook, &route, headers.key.source)
    } else {
        balance::any(hook, &route)
    };
    let id = match chosen {
        Ok(id) => id,
        Err(stop) => return stopped(hook, stop),
    };
    let backend: &Backend = match balance::load(hook, id) {
        Ok(backend) => backend,
        Err(stop) => return stopped(hook, stop),
    };
    aim_at(flow, *backend.address(), backend.port());
    flow.backend = id;
    flow.service = route.service;
    New::REWRITE
}

/// Leads a flow to a backend.
#[inline(always)]
const fn aim_at(flow: &mut Flow, address: Address, port: Port) {
    flow.address = address;
    flow.ports = Ports::new(flow.ports.source(), port);
}

/// R4: a target of nobody is refused by the node's own stack.
#[inline(always)]
fn stopped<H: Hook>(hook: &H, stop: Stop) -> New {
    match stop {
        Stop::Leave(reason) => {
            hook.count(reason);
            New::LEAVE
        }
        Stop::Refuse(reason) => {
            hook.count(reason);
            New::REWRITE
        }
        Stop::Unreachable => {
            hook.count(Reason::NoLocalEndpoint);
            New::DROP
        }
    }
}

/// The pod that has the port of the node.
#[inline(always)]
fn aim_at_pod<H: Hook>(hook: &H, key: &FrontendKey, flow: &mut Flow) -> New {
    let any = on_any_address(key);
    let word = match hook.host_port(key) {
        Some(word) if word.is_of(key) => word,
        Some(_) | None => match hook.host_port(&any) {
            Some(word) if word.is_of(&any) && hook.range(key.address()) & range::NODE != 0 => word,
            Some(_) | None => return New::LEAVE,
        },
    };
    let Some(pod) = hook.pod(pod_behind(word.host_end())) else { return New::LEAVE };
    let address = if key.address().is_ipv4() { pod.ipv4 } else { pod.ipv6 };
    if address.is_none() {
        return New::LEAVE;
    }
    aim_at(flow, address, word.port());
    flow.backend = Flow::HOST_PORT;
    New::REWRITE
}

/// Whether the host port of a flow still leads to where the flow goes: its pod may be gone, and another may have the
/// port.
#[inline(never)]
pub(crate) fn is_led<H: Hook>(hook: &H, run: &Run) -> bool {
    let headers = &run.headers;
    let key =
        FrontendKey::new(headers.key.destination, headers.key.ports.destination(), headers.key.protocol());
    let mut now = run.flow;
    aim_at_pod(hook, &key, &mut now) == New::REWRITE
        && now.address.is(&run.flow.address)
        && now.ports.0 == run.flow.ports.0
}

/// A datagram that goes straight to a pod of this node: the answer is none of what pods start themselves.
/// For TCP the flags tell.
#[inline(always)]
fn note_untouched<H: Hook>(hook: &H, headers: &Headers, seen: u32) {
    let key = &headers.key;
    if key.protocol() != UDP
        || hook.range(&key.destination) & range::POD == 0
        || is_direct(hook.range(&key.source))
    {
        return;
    }
    let answer = key.answer(Side::Leave);
    let mut flow = Flow::new(&answer, key.destination, answer.ports, seen);
    flow.state = Flow::UNTOUCHED;
    // It may be there already.
    let _ = hook.insert(Table::Fresh, &answer, &flow);
}

/// Pods reach such an address with their own.
#[inline(always)]
const fn is_direct(range: u32) -> bool {
    range & (range::DIRECT | range::POD | range::NODE) != 0
}

/// A packet leaves the node. The flow to be is put into the run.
#[inline(never)]
pub(crate) fn leaving<H: Hook>(hook: &H, uplink: &Uplink, run: &mut Run) -> New {
    let own = uplink.address(run.headers.ipv4);
    if run.headers.key.source.is(&own) || !must_masquerade(hook, &run.headers) {
        return New::LEAVE;
    }
    if own.is_none() {
        hook.count(Reason::NoAddress);
        return New::DROP;
    }
    run.flow.address = own;
    let wanted = run.headers.key.ports.source();
    let mut source = if uplink.is_reserved(wanted) { uplink.pick(hook.random()) } else { wanted };
    for _ in 0..PORT_TRIES {
        run.flow.ports = Ports::new(source, run.headers.key.ports.destination());
        if install(hook, run) {
            return New::REWRITE;
        }
        source = uplink.pick(hook.random());
    }
    hook.count(Reason::PortsExhausted);
    New::DROP
}

/// Whether the packet may not leave with its own source: it was sent here for a backend elsewhere, or it is
/// from a pod to somewhere outside of the cluster.
#[inline(always)]
fn must_masquerade<H: Hook>(hook: &H, headers: &Headers) -> bool {
    let key = &headers.key;
    let protocol = key.protocol();
    if protocol == ICMP || protocol == ICMP6 {
        if headers.flags != if headers.ipv4 { echo::V4.0 } else { echo::V6.0 } {
            return false;
        }
    } else {
        let answer = key.answer(Side::Leave);
        if is_sent_on(hook, &answer) || hook.touch(Table::Known, &answer, 0, 0).is_some() {
            return true;
        }
        // Whatever is not the first of a connection belongs to one that came to the pod.
        if protocol == TCP && !headers.is_syn() {
            return false;
        }
    }
    hook.range(&key.source) & range::POD != 0 && !is_direct(hook.range(&key.destination))
}

#[inline(always)]
fn is_sent_on<H: Hook>(hook: &H, answer: &FlowKey) -> bool {
    match hook.touch(Table::Fresh, answer, 0, 0) {
        Some(flow) => !flow.has(Flow::UNTOUCHED),
        None => false,
    }
}

/// Makes both entries of a new flow. False if the port that the answers would come to is taken.
#[inline(never)]
fn install<H: Hook>(hook: &H, run: &mut Run) -> bool {
    (run.other_key, run.other) = run.flow.other(&run.headers.key);
    if hook.touch(Table::Known, &run.other_key, 0, 0).is_some() {
        return false;
    }
    if !hook.insert(Table::Fresh, &run.other_key, &run.other) {
        // Half of a flow may have been driven out; if this is the other half, it is whole again.
        let Some(there) = hook.touch(Table::Fresh, &run.other_key, 0, 0) else { return false };
        if !there.address.is(&run.other.address) || there.ports.0 != run.other.ports.0 {
            return false;
        }
    }
    // Two packets of one new flow may be here at once; the second takes over.
    hook.count(Reason::FlowBegun);
    hook.put(&run.headers.key, &run.flow)
}

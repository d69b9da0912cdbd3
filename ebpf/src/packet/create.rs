//! New flows: where the first packet of one goes, and the two entries that carry the rest of it. Whatever is
//! chosen, the insertion of the entry for the answers is the only arbiter of who has a port.

use crate::address::{Address, Port};
use crate::backend::Backend;
use crate::balance::{self, Stop};
use crate::frontend::{FrontendKey, FrontendWord, TCP, UDP};
use crate::hostport::{on_any_address, pod_behind};
use crate::packet::flow::{Flow, FlowKey, HALF_OPEN_FLOWS, ICMP, ICMP6, Ports, Side};
use crate::packet::headers::{Headers, echo};
use crate::packet::hook::{Hook, Table};
use crate::packet::known::{may_be_fleeting, peek};
use crate::packet::run::Run;
use crate::packet::uplink::{Uplink, range};
use crate::stats::Reason;

/// How many ports are tried for one flow: with 19 of 20 taken, four flows in five still find one.
const PORT_TRIES: u32 = 32;

/// How many of those that are taken are asked to give way, where none was free.
const YIELD_TRIES: u32 = 8;

/// A connection of which nothing was seen for longer than this, in seconds of flows, is not about to be answered.
const HANDSHAKE_SECONDS: u32 = 1;

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
    install(hook, uplink, run)
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
    aim_at_pod(hook, &key, &mut now) == New::REWRITE && now.leads_as(&run.flow)
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
    let _ = hook.insert(Table::Fleeting, &answer, &flow);
    hook.note_fleeting(seen);
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
    if run.headers.key.source.is(&own) || !must_masquerade(hook, &run.headers, run.now) {
        return New::LEAVE;
    }
    if own.is_none() {
        hook.count(Reason::NoAddress);
        return New::DROP;
    }
    run.flow.address = own;
    let wanted = run.headers.key.ports.source();
    let source = if uplink.is_reserved(wanted) { uplink.pick(hook.random()) } else { wanted };
    run.flow.ports = Ports::new(source, run.headers.key.ports.destination());
    install(hook, uplink, run)
}

/// Whether the packet may not leave with its own source: it was sent here for a backend elsewhere, or it is
/// from a pod to somewhere outside of the cluster.
#[inline(always)]
fn must_masquerade<H: Hook>(hook: &H, headers: &Headers, now: u32) -> bool {
    let key = &headers.key;
    let protocol = key.protocol();
    if protocol == ICMP || protocol == ICMP6 {
        if headers.flags != if headers.ipv4 { echo::V4.0 } else { echo::V6.0 } {
            return false;
        }
    } else {
        let answer = key.answer(Side::Leave);
        if peek(hook, &answer, now).is_some_and(|flow| !flow.has(Flow::UNTOUCHED)) {
            return true;
        }
        // Whatever is not the first of a connection belongs to one that came to the pod.
        if protocol == TCP && !headers.is_syn() {
            return false;
        }
    }
    hook.range(&key.source) & range::POD != 0 && !is_direct(hook.range(&key.destination))
}

/// Makes both entries of a new flow. If another flow has the port that the answers would come to, the address stays and
/// the port changes.
#[inline(always)]
fn install<H: Hook>(hook: &H, uplink: &Uplink, run: &mut Run) -> New {
    let mut begun = begin(hook, run);
    if begun == Begun::TAKEN {
        find_port(hook, uplink, run);
        // If the port is taken now, then in this very instant, or no port is free.
        begun = begin(hook, run);
    }
    if begun == Begun::YES {
        return New::REWRITE;
    }
    hook.count(Reason::PortsExhausted);
    New::DROP
}

/// Gives the flow a port that is free. Where there is none, a connection that is half open gives its own: nobody else
/// could connect while a flood of first packets, each of which takes a port, goes on.
// It only looks, because the verifier walks through each try.
#[inline(never)]
fn find_port<H: Hook>(hook: &H, uplink: &Uplink, run: &mut Run) {
    for _ in 0..PORT_TRIES {
        if try_port(hook, uplink, run).is_none() {
            return;
        }
    }
    for _ in 0..YIELD_TRIES {
        match try_port(hook, uplink, run) {
            Some(there) if !gives_way(&run.other_key, &there, run.now) => {}
            Some(there) => return drive_out(hook, &run.other_key, &there),
            None => return,
        }
    }
}

/// Gives the flow a port at random: the flow that has it already, if there is one.
#[inline(always)]
fn try_port<H: Hook>(hook: &H, uplink: &Uplink, run: &mut Run) -> Option<Flow> {
    run.flow.ports = Ports::new(uplink.pick(hook.random()), run.flow.ports.destination());
    (run.other_key, _) = run.flow.other(&run.headers.key);
    peek(hook, &run.other_key, run.now)
}

/// Whether the flow of an entry gives its port to another. A datagram may still be answered, and not to somebody else.
#[inline(always)]
const fn gives_way(key: &FlowKey, flow: &Flow, now: u32) -> bool {
    key.protocol() == TCP
        && !flow.has(Flow::CONFIRMED | Flow::UNTOUCHED)
        && now.saturating_sub(flow.seen) > HANDSHAKE_SECONDS
}

/// Takes out a flow that is half open, by the entry for its answers.
#[inline(always)]
fn drive_out<H: Hook>(hook: &H, key: &FlowKey, flow: &Flow) {
    let (other_key, _) = flow.other(key);
    if hook.remove(Table::Kept, key) {
        hook.add_half_open(-1);
        hook.remove(Table::Kept, &other_key);
    } else {
        hook.remove(Table::Fleeting, key);
        hook.remove(Table::Fleeting, &other_key);
    }
    hook.count(Reason::FlowOver);
}

/// Whether a flow has begun.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Begun(u32);

impl Begun {
    const YES: Self = Self(0);
    /// The port that its answers would come to belongs to another flow.
    const TAKEN: Self = Self(1);
    const NO_ROOM: Self = Self(2);
}

/// Makes both entries of a flow where they stay, while not too many there are half open.
#[inline(never)]
fn begin<H: Hook>(hook: &H, run: &mut Run) -> Begun {
    (run.other_key, run.other) = run.flow.other(&run.headers.key);
    let mut begun = Begun::NO_ROOM;
    if hook.half_open() < HALF_OPEN_FLOWS {
        begun = begin_in(hook, Table::Kept, run);
    }
    if begun == Begun::NO_ROOM {
        begun = begin_in(hook, Table::Fleeting, run);
    }
    begun
}

/// Makes them in one table. A port is taken by an entry in either.
#[inline(always)]
fn begin_in<H: Hook>(hook: &H, table: Table, run: &mut Run) -> Begun {
    let elsewhere = match table {
        Table::Kept => Table::Fleeting,
        Table::Fleeting => Table::Kept,
    };
    if (table == Table::Fleeting || may_be_fleeting(hook, run.now))
        && let Some(there) = hook.touch(elsewhere, &run.other_key, 0, 0)
    {
        return complete(hook, elsewhere, run, &there);
    }
    if !hook.insert(table, &run.other_key, &run.other) {
        return match hook.touch(table, &run.other_key, 0, 0) {
            Some(there) => complete(hook, table, run, &there),
            None => Begun::NO_ROOM,
        };
    }
    if !hook.put(table, &run.headers.key, &run.flow) {
        hook.remove(table, &run.other_key);
        return Begun::NO_ROOM;
    }
    match table {
        Table::Kept => hook.add_half_open(1),
        Table::Fleeting => hook.note_fleeting(run.now),
    }
    hook.count(Reason::FlowBegun);
    Begun::YES
}

/// The entry for the answers is there. If it is that of this flow, whose other half was driven out or is about to be
/// made by another packet, the flow is whole again.
#[inline(always)]
fn complete<H: Hook>(hook: &H, table: Table, run: &mut Run, there: &Flow) -> Begun {
    if !there.leads_as(&run.other) {
        return Begun::TAKEN;
    }
    (_, run.flow) = there.other(&run.other_key);
    run.flow.seen = run.now;
    if hook.put(table, &run.headers.key, &run.flow) { Begun::YES } else { Begun::NO_ROOM }
}

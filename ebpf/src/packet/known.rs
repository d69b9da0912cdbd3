//! Flows that are known: finding the one of a packet, keeping it where a flood does not drive it out, and
//! forgetting it when it begins anew.

use crate::frontend::TCP;
use crate::packet::create::is_led;
use crate::packet::flow::Flow;
use crate::packet::headers::{Headers, tcp};
use crate::packet::hook::{Hook, Table};
use crate::packet::run::Run;
use crate::stats::Reason;

/// Finds the flow of a packet, and puts it into the run.
#[inline(never)]
pub(crate) fn find<H: Hook, const LEAVES: bool>(hook: &H, run: &mut Run, now: u32) -> bool {
    // A connection that begins is not known yet, most of the time.
    let begins = run.headers.key.protocol() == TCP && run.headers.flags & tcp::SYN != 0;
    if begins && let Some(found) = look::<H, LEAVES>(hook, Table::Fresh, run, now) {
        return found;
    }
    if let Some(found) = look::<H, LEAVES>(hook, Table::Known, run, now) {
        return found;
    }
    !begins && look::<H, LEAVES>(hook, Table::Fresh, run, now).unwrap_or(false)
}

/// Finds it in one map: false if it is there and over.
#[inline(always)]
fn look<H: Hook, const LEAVES: bool>(hook: &H, table: Table, run: &mut Run, now: u32) -> Option<bool> {
    run.flow = hook.touch(table, &run.headers.key, now, ends(&run.headers))?;
    if is_over::<H, LEAVES>(hook, run) {
        forget(hook, table, run);
        return Some(false);
    }
    if table == Table::Fresh && is_confirmed_by(&run.headers, &run.flow) {
        confirm(hook, run);
    }
    Some(true)
}

/// What the flags of TCP say about the end of a flow.
#[inline(always)]
const fn ends(headers: &Headers) -> u32 {
    if headers.key.protocol() != TCP {
        return 0;
    }
    let finished = if headers.flags & tcp::FIN != 0 { Flow::FINISHED } else { 0 };
    finished | if headers.flags & tcp::RST != 0 { Flow::RESET } else { 0 }
}

/// Whether the packet begins a flow anew: a connection after one that ended, or one whose backend serves no
/// more (R9); for UDP, which has no beginning, each packet is asked.
#[inline(always)]
fn is_over<H: Hook, const LEAVES: bool>(hook: &H, run: &Run) -> bool {
    let (headers, flow) = (&run.headers, &run.flow);
    let begins = headers.key.protocol() != TCP || headers.is_syn();
    if !begins || flow.has(Flow::ANSWER | Flow::UNTOUCHED) || !headers.has_transport() {
        return false;
    }
    if flow.has(Flow::FINISHED | Flow::RESET) {
        return true;
    }
    if LEAVES {
        return false;
    }
    if flow.backend == Flow::HOST_PORT {
        return !is_led(hook, run);
    }
    if flow.backend == Flow::NOBODY {
        return true;
    }
    match hook.backend(flow.backend) {
        Some(backend) => backend.service() != flow.service || backend.windows() == 0,
        None => true,
    }
}

#[inline(always)]
fn forget<H: Hook>(hook: &H, table: Table, run: &mut Run) {
    (run.other_key, run.other) = run.flow.other(&run.headers.key);
    hook.remove(table, &run.other_key);
    hook.remove(table, &run.headers.key);
    if table == Table::Fresh {
        hook.count(Reason::FlowOver);
        return;
    }
    let (backend, service) = (run.flow.backend, run.flow.service);
    if hook.backend(backend).is_some_and(|known| known.service() == service) {
        hook.closed(backend);
    }
}

/// Whether both ends have spoken: a client that answers the backend's greeting, or an answer to a datagram.
#[inline(always)]
const fn is_confirmed_by(headers: &Headers, flow: &Flow) -> bool {
    if flow.has(Flow::UNTOUCHED) {
        return false;
    }
    if headers.key.protocol() == TCP {
        return !flow.has(Flow::ANSWER) && headers.flags & (tcp::SYN | tcp::RST) == 0;
    }
    flow.has(Flow::ANSWER)
}

/// Moves both entries of a flow to where no flood drives them out, and counts its connection. Without room they
/// stay where they are.
#[inline(always)]
fn confirm<H: Hook>(hook: &H, run: &mut Run) {
    run.flow.state |= Flow::CONFIRMED;
    (run.other_key, run.other) = run.flow.other(&run.headers.key);
    if !hook.insert(Table::Known, &run.headers.key, &run.flow) {
        hook.count(Reason::FlowsFull);
        return;
    }
    if !hook.insert(Table::Known, &run.other_key, &run.other) {
        hook.remove(Table::Known, &run.headers.key);
        hook.count(Reason::FlowsFull);
        return;
    }
    hook.remove(Table::Fresh, &run.headers.key);
    hook.remove(Table::Fresh, &run.other_key);
    hook.count(Reason::FlowKnown);
    if run.flow.backend < Flow::HOST_PORT {
        hook.opened(run.flow.backend);
    }
}

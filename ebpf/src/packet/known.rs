//! Flows that are known: finding the one of a packet, noting that both of its ends have spoken, and forgetting it when
//! it begins anew.

use crate::frontend::TCP;
use crate::packet::create::is_led;
use crate::packet::flow::{FLEETING_SECONDS, Flow, FlowKey};
use crate::packet::headers::{Headers, tcp};
use crate::packet::hook::{Hook, Table};
use crate::packet::run::Run;
use crate::stats::Reason;

/// Finds the flow of a packet, and puts it into the run.
#[inline(never)]
pub(crate) fn find<H: Hook, const LEAVES: bool>(hook: &H, run: &mut Run, now: u32) -> bool {
    if let Some(found) = look::<H, LEAVES>(hook, Table::Kept, run, now) {
        return found;
    }
    if !may_be_fleeting(hook, now) {
        return false;
    }
    let Some(found) = look::<H, LEAVES>(hook, Table::Fleeting, run, now) else { return false };
    hook.note_fleeting(now);
    found
}

/// Whether there may be flows that a flood can drive out. Nearly always there are none, and nobody looks for them.
#[inline(always)]
pub(crate) fn may_be_fleeting<H: Hook>(hook: &H, now: u32) -> bool {
    now.saturating_sub(hook.fleeting()) <= FLEETING_SECONDS
}

/// What is known of a flow, without a note that a packet of it was seen.
#[inline(always)]
pub(crate) fn peek<H: Hook>(hook: &H, key: &FlowKey, now: u32) -> Option<Flow> {
    match hook.touch(Table::Kept, key, 0, 0) {
        None if may_be_fleeting(hook, now) => hook.touch(Table::Fleeting, key, 0, 0),
        found => found,
    }
}

/// Finds it in one map: false if it is there and over.
#[inline(always)]
fn look<H: Hook, const LEAVES: bool>(hook: &H, table: Table, run: &mut Run, now: u32) -> Option<bool> {
    run.flow = hook.touch(table, &run.headers.key, now, ends(&run.headers))?;
    if is_over::<H, LEAVES>(hook, run) {
        forget(hook, table, run);
        return Some(false);
    }
    if table == Table::Fleeting && !is_whole(hook, run, now) {
        return Some(false);
    }
    if is_confirmed_by(&run.headers, &run.flow) {
        match table {
            Table::Kept => confirm(hook, run),
            Table::Fleeting => keep(hook, run),
        }
    }
    Some(true)
}

/// Whether a flow has both of its entries: if one was driven out, it is made again. Another flow may have begun in its
/// place meanwhile; then this one is over, lest the answers of one go to the other.
#[inline(always)]
fn is_whole<H: Hook>(hook: &H, run: &mut Run, now: u32) -> bool {
    if run.flow.has(Flow::UNTOUCHED) {
        return true;
    }
    (run.other_key, run.other) = run.flow.other(&run.headers.key);
    match peek(hook, &run.other_key, now) {
        Some(there) if there.leads_as(&run.other) => true,
        Some(_) => {
            hook.remove(Table::Fleeting, &run.headers.key);
            hook.count(Reason::FlowOver);
            false
        }
        None => {
            // If it is there by now, another packet has made it; without room the next one tries again.
            hook.insert(Table::Fleeting, &run.other_key, &run.other);
            true
        }
    }
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
    // Of two packets at once, one ends it.
    if !hook.remove(table, &run.headers.key) {
        return;
    }
    if !run.flow.has(Flow::CONFIRMED) {
        if table == Table::Kept {
            hook.add_half_open(-1);
        }
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
    if flow.has(Flow::CONFIRMED | Flow::UNTOUCHED) {
        return false;
    }
    if headers.key.protocol() == TCP {
        return !flow.has(Flow::ANSWER) && headers.flags & (tcp::SYN | tcp::RST) == 0;
    }
    flow.has(Flow::ANSWER)
}

/// Notes at both entries that both ends have spoken, and counts the connection.
#[inline(always)]
fn confirm<H: Hook>(hook: &H, run: &mut Run) {
    // Of two packets at once, one counts.
    if !hook.confirm(&run.headers.key) {
        return;
    }
    (run.other_key, run.other) = run.flow.other(&run.headers.key);
    hook.touch(Table::Kept, &run.other_key, 0, Flow::CONFIRMED);
    hook.add_half_open(-1);
    count_known(hook, run);
}

/// Moves both entries to where no flood drives them out, and counts the connection. Without room they stay where they
/// are.
#[inline(always)]
fn keep<H: Hook>(hook: &H, run: &mut Run) {
    run.flow.state |= Flow::CONFIRMED;
    (run.other_key, run.other) = run.flow.other(&run.headers.key);
    if !hook.insert(Table::Kept, &run.headers.key, &run.flow) {
        hook.count(Reason::FlowsFull);
        return;
    }
    if !hook.insert(Table::Kept, &run.other_key, &run.other) {
        hook.remove(Table::Kept, &run.headers.key);
        hook.count(Reason::FlowsFull);
        return;
    }
    hook.remove(Table::Fleeting, &run.headers.key);
    hook.remove(Table::Fleeting, &run.other_key);
    count_known(hook, run);
}

#[inline(always)]
fn count_known<H: Hook>(hook: &H, run: &Run) {
    hook.count(Reason::FlowKnown);
    if run.flow.backend < Flow::HOST_PORT {
        hook.opened(run.flow.backend);
    }
}

//! What a hook does with a packet, from its first byte to the verdict. The table of flows is asked before the
//! frontends, so that an answer is never taken for a request.

use crate::packet::create::{self, New};
use crate::packet::error;
use crate::packet::flow::Flow;
use crate::packet::fragment::FragmentWord;
use crate::packet::headers::{self, Headers, Kind};
use crate::packet::hook::Hook;
use crate::packet::known;
use crate::packet::rewrite::rewrite;
use crate::packet::run::Run;
use crate::packet::uplink::{Uplink, range};
use crate::stats::Reason;

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It goes on.
    Pass = 0,
    /// It is dropped.
    Drop = 1,
    /// It goes on past the host's stack.
    Redirect = 2,
}

/// A packet comes in from an uplink.
#[inline(always)]
pub fn arrive<H: Hook>(hook: &H, uplink: &Uplink, run: &mut Run) -> Action {
    act::<H, false>(hook, uplink, run)
}

/// A packet goes out by an uplink.
#[inline(always)]
pub fn leave<H: Hook>(hook: &H, uplink: &Uplink, run: &mut Run) -> Action {
    act::<H, true>(hook, uplink, run)
}

/// The direction is a constant of the program, so that neither carries the code of the other.
#[inline(always)]
fn act<H: Hook, const LEAVES: bool>(hook: &H, uplink: &Uplink, run: &mut Run) -> Action {
    if !headers::read(hook, uplink.header, LEAVES, &mut run.headers) {
        return Action::Pass;
    }
    run.look_at_clock(hook);
    let now = run.now;
    match run.headers.kind {
        Kind::Whole => {}
        Kind::Later => {
            if !find_ports(hook, &mut run.headers) {
                let action = await_first::<H, LEAVES>(hook, &run.headers, now);
                // The first one may have come by on another CPU since, too early to see this one.
                if action == Action::Pass || !find_ports(hook, &mut run.headers) {
                    return action;
                }
            }
        }
        Kind::Error => {
            return if error::translate::<H, LEAVES>(hook, &run.headers, now) {
                Action::Pass
            } else {
                Action::Drop
            };
        }
        Kind::Other => return Action::Pass,
    }
    if run.headers.is_fragment && run.headers.has_transport() {
        let key = run.headers.fragment();
        hook.set_fragment(&key, FragmentWord::new(&key, run.headers.key.ports));
        if !LEAVES && hook.release(&key, now) {
            return Action::Drop;
        }
    }
    translate::<H, LEAVES>(hook, uplink, run, now)
}

/// A fragment that came before the first one of its datagram. What leaves comes from the stack, in order; what
/// goes straight to pods and other nodes is none of ours.
#[inline(always)]
fn await_first<H: Hook, const LEAVES: bool>(hook: &H, headers: &Headers, now: u32) -> Action {
    let (key, flags) = (headers.fragment(), hook.range(&headers.key.destination));
    let is_direct = flags & range::NODE == 0 && flags & (range::POD | range::DIRECT) != 0;
    if LEAVES || is_direct || !hook.hold(&key, now) {
        hook.count(Reason::FragmentUnknown);
        return Action::Pass;
    }
    hook.count(Reason::FragmentHeld);
    Action::Drop
}

#[inline(always)]
fn translate<H: Hook, const LEAVES: bool>(hook: &H, uplink: &Uplink, run: &mut Run, now: u32) -> Action {
    if !known::find::<H, LEAVES>(hook, run, now) {
        if !run.headers.has_transport() {
            return Action::Pass;
        }
        run.flow = Flow::new(&run.headers.key, run.headers.key.source, run.headers.key.ports, now);
        let new =
            if LEAVES { create::leaving(hook, uplink, run) } else { create::arriving(hook, uplink, run) };
        if new == New::LEAVE {
            return Action::Pass;
        }
        if new == New::DROP {
            return Action::Drop;
        }
    }
    if !run.flow.has(Flow::UNTOUCHED) {
        rewrite::<H, LEAVES>(hook, &run.headers, &run.flow);
        if !LEAVES && hook.send_on(&run.headers, &run.flow) {
            hook.count(Reason::Redirected);
            return Action::Redirect;
        }
    }
    Action::Pass
}

/// The ports of a later fragment.
#[inline(always)]
fn find_ports<H: Hook>(hook: &H, headers: &mut Headers) -> bool {
    let key = headers.fragment();
    let Some(word) = hook.fragment(&key) else { return false };
    let Some(ports) = word.ports(&key) else { return false };
    headers.key.ports = ports;
    true
}

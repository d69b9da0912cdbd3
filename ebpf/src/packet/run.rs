//! What one run of a hook works on. In the kernel it lies in an element of the map `runs`, one for each CPU:
//! the stack is small, and the verifier does not follow values through a map, so that the ways through one
//! step do not multiply those through the next.

use crate::address::Address;
use crate::packet::flow::{Flow, FlowKey, Ports, Side, seconds};
use crate::packet::headers::{Headers, Kind};
use crate::packet::hook::Hook;

/// The work space.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Run {
    /// The packet.
    pub headers: Headers,
    /// Its flow, known or to be.
    pub flow: Flow,
    /// The key of the other entry of the flow.
    pub other_key: FlowKey,
    /// The other entry.
    pub other: Flow,
    /// The tick of [`Run::now`].
    tick: u64,
    /// The time, in [`seconds`].
    pub now: u32,
}

impl Run {
    /// An empty one.
    pub const EMPTY: Self = {
        let key = FlowKey::new(Address::NONE, Address::NONE, Ports(0), 0, Side::Arrive);
        let flow = Flow::new(&key, Address::NONE, Ports(0), 0);
        let headers = Headers {
            key,
            network: 0,
            transport: 0,
            kind: Kind::Whole,
            ipv4: false,
            is_fragment: false,
            id: 0,
            flags: 0,
        };
        Self { headers, flow, other_key: key, other: flow, tick: 0, now: 0 }
    };

    /// Looks at the clock: only the first run after a tick asks the kernel, whose time is that of the tick.
    #[inline(always)]
    pub fn look_at_clock<H: Hook>(&mut self, hook: &H) {
        let tick = hook.tick();
        if tick != self.tick {
            (self.tick, self.now) = (tick, seconds(hook.now_ns()));
        }
    }
}

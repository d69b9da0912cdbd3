//! The sweep: flows that ended, or of which nothing was seen for too long, are taken out. The kernel notes the
//! second of each packet; only what looks idle from one side is asked about the other. A full table takes it
//! seconds, so it is a handle of its own, for a thread that nobody waits for.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;

use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData, MapError};
use ebpf::frontend::{TCP, UDP};
use ebpf::maps;
use ebpf::packet::flow::{FLEETING_SECONDS, Flow, FlowKey, seconds};

use super::{sys, take};
use crate::dataplane::{Closing, DataplaneError, memory, number};
use crate::sys::Memory;

/// So many elements are read with one system call.
const BATCH: usize = 4096;

// All in the seconds of flows, which are a little longer than others.

/// After a reset, and for what the node itself refuses: as long as a late packet may take.
const RESET: u64 = 10;
/// After both ends have finished: the time that their stacks wait too.
const FINISHED: u64 = 60;
/// RFC 5382, REQ-5: an established connection may be idle for two hours and four minutes.
const ESTABLISHED: u64 = 7440;
/// RFC 4787, REQ-5: not less than two minutes.
const DATAGRAMS: u64 = 180;
/// RFC 5508, REQ-1: echoes, at least a minute. Connections of which one end has not spoken as well.
const ECHO: u64 = 60;

// The hooks look for what is half open at least as long as it lives.
const _: () = assert!(FLEETING_SECONDS as u64 >= DATAGRAMS && DATAGRAMS >= ECHO);

/// How many flows there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Entries of flows of which both ends spoke.
    pub known: u64,
    /// Entries of other flows.
    pub fresh: u64,
    /// Flows of the first kind taken out by this sweep.
    pub known_swept: u64,
    /// Flows of the second kind taken out.
    pub fresh_swept: u64,
}

type Bytes = [u8; 40];

/// The maps of flows, and where the end of a connection is counted.
pub struct Sweeper {
    kept: Entries,
    fleeting: Entries,
    crowd: Memory,
    closing: Closing,
}

/// One of them.
struct Entries {
    map: HashMap<MapData, Bytes, Bytes>,
    /// The same, for reading in batches.
    fd: OwnedFd,
}

impl Sweeper {
    pub(super) fn open(ebpf: &mut Ebpf, closing: Closing) -> Result<Self, DataplaneError> {
        let mut open = |name| -> Result<_, DataplaneError> {
            let other = |error: String| DataplaneError::Other(name, error);
            let map = take(ebpf, name)?;
            let (Map::HashMap(data) | Map::LruHashMap(data)) = &map else {
                return Err(other("it is of another type".into()));
            };
            let fd = data.fd().as_fd().try_clone_to_owned().map_err(|error| other(error.to_string()))?;
            let map = HashMap::try_from(map).map_err(|error| other(error.to_string()))?;
            Ok(Entries { map, fd })
        };
        let (kept, fleeting) = (open(maps::FLOWS)?, open(maps::FLEETING)?);
        let (crowd, _) = memory::<u64>(&mut |name| ebpf.take_map(name), maps::CROWD)?;
        Ok(Self { kept, fleeting, crowd, closing })
    }

    /// Takes out the flows that are over. To be called every few seconds.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn sweep(&mut self) -> io::Result<FlowCounts> {
        self.sweep_at(u64::from(seconds(crate::sys::monotonic_ns())))
    }

    fn sweep_at(&mut self, now: u64) -> io::Result<FlowCounts> {
        let half_open = number(&self.crowd, maps::HALF_OPEN);
        let told = half_open.load(Ordering::Relaxed);
        let kept = sweep(&mut self.kept, now, &self.closing)?;
        // The hooks count on meanwhile. Whatever the number was wrong by, it is not any more.
        half_open.fetch_add((kept.fresh / 2).wrapping_sub(told), Ordering::Relaxed);
        let fleeting = sweep(&mut self.fleeting, now, &self.closing)?;
        Ok(FlowCounts {
            known: kept.known,
            fresh: kept.fresh + fleeting.fresh,
            known_swept: kept.known_swept,
            fresh_swept: kept.fresh_swept + fleeting.fresh_swept,
        })
    }
}

/// Sweeps one map.
fn sweep(Entries { map, fd }: &mut Entries, now: u64, closing: &Closing) -> io::Result<FlowCounts> {
    let empty: Bytes = [0; 40];
    let (mut keys, mut values) = (vec![empty; BATCH], vec![empty; BATCH]);
    let (mut counts, mut idle) = (FlowCounts::default(), Vec::new());
    sys::for_each(fd.as_fd(), (&mut keys, &mut values), |key, value| {
        let (key, flow) = (FlowKey::from_bytes(&key), Flow::from_bytes(&value));
        *if flow.has(Flow::CONFIRMED) { &mut counts.known } else { &mut counts.fresh } += 1;
        if now.saturating_sub(u64::from(flow.seen)) > shortest(&key, &flow) {
            idle.push((key, flow));
        }
    })?;
    for (key, flow) in idle {
        let (other_key, _) = flow.other(&key);
        let other = match map.get(&other_key.to_bytes(), 0) {
            Ok(value) => Some(Flow::from_bytes(&value)),
            Err(MapError::KeyNotFound) => None,
            Err(error) => return Err(io::Error::other(error)),
        };
        let seen = other.map_or(flow.seen, |other| other.seen.max(flow.seen));
        if now.saturating_sub(u64::from(seen)) <= patience(&key, &flow, other.as_ref()) {
            continue;
        }
        if remove(map, &key)? {
            let (left, swept) = if flow.has(Flow::CONFIRMED) {
                // Only connections of which both ends spoke were counted.
                closing.count(flow.backend, flow.service);
                (&mut counts.known, &mut counts.known_swept)
            } else {
                (&mut counts.fresh, &mut counts.fresh_swept)
            };
            *left = left.saturating_sub(2);
            *swept += 1;
        }
        remove(map, &other_key)?;
    }
    Ok(counts)
}

fn remove(map: &mut HashMap<MapData, Bytes, Bytes>, key: &FlowKey) -> io::Result<bool> {
    match map.remove(&key.to_bytes()) {
        Ok(()) => Ok(true),
        Err(MapError::KeyNotFound) => Ok(false),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// How long one side may be idle before the other is asked.
const fn shortest(key: &FlowKey, flow: &Flow) -> u64 {
    if flow.has(Flow::FINISHED | Flow::RESET) {
        return RESET;
    }
    if is_refused(key, flow) { RESET } else { lifetime(key, flow) }
}

/// How long a flow may be idle.
fn patience(key: &FlowKey, flow: &Flow, other: Option<&Flow>) -> u64 {
    let both = |flag| flow.has(flag) && other.is_none_or(|other| other.has(flag));
    if flow.has(Flow::RESET) || other.is_some_and(|other| other.has(Flow::RESET)) || is_refused(key, flow) {
        return RESET;
    }
    if both(Flow::FINISHED) { FINISHED } else { lifetime(key, flow) }
}

const fn lifetime(key: &FlowKey, flow: &Flow) -> u64 {
    match key.protocol() {
        TCP if flow.has(Flow::CONFIRMED) => ESTABLISHED,
        UDP => DATAGRAMS,
        _ => ECHO,
    }
}

/// The node's own stack refuses it: port 0 is nobody's.
const fn is_refused(key: &FlowKey, flow: &Flow) -> bool {
    let asked = flow.ports.destination().number() == 0;
    matches!(key.protocol(), TCP | UDP) && (asked || key.ports.source().number() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ebpf::address::{Address, Port};
    use ebpf::packet::flow::{ICMP, Ports, Side};

    fn flow(protocol: u8, port: u16, state: u32) -> (FlowKey, Flow) {
        let (here, there) = (Address::from_words([1; 4]), Address::from_words([2; 4]));
        let ports = Ports::new(Port::new(40_000), Port::new(80));
        let key = FlowKey::new(here, there, ports, protocol, Side::Arrive);
        let mut flow = Flow::new(&key, there, Ports::new(Port::new(40_000), Port::new(port)), 0);
        flow.state = state;
        (key, flow)
    }

    #[test]
    fn a_flow_lives_as_long_as_its_state_says() {
        let cases = [
            (TCP, 8080, Flow::CONFIRMED, 0, ESTABLISHED),
            (TCP, 8080, Flow::CONFIRMED | Flow::FINISHED, 0, ESTABLISHED),
            (TCP, 8080, Flow::CONFIRMED | Flow::FINISHED, Flow::FINISHED, FINISHED),
            (TCP, 8080, Flow::CONFIRMED, Flow::RESET, RESET),
            (TCP, 8080, 0, 0, ECHO),
            (TCP, 0, 0, 0, RESET),
            (UDP, 53, 0, 0, DATAGRAMS),
            (ICMP, 0, 0, 0, ECHO),
        ];
        for (protocol, port, state, other_state, expected) in cases {
            let (key, flow) = flow(protocol, port, state);
            let (_, mut other) = flow.other(&key);
            other.state |= other_state;
            assert_eq!(patience(&key, &flow, Some(&other)), expected, "{protocol} {state:x} {other_state:x}");
            assert!(shortest(&key, &flow) <= expected || other_state != 0);
        }
    }
}

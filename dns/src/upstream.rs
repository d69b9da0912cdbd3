//! What is known of one upstream server: how fast it is and whether it fails, and the order in which
//! upstreams are tried. No I/O, though it keeps connections; the time comes in. Used by `forward`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::name::DomainName;

/// A second upstream is asked no sooner than this.
const MIN_PATIENCE: Duration = Duration::from_millis(50);
/// And no later: a server that needs longer is as good as dead.
const MAX_PATIENCE: Duration = Duration::from_secs(1);
/// The guess before the first answer.
const FIRST_RTT: Duration = Duration::from_millis(50);
/// Failures in a row after which a server is tried last.
const FAILING: u32 = 2;
/// How often a failing server is tried first again, to see whether it is back.
const RETRY: Duration = Duration::from_secs(10);
/// Connections kept for later questions: answers too long for a datagram are few.
const MAX_CONNECTIONS: usize = 4;
/// How long one is kept. Servers wait for a few seconds (RFC 7766, section 6.2.3).
const MAX_IDLE: Duration = Duration::from_secs(5);
/// How often it is looked anew whether a server that fails or leads back to us is a loop.
const PROBE_AGAIN: Duration = Duration::from_secs(60);

/// One upstream server.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    state: Mutex<State>,
    /// Connections that nobody uses, with the time since when (RFC 7766, section 6.2.1: used again).
    idle: Mutex<Vec<(TcpStream, Instant)>>,
}

/// What is known of an upstream, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamState {
    /// The domain it is asked about; the root where it is asked about everything.
    pub domain: DomainName,
    /// Where it is.
    pub address: SocketAddr,
    /// How it is.
    pub health: UpstreamHealth,
    /// How long its answers take of late; a guess before the first.
    pub round_trip: Duration,
}

/// How an upstream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamHealth {
    /// It answers, or has not been asked yet.
    Well,
    /// It does not answer, and is asked last.
    Failing,
    /// It sends our questions back to us, and is not asked.
    Loops,
}

#[derive(Debug)]
struct State {
    smoothed: Duration,
    failures: u32,
    retry_at: Option<Instant>,
    /// It sends our questions back to us.
    loops: bool,
    probed_at: Option<Instant>,
}

/// The upstreams in the order in which one question tries them.
pub(crate) struct Order(Vec<Arc<Upstream>>);

impl Upstream {
    pub(crate) fn new(address: SocketAddr) -> Self {
        let state = State { smoothed: FIRST_RTT, failures: 0, retry_at: None, loops: false, probed_at: None };
        Self { address, state: Mutex::new(state), idle: Mutex::default() }
    }

    /// A connection that was used before, if there is one.
    pub(crate) fn reuse(&self, now: Instant) -> Option<TcpStream> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| now < *since + MAX_IDLE);
        idle.pop().map(|(stream, _)| stream)
    }

    /// Keeps a connection over which an answer came whole.
    pub(crate) fn keep(&self, stream: TcpStream, now: Instant) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|(_, since)| now < *since + MAX_IDLE);
        if idle.len() < MAX_CONNECTIONS {
            idle.push((stream, now));
        }
    }

    /// It answered after this time.
    pub(crate) fn answered(&self, after: Duration) {
        let mut state = self.state();
        if state.failures >= FAILING {
            tracing::info!(upstream = %self.address, "an upstream DNS server answers again");
        }
        state.failures = 0;
        // The gain of RFC 6298.
        state.smoothed = (state.smoothed * 7 + after) / 8;
    }

    /// It could not be reached.
    pub(crate) fn failed(&self, now: Instant) {
        let mut state = self.state();
        state.failures = state.failures.saturating_add(1);
        if state.failures == FAILING {
            tracing::warn!(upstream = %self.address, "an upstream DNS server does not answer");
        }
        state.retry_at = Some(now + RETRY);
    }

    /// It took longer than it was given.
    pub(crate) fn late(&self, now: Instant) {
        self.failed(now);
    }

    /// Whether it is time to look whether it is a loop, which the caller then does.
    pub(crate) fn is_probe_due(&self, now: Instant) -> bool {
        let mut state = self.state();
        let suspect = state.loops || state.failures >= FAILING;
        let due = state.probed_at.is_none_or(|at| suspect && now >= at + PROBE_AGAIN);
        if due {
            state.probed_at = Some(now);
        }
        due
    }

    /// It is known whether it sends our questions back; true if that is news.
    pub(crate) fn set_loops(&self, loops: bool) -> bool {
        let was = std::mem::replace(&mut self.state().loops, loops);
        match (was, loops) {
            (false, true) => tracing::warn!(
                upstream = %self.address,
                "an upstream DNS server sends our questions back to us, and is not asked while it does; \
                 give --dns-upstream, or a resolv.conf that does not lead to this node",
            ),
            (true, false) => {
                tracing::info!(upstream = %self.address, "an upstream DNS server no longer leads back to us");
            }
            (true, true) | (false, false) => {}
        }
        was != loops
    }

    /// Whether it sends our questions back to us.
    pub(crate) fn loops(&self) -> bool {
        self.state().loops
    }

    /// What is known of it.
    pub(crate) fn describe(&self, domain: DomainName) -> UpstreamState {
        let state = self.state();
        let health = match (state.loops, state.failures) {
            (true, _) => UpstreamHealth::Loops,
            (false, FAILING..) => UpstreamHealth::Failing,
            (false, 0..FAILING) => UpstreamHealth::Well,
        };
        UpstreamState { domain, address: self.address, health, round_trip: state.smoothed }
    }

    fn patience(&self) -> Duration {
        (self.state().smoothed * 2).clamp(MIN_PATIENCE, MAX_PATIENCE)
    }

    /// Whether it is to be tried after the others. One question in a while is let through to find out.
    fn is_last(&self, now: Instant) -> bool {
        let mut state = self.state();
        if state.failures < FAILING {
            return false;
        }
        let wait = state.retry_at.is_some_and(|at| now < at);
        if !wait {
            state.retry_at = Some(now + RETRY);
        }
        wait
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every write leaves the state whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Order {
    pub(crate) fn new(upstreams: &[Arc<Upstream>], now: Instant) -> Self {
        let no_loops = upstreams.iter().filter(|upstream| !upstream.loops()).cloned();
        let (last, first): (Vec<_>, Vec<_>) = no_loops.partition(|upstream| upstream.is_last(now));
        Self(first.into_iter().chain(last).collect())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The upstream of the attempt with this index, and how long to wait before the next attempt: twice as
    /// long with every round through the list.
    pub(crate) fn attempt(&self, index: usize) -> (Arc<Upstream>, Duration) {
        let upstream = &self.0[index % self.0.len()];
        let round = u32::try_from(index / self.0.len()).unwrap_or(u32::MAX).min(4);
        (Arc::clone(upstream), (upstream.patience() * 2u32.pow(round)).min(MAX_PATIENCE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(order: &Order) -> Vec<u16> {
        order.0.iter().map(|upstream| upstream.address.port()).collect()
    }

    #[test]
    fn a_failing_upstream_goes_last_and_is_tried_again_later() {
        let all = [1, 2].map(|port| Arc::new(Upstream::new(([192, 0, 2, 1], port).into())));
        let now = Instant::now();
        all[0].failed(now);
        assert_eq!(ports(&Order::new(&all, now)), [1, 2], "one failure is none");
        all[0].failed(now);
        assert_eq!(ports(&Order::new(&all, now)), [2, 1]);
        assert_eq!(ports(&Order::new(&all, now + RETRY)), [1, 2], "one question finds out");
        assert_eq!(ports(&Order::new(&all, now + RETRY)), [2, 1], "the next does not pay for it");
        all[0].answered(Duration::from_millis(1));
        assert_eq!(ports(&Order::new(&all, now)), [1, 2]);
    }

    #[test]
    fn a_loop_is_not_asked_and_looked_at_again() {
        let all = [1, 2].map(|port| Arc::new(Upstream::new(([192, 0, 2, 1], port).into())));
        let now = Instant::now();
        assert!(all[0].is_probe_due(now), "when it is new");
        assert!(!all[0].is_probe_due(now + PROBE_AGAIN), "it is well");
        assert!(all[0].set_loops(true));
        assert!(!all[0].set_loops(true), "no news");
        assert_eq!(ports(&Order::new(&all, now)), [2]);
        assert!(all[0].is_probe_due(now + PROBE_AGAIN));
        assert!(!all[0].is_probe_due(now + PROBE_AGAIN));
        assert!(all[0].set_loops(false));
        assert_eq!(ports(&Order::new(&all, now)), [1, 2]);
    }

    #[test]
    fn patience_is_twice_the_round_trip_within_bounds() {
        let all = [Arc::new(Upstream::new(([192, 0, 2, 1], 53).into()))];
        let order = Order::new(&all, Instant::now());
        assert_eq!(order.attempt(0).1, Duration::from_millis(100));
        assert_eq!(order.attempt(1).1, Duration::from_millis(200));
        for _ in 0..50 {
            all[0].answered(Duration::from_micros(100));
        }
        assert_eq!(order.attempt(0).1, MIN_PATIENCE);
        for _ in 0..50 {
            all[0].answered(Duration::from_secs(3));
        }
        assert_eq!(order.attempt(5).1, MAX_PATIENCE);
    }
}

//! Finds out whether an upstream sends our questions back to us: a name that nobody else can know is asked
//! for there, and it must not come in. Pure but for `watch`. Used by `forward`.
//!
//! What comes back meanwhile does no harm: it joins the flight of its own question and ends with it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::forward::Forwarder;
use crate::name::DomainName;

/// How often it is looked whether an upstream is new, fails, or led back: the upstreams change as often.
const PERIOD: Duration = Duration::from_secs(5);
/// Probes under way at one time; upstreams are fewer.
const MAX_PROBES: usize = 64;

/// The names that are asked for to see whether they come back.
#[derive(Debug, Default)]
pub(crate) struct Probes(Vec<Probe>);

#[derive(Debug)]
struct Probe {
    name: DomainName,
    upstream: SocketAddr,
    came_back: bool,
}

impl Probes {
    /// Begins a probe of the upstream of a domain; the name to ask it for. None where too many are under way.
    pub(crate) fn begin(
        &mut self,
        domain: &DomainName,
        upstream: SocketAddr,
        seed: u64,
    ) -> Option<DomainName> {
        if self.0.len() >= MAX_PROBES {
            return None;
        }
        // Two labels: a forwarder may keep single words to itself.
        let name = domain.child(b"fairway-loop")?.child(format!("{seed:016x}").as_bytes())?;
        self.0.push(Probe { name: name.clone(), upstream, came_back: false });
        Some(name)
    }

    /// Takes in that a client asks for a name: the upstream that led back to us, if it is one of ours.
    pub(crate) fn asked(&mut self, name: &DomainName) -> Option<SocketAddr> {
        let probe = self.0.iter_mut().find(|probe| probe.name.matches(name))?;
        probe.came_back = true;
        Some(probe.upstream)
    }

    /// Ends a probe; whether its name came back.
    pub(crate) fn end(&mut self, name: &DomainName) -> bool {
        let position = self.0.iter().position(|probe| probe.name.matches(name));
        position.is_some_and(|position| self.0.swap_remove(position).came_back)
    }
}

/// Probes the upstreams of a forwarder until the drain.
pub(crate) async fn watch(forwarder: Arc<Forwarder>, drain: CancellationToken) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = drain.cancelled() => return,
            _ = ticks.tick() => forwarder.probe(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_comes_back_tells_of_its_upstream() {
        let [one, two] = [1, 2].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        let root = DomainName::parse("").unwrap();
        let mut probes = Probes::default();
        let first = probes.begin(&root, one, 7).unwrap();
        let second = probes.begin(&DomainName::parse("corp.example").unwrap(), two, 8).unwrap();
        assert_eq!(first.to_string(), "0000000000000007.fairway-loop.");
        assert_eq!(second.to_string(), "0000000000000008.fairway-loop.corp.example.");
        assert_eq!(probes.asked(&DomainName::parse("www.example.com").unwrap()), None);
        let shouted = DomainName::parse(&second.to_string().to_uppercase()).unwrap();
        assert_eq!(probes.asked(&shouted), Some(two));
        assert_eq!((probes.end(&first), probes.end(&second), probes.end(&second)), (false, true, false));
        assert_eq!(probes.asked(&second), None);
    }

    #[test]
    fn probes_are_bounded() {
        let mut probes = Probes::default();
        let root = DomainName::parse("").unwrap();
        let begun =
            (0..1000).filter_map(|seed| probes.begin(&root, ([192, 0, 2, 1], 53).into(), seed)).count();
        assert_eq!(begun, MAX_PROBES);
    }
}

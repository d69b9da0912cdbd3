//! Metrics of the proxy, for the daemon's registry. The kernel counts reasons and connections; the numbers are
//! read when somebody asks, so that counting costs no more than it must.

use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::counts::Count;
use crate::packets::FlowCounts;
use crate::proxy::{Outcome, Proxy};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Service {
    namespace: String,
    service: String,
}

/// A backend of a service.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Backend {
    namespace: String,
    service: String,
    backend: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Protocol {
    protocol: &'static str,
}

/// Connections by a label.
#[derive(Clone, Debug)]
struct ByLabel<L> {
    opened: Family<L, Counter>,
    closed: Family<L, Counter>,
}

/// The metrics of the proxy.
#[derive(Debug, Default)]
pub struct Metrics {
    verdicts: Family<Reason, Counter>,
    ops: Family<Kind, Counter>,
    skipped: Family<Reason, Gauge>,
    services: ByLabel<Service>,
    refused: Family<Service, Counter>,
    backends: ByLabel<Backend>,
    ended: Family<Protocol, Counter>,
    unseen: Gauge,
    repairs: Family<Kind, Counter>,
    unprogrammed: Gauge,
    conflicts: Gauge,
    flows: FlowMetrics,
}

/// The flow tables of the packet engine.
#[derive(Clone, Debug, Default)]
pub struct FlowMetrics {
    entries: Family<Kind, Gauge>,
    swept: Family<Kind, Counter>,
}

impl FlowMetrics {
    /// Takes over what one sweep of the flows found.
    pub fn observe(&self, counts: FlowCounts) {
        let known = ("known", counts.known, counts.known_swept);
        for (kind, left, swept) in [known, ("fresh", counts.fresh, counts.fresh_swept)] {
            self.entries.get_or_create(&Kind { kind }).set(i64::try_from(left).unwrap_or(i64::MAX));
            self.swept.get_or_create(&Kind { kind }).inc_by(swept);
        }
    }
}

impl Metrics {
    /// Metrics in `registry`, under `proxy_`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("proxy");
        let mut add =
            |name, help, metric: &Family<Reason, Counter>| registry.register(name, help, metric.clone());
        add(
            "verdicts",
            "Socket calls and packets left alone, refused or dropped, by reason",
            &metrics.verdicts,
        );
        registry.register("operations", "Operations on the maps, by kind", metrics.ops.clone());
        registry.register("services_skipped", "Services left out, by reason", metrics.skipped.clone());
        let Metrics { services, backends, refused, .. } = &metrics;
        registry.register("connections_opened", "Connections opened, by service", services.opened.clone());
        registry.register("connections_closed", "Connections closed, by service", services.closed.clone());
        registry.register("connections_refused", "Connections without a backend", refused.clone());
        registry.register("backend_opened", "Connections opened, by backend", backends.opened.clone());
        registry.register("backend_closed", "Connections closed, by backend", backends.closed.clone());
        registry.register("sockets_ended", "Sockets ended as their endpoint is gone", metrics.ended.clone());
        registry.register("repairs", "What the self-check put right, by kind", metrics.repairs.clone());
        registry.register("namespaces_unseen", "Network namespaces not entered", metrics.unseen.clone());
        registry.register("services_unprogrammed", "Services without room", metrics.unprogrammed.clone());
        registry.register(
            "flows",
            "Entries of flows in the packet engine, two a flow",
            metrics.flows.entries.clone(),
        );
        registry.register("flows_swept", "Flows that were over and taken out", metrics.flows.swept.clone());
        registry.register(
            "conflicts",
            "Frontends claimed by more than one service",
            metrics.conflicts.clone(),
        );
        metrics
    }

    /// Takes over what one sync did.
    pub fn observe(&self, outcome: &Outcome) {
        self.unprogrammed.set(whole(outcome.unprogrammed.len()));
        self.conflicts.set(whole(outcome.conflicts.len()));
    }

    /// Those of the sweep.
    pub fn flows(&self) -> FlowMetrics {
        self.flows.clone()
    }

    /// Reads the counters: before the text is made.
    pub fn collect(&self, proxy: &Proxy) {
        for (reason, count) in proxy.kernel().reasons() {
            raise(&self.verdicts.get_or_create(&Reason { reason: reason.as_str() }), count);
        }
        for (kind, count) in proxy.ops().iter() {
            raise(&self.ops.get_or_create(&Kind { kind }), count);
        }
        for (reason, count) in proxy.planner().skipped() {
            let gauge = self.skipped.get_or_create(&Reason { reason: reason.as_str() });
            gauge.set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        self.services.clear();
        self.refused.clear();
        // As with the backends below: a series comes with the first connection.
        for (name, count) in proxy.counts().into_iter().filter(|(_, count)| *count != Count::default()) {
            let label = Service { namespace: name.namespace.to_string(), service: name.name.to_string() };
            self.services.add(&label, &count);
            self.refused.get_or_create(&label).inc_by(count.refused);
        }
        self.backends.clear();
        // Only those that this node uses: a large cluster has far more of them.
        for backend in proxy.backends().filter(|backend| backend.count.opened > 0) {
            let label = Backend {
                namespace: backend.service.name.namespace.to_string(),
                service: backend.service.name.name.to_string(),
                backend: SocketAddr::new(backend.slot.ip, backend.slot.port).to_string(),
            };
            self.backends.add(&label, &backend.count);
        }
        let ended = proxy.ended();
        for (protocol, count) in [("UDP", ended.datagrams), ("TCP", ended.streams)] {
            raise(&self.ended.get_or_create(&Protocol { protocol }), count);
        }
        for (kind, count) in proxy.repairs() {
            raise(&self.repairs.get_or_create(&Kind { kind }), *count);
        }
        self.unseen.set(whole(ended.unseen.namespaces));
    }
}

impl<L: Clone + Hash + Eq> ByLabel<L> {
    fn clear(&self) {
        self.opened.clear();
        self.closed.clear();
    }

    /// A backend may serve more than one port of its service.
    fn add(&self, label: &L, count: &Count) {
        self.opened.get_or_create(label).inc_by(count.opened);
        self.closed.get_or_create(label).inc_by(count.closed);
    }
}

impl<L: Clone + Hash + Eq> Default for ByLabel<L> {
    fn default() -> Self {
        Self { opened: Family::default(), closed: Family::default() }
    }
}

/// Brings a counter to the value that the kernel counts.
fn raise(counter: &Counter<u64, AtomicU64>, value: u64) {
    counter.inc_by(value.saturating_sub(counter.get()));
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

//! Metrics of the proxy, for the daemon's registry. The kernel counts reasons and connections; the numbers are
//! read when somebody asks, so that counting costs no more than it must.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

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

/// The metrics of the proxy.
#[derive(Debug, Default)]
pub struct Metrics {
    verdicts: Family<Reason, Counter>,
    ops: Family<Kind, Counter>,
    skipped: Family<Reason, Gauge>,
    opened: Family<Service, Counter>,
    unprogrammed: Gauge,
    conflicts: Gauge,
}

impl Metrics {
    /// Metrics in `registry`, under `proxy_`.
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("proxy");
        let mut add =
            |name, help, metric: &Family<Reason, Counter>| registry.register(name, help, metric.clone());
        add("verdicts", "Socket calls left alone or refused, by reason", &metrics.verdicts);
        registry.register("operations", "Operations on the maps, by kind", metrics.ops.clone());
        registry.register("services_skipped", "Services left out, by reason", metrics.skipped.clone());
        registry.register("connections_opened", "Connections opened, by service", metrics.opened.clone());
        registry.register("services_unprogrammed", "Services without room", metrics.unprogrammed.clone());
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

    /// Reads the counters: before the text is made.
    pub fn collect(&self, proxy: &Proxy) {
        for (reason, count) in proxy.kernel().reasons() {
            raise(&self.verdicts.get_or_create(&Reason { reason: reason.as_str() }), count);
        }
        for (kind, count) in proxy.ops() {
            raise(&self.ops.get_or_create(&Kind { kind }), *count);
        }
        for (reason, count) in proxy.planner().skipped() {
            let gauge = self.skipped.get_or_create(&Reason { reason: reason.as_str() });
            gauge.set(i64::try_from(*count).unwrap_or(i64::MAX));
        }
        self.opened.clear();
        for (name, count) in proxy.opened() {
            let label = Service { namespace: name.namespace.to_string(), service: name.name.to_string() };
            raise(&self.opened.get_or_create(&label), count);
        }
    }
}

/// Brings a counter to the value that the kernel counts.
fn raise(counter: &Counter<u64, AtomicU64>, value: u64) {
    counter.inc_by(value.saturating_sub(counter.get()));
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

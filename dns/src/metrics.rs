//! What the server counts. The names are CoreDNS's where the meaning is the same, so that its dashboards
//! and alerts work as they are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::cache::Totals;
use crate::record::RecordType;
use crate::stored::Kind;
use crate::wire::{Head, Rcode, Transport, question_end};

/// CoreDNS's buckets: 0.25 ms doubled up to 8 s.
const SECONDS: [f64; 16] = [
    0.00025, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048,
    4.096, 8.192,
];

/// The counters of the server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    responses: Family<ResponseLabels, Counter>,
    duration: Family<ServerLabels, Histogram, fn() -> Histogram>,
    upstream: Family<UpstreamLabels, Histogram, fn() -> Histogram>,
    /// Questions answered SERVFAIL because too many were under way.
    pub(crate) shed: Counter,
    /// Questions that no upstream answered.
    pub(crate) unanswered: Counter,
    /// Questions that waited for the same question of another client.
    pub(crate) joined: Counter,
    /// Answers fetched anew before their time.
    pub(crate) prefetched: Counter,
    /// Old answers given because no upstream answered.
    pub(crate) served_stale: Counter,
    /// Upstreams found to lead back to us.
    pub(crate) loops: Counter,
    cache: CacheMetrics,
}

#[derive(Clone, Debug, Default)]
struct CacheMetrics {
    requests: Counter,
    misses: Counter,
    evictions: Counter,
    hits: Family<KindLabels, Counter>,
    entries: Family<KindLabels, Gauge>,
    octets: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabels {
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ServerLabels {
    server: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    server: Arc<str>,
    proto: &'static str,
    r#type: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    server: Arc<str>,
    rcode: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    proxy_name: &'static str,
    to: String,
    rcode: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(SECONDS);
        Self {
            requests: Family::default(),
            responses: Family::default(),
            duration: Family::new_with_constructor(histogram),
            upstream: Family::new_with_constructor(histogram),
            shed: Counter::default(),
            unanswered: Counter::default(),
            joined: Counter::default(),
            prefetched: Counter::default(),
            served_stale: Counter::default(),
            loops: Counter::default(),
            cache: CacheMetrics::default(),
        }
    }
}

impl Metrics {
    /// Adds them to a registry.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("coredns_dns_requests", "DNS requests", self.requests.clone());
        registry.register("coredns_dns_responses", "DNS responses", self.responses.clone());
        registry.register(
            "coredns_dns_request_duration_seconds",
            "Time from a DNS request to its response",
            self.duration.clone(),
        );
        registry.register(
            "coredns_proxy_request_duration_seconds",
            "Time from a question to an upstream to its answer",
            self.upstream.clone(),
        );
        registry.register(
            "coredns_forward_max_concurrent_rejects",
            "Questions answered SERVFAIL because too many were under way",
            self.shed.clone(),
        );
        registry.register(
            "fairway_dns_unanswered",
            "Questions that no upstream answered in time",
            self.unanswered.clone(),
        );
        let mut counter = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        let cache = &self.cache;
        counter("fairway_dns_loops", "Upstreams found to send our questions back", &self.loops);
        counter("fairway_dns_joined", "Questions that waited for the same question of another", &self.joined);
        counter("coredns_cache_prefetch", "Answers fetched anew before their time", &self.prefetched);
        counter(
            "coredns_cache_served_stale",
            "Old answers given as no upstream answered",
            &self.served_stale,
        );
        counter("coredns_cache_requests", "Questions looked up in the cache", &cache.requests);
        counter("coredns_cache_misses", "Questions that the cache had no answer to", &cache.misses);
        counter("coredns_cache_evictions", "Answers that had to make room", &cache.evictions);
        registry.register("coredns_cache_hits", "Questions answered from the cache", cache.hits.clone());
        registry.register("coredns_cache_entries", "Answers in the cache", cache.entries.clone());
        registry.register("fairway_dns_cache_octets", "What the cache takes in memory", cache.octets.clone());
    }

    pub(crate) fn count_hit(&self, kind: Kind) {
        self.cache.requests.inc();
        self.cache.hits.get_or_create(&kind.into()).inc();
    }

    pub(crate) fn count_miss(&self) {
        self.cache.requests.inc();
        self.cache.misses.inc();
    }

    pub(crate) fn count_cache(&self, totals: Totals, evicted: usize) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.cache.evictions.inc_by(evicted as u64);
        self.cache.octets.set(number(totals.octets));
        let entries = [(Kind::Success, totals.successes), (Kind::Denial, totals.denials)];
        for (kind, count) in entries {
            self.cache.entries.get_or_create(&kind.into()).set(number(count));
        }
    }

    pub(crate) fn count(&self, server: &Arc<str>, message: &[u8], answer: &[u8], how: (Transport, Duration)) {
        let (transport, took) = how;
        let proto = match transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        let labels = RequestLabels { server: Arc::clone(server), proto, r#type: type_label(message) };
        self.requests.get_or_create(&labels).inc();
        let rcode = Head::read(answer).map_or("OTHER", |head| Rcode(head.flags & 15).name());
        self.responses.get_or_create(&ResponseLabels { server: Arc::clone(server), rcode }).inc();
        self.duration.get_or_create(&ServerLabels { server: Arc::clone(server) }).observe(took.as_secs_f64());
    }

    pub(crate) fn count_upstream(&self, to: SocketAddr, rcode: Option<Rcode>, took: Duration) {
        let rcode = rcode.map_or("TIMEOUT", Rcode::name);
        let labels = UpstreamLabels { proxy_name: "forward", to: to.to_string(), rcode };
        self.upstream.get_or_create(&labels).observe(took.as_secs_f64());
    }
}

impl From<Kind> for KindLabels {
    fn from(kind: Kind) -> Self {
        let r#type = match kind {
            Kind::Success => "success",
            Kind::Denial => "denial",
        };
        Self { r#type }
    }
}

/// The type asked for, bounded: a client must not be able to make labels.
fn type_label(message: &[u8]) -> &'static str {
    let at = question_end(message).unwrap_or_default();
    let octets = at.checked_sub(4).and_then(|start| message.get(start..start + 2));
    let rtype = octets.map(|octets| RecordType(u16::from_be_bytes([octets[0], octets[1]])));
    rtype.and_then(RecordType::mnemonic).unwrap_or("other")
}

//! What the server counts. The names are CoreDNS's where the meaning is the same, so that its dashboards
//! and alerts work as they are.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::access::Verdict;
use crate::cache::Totals;
use crate::fast::Said;
use crate::histogram::Histogram;
use crate::record::RecordType;
use crate::stored::Kind;
use crate::wire::{Rcode, Transport};

/// The counters of the server. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    requests: Family<RequestLabels, Counter>,
    responses: Family<ResponseLabels, Counter>,
    duration: Family<ServerLabels, Histogram>,
    upstream: Family<UpstreamLabels, Histogram>,
    turned_away: Family<ReasonLabels, Counter>,
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

/// The counters of one server address, found once: looking for them by their labels would cost more than an
/// answer does.
pub(crate) struct ServerMetrics {
    server: Arc<str>,
    all: Metrics,
    duration: Histogram,
    /// By transport and type; made when first counted.
    requests: [[OnceLock<Counter>; RecordType::LABELS]; 2],
    responses: [OnceLock<Counter>; OTHER_RCODE + 1],
}

/// Codes from here on are counted together.
const OTHER_RCODE: usize = 6;

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
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabels {
    proxy_name: &'static str,
    to: String,
    rcode: &'static str,
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
        registry.register(
            "fairway_dns_turned_away",
            "Questions not answered: of strangers, or too many of one client",
            self.turned_away.clone(),
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

    /// The counters of one server address.
    pub(crate) fn server(&self, server: &str) -> ServerMetrics {
        ServerMetrics {
            server: server.into(),
            all: self.clone(),
            duration: self.duration.get_or_create_owned(&ServerLabels { server: server.into() }),
            requests: Default::default(),
            responses: Default::default(),
        }
    }

    pub(crate) fn count_upstream(&self, to: SocketAddr, rcode: Option<Rcode>, took: Duration) {
        let rcode = rcode.map_or("TIMEOUT", Rcode::name);
        let labels = UpstreamLabels { proxy_name: "forward", to: to.to_string(), rcode };
        self.upstream.get_or_create(&labels).observe(took);
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

impl ServerMetrics {
    /// Counts a question and its answer.
    pub(crate) fn count(&self, transport: Transport, said: Said, took: Duration) {
        let (proto, requests) = match transport {
            Transport::Udp => ("udp", &self.requests[0]),
            Transport::Tcp => ("tcp", &self.requests[1]),
        };
        // The types have bounded labels: a client must not be able to make some.
        let (rtype, label) = said.rtype.position();
        let request = requests[rtype].get_or_init(|| {
            let labels = RequestLabels { server: Arc::clone(&self.server), proto, r#type: label };
            self.all.requests.get_or_create_owned(&labels)
        });
        request.inc();
        let rcode = usize::from(said.rcode.0).min(OTHER_RCODE);
        let response = self.responses[rcode].get_or_init(|| {
            let labels = ResponseLabels { server: Arc::clone(&self.server), rcode: said.rcode.name() };
            self.all.responses.get_or_create_owned(&labels)
        });
        response.inc();
        self.duration.observe(took);
    }

    /// Counts a question that is not answered as it is asked.
    pub(crate) fn count_verdict(&self, verdict: Verdict) {
        let reason = match verdict {
            Verdict::Answer => return,
            Verdict::Refuse | Verdict::Ignore => "stranger",
            Verdict::Limit => "rate",
        };
        self.all.turned_away.get_or_create(&ReasonLabels { reason }).inc();
    }
}

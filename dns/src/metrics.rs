//! What the server counts. The names are CoreDNS's where the meaning is the same, so that its dashboards
//! and alerts work as they are.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::record::RecordType;
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

/// The type asked for, bounded: a client must not be able to make labels.
fn type_label(message: &[u8]) -> &'static str {
    let at = question_end(message).unwrap_or_default();
    let octets = at.checked_sub(4).and_then(|start| message.get(start..start + 2));
    let rtype = octets.map(|octets| RecordType(u16::from_be_bytes([octets[0], octets[1]])));
    rtype.and_then(RecordType::mnemonic).unwrap_or("other")
}

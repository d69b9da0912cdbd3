//! A small language for clusters in tests, one object a line; `address=hostname` gives an endpoint its
//! hostname, `!` makes it not ready. For every test file of this folder.
//!
//! `+ service shop/web ip=10.96.0.20,fd00::20 ports=http:80/TCP,9/UDP elsewhere`,
//! `+ service shop/db headless ports=pg:5432/TCP publish-not-ready`, `+ service shop/out external=example.com`,
//! `+ slice shop/db-1 of=db ports=pg:5432/TCP at=10.244.0.5=db-0,10.244.0.7!`, `- service shop/web`,
//! `+ pod shop/web-1 ip=10.244.0.5`

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that is wrong must fail at once")]

pub(crate) mod upstream;

use std::collections::BTreeMap;

use dns::{DomainName, ZoneConfig};
use model::testing::{self, name};
use model::{Cluster, Endpoint, EndpointSlice, Event, Kind, Object, ObjectName, Pod, Service};

/// `cluster.local` with the usual ranges.
pub(crate) fn config() -> ZoneConfig {
    let mut config = ZoneConfig::new(DomainName::parse("cluster.local").unwrap());
    let ranges = ["10.96.0.0/16", "10.244.0.0/16", "fd00::/112", "fd00::1:0/112"];
    config.reverse = ranges.iter().map(|net| net.parse().unwrap()).collect();
    config.servers = vec!["10.96.0.10".parse().unwrap()];
    config
}

/// A cluster whose lists are complete, after the lines of `text`.
pub(crate) fn cluster(text: &str) -> Cluster {
    let mut cluster = testing::listed([]);
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        cluster.apply(event(line));
    }
    cluster
}

/// The event of one line.
pub(crate) fn event(line: &str) -> Event {
    let mut words = line.split_ascii_whitespace();
    let mut next = || words.next().unwrap_or_default();
    let (sign, kind, text) = (next(), next(), next());
    let rest: Vec<&str> = words.collect();
    match (sign, kind) {
        ("+", "namespace") => Event::Apply(Object::Namespace(text.into())),
        ("+", "service") => Event::Apply(service(text, &rest).into()),
        ("+", "slice") => Event::Apply(slice(&name(text), &rest).into()),
        ("+", "pod") => Event::Apply(Object::Pod(pod(text, &rest))),
        ("-", "pod") => Event::Delete(Kind::Pod, name(text)),
        ("-", "namespace") => Event::Delete(Kind::Namespace, ObjectName::cluster_scoped(text)),
        ("-", "service") => Event::Delete(Kind::Service, name(text)),
        ("-", "slice") => Event::Delete(Kind::EndpointSlice, name(text)),
        _ => panic!("no event: {line}"),
    }
}

fn service(text: &str, words: &[&str]) -> Service {
    let has = |flag| words.contains(&flag);
    let service = match value(words, "external") {
        Some(target) => testing::external_name(text, target),
        None if has("headless") => testing::headless(text),
        None => testing::service(text, &list(words, "ip")),
    };
    let service = list(words, "ports").into_iter().fold(service, Service::port);
    Service { publish_not_ready: has("publish-not-ready"), proxied_elsewhere: has("elsewhere"), ..service }
}

fn pod(text: &str, words: &[&str]) -> Pod {
    let addresses = list(words, "ip").into_iter().map(|ip| ip.parse().unwrap()).collect();
    Pod { name: name(text), addresses, labels: BTreeMap::new(), node: None, host_network: false }
}

fn slice(full_name: &ObjectName, words: &[&str]) -> EndpointSlice {
    let of = format!("{}/{}", full_name.namespace, value(words, "of").unwrap());
    let slice = testing::slice(&full_name.name, &of);
    let slice = list(words, "ports").into_iter().fold(slice, EndpointSlice::port);
    list(words, "at").into_iter().map(endpoint).fold(slice, EndpointSlice::with)
}

fn endpoint(text: &str) -> Endpoint {
    let ready = text.trim_end_matches('!');
    let (address, hostname) = ready.split_once('=').unwrap_or((ready, ""));
    let mut endpoint = testing::endpoint(address);
    if !hostname.is_empty() {
        endpoint = endpoint.hostname(hostname);
    }
    if ready.len() < text.len() { endpoint.not_ready() } else { endpoint }
}

fn list<'a>(words: &[&'a str], key: &str) -> Vec<&'a str> {
    value(words, key).map(|list| list.split(',').collect()).unwrap_or_default()
}

fn value<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

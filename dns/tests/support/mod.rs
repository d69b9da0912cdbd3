//! A small language for clusters in tests, one object a line:
//!
//! ```text
//! + namespace shop
//! + service shop/web ip=10.96.0.20,fd00::20 ports=http:80/TCP,:9/UDP [elsewhere]
//! + service shop/db headless ports=pg:5432/TCP [publish-not-ready]
//! + service shop/out external=example.com
//! + slice shop/db-1 of=db ports=pg:5432/TCP at=10.244.0.5=db-0,10.244.0.6,10.244.0.7!
//! - service shop/web
//! ```
//!
//! `address=hostname` gives an endpoint its hostname, `!` makes it not ready.

#![allow(dead_code, reason = "each test file uses a part of it")]

use model::{
    Cluster, ClusterIps, Conditions, Endpoint, EndpointPort, EndpointSlice, Event, Kind, Object, ObjectName,
    Protocol, Service, ServiceKind, ServicePort,
};

/// A cluster whose lists are complete, after the lines of `text`.
pub fn cluster(text: &str) -> Cluster {
    let mut cluster = empty();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        cluster.apply(event(line));
    }
    cluster
}

/// A cluster whose lists are complete and empty.
pub fn empty() -> Cluster {
    let mut cluster = Cluster::new();
    for kind in Kind::ALL {
        cluster.apply(Event::Replace(kind, Vec::new()));
    }
    cluster
}

/// The event of one line.
pub fn event(line: &str) -> Event {
    let mut words = line.split_ascii_whitespace();
    let mut next = || words.next().unwrap_or_default();
    let (sign, kind, name) = (next(), next(), next());
    let rest: Vec<&str> = words.collect();
    let name = object_name(name);
    match (sign, kind) {
        ("+", "namespace") => Event::Apply(Object::Namespace(name.name)),
        ("+", "service") => Event::Apply(Object::Service(service(name, &rest))),
        ("+", "slice") => Event::Apply(Object::EndpointSlice(slice(name, &rest))),
        ("-", "namespace") => Event::Delete(Kind::Namespace, name),
        ("-", "service") => Event::Delete(Kind::Service, name),
        ("-", "slice") => Event::Delete(Kind::EndpointSlice, name),
        _ => panic!("no event: {line}"),
    }
}

pub fn object_name(text: &str) -> ObjectName {
    match text.split_once('/') {
        Some((namespace, name)) => ObjectName::new(namespace, name),
        None => ObjectName::cluster_scoped(text),
    }
}

fn service(name: ObjectName, words: &[&str]) -> Service {
    let has = |flag| words.contains(&flag);
    let kind = match value(words, "external") {
        Some(target) => ServiceKind::ExternalName(target.into()),
        None => ServiceKind::ClusterIp,
    };
    let cluster_ips = match value(words, "ip") {
        _ if has("headless") => ClusterIps::Headless,
        Some(ips) => ClusterIps::Addresses(ips.split(',').map(|ip| ip.parse().unwrap()).collect()),
        None => ClusterIps::Addresses(Vec::new()),
    };
    let port = |(name, number, protocol): (String, u16, Protocol)| ServicePort {
        name: name.into(),
        protocol,
        port: number,
        node_port: None,
    };
    Service {
        name,
        created: 0,
        kind,
        cluster_ips,
        ports: ports(words).into_iter().map(port).collect(),
        external_ips: Vec::new(),
        load_balancer: model::LoadBalancer::default(),
        traffic: model::Traffic::default(),
        publish_not_ready: has("publish-not-ready"),
        proxied_elsewhere: has("elsewhere"),
    }
}

fn slice(name: ObjectName, words: &[&str]) -> EndpointSlice {
    let port =
        |(name, port, protocol): (String, u16, Protocol)| EndpointPort { name: name.into(), protocol, port };
    EndpointSlice {
        service: value(words, "of").unwrap().into(),
        ports: ports(words).into_iter().map(port).collect(),
        endpoints: value(words, "at")
            .unwrap_or_default()
            .split(',')
            .filter(|e| !e.is_empty())
            .map(endpoint)
            .collect(),
        name,
    }
}

fn endpoint(text: &str) -> Endpoint {
    let ready = !text.ends_with('!');
    let text = text.trim_end_matches('!');
    let (address, hostname) = match text.split_once('=') {
        Some((address, hostname)) => (address, Some(hostname.into())),
        None => (text, None),
    };
    Endpoint {
        address: address.parse().unwrap(),
        conditions: Conditions { ready, serving: ready, terminating: false },
        node: None,
        zone: None,
        hostname,
        hints: None,
        pod: None,
    }
}

fn value<'a>(words: &[&'a str], key: &str) -> Option<&'a str> {
    words.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
}

fn ports(words: &[&str]) -> Vec<(String, u16, Protocol)> {
    let one = |text: &str| {
        let (name, rest) = text.split_once(':').unwrap();
        let (number, protocol) = rest.split_once('/').unwrap();
        let protocol = match protocol {
            "TCP" => Protocol::Tcp,
            "UDP" => Protocol::Udp,
            "SCTP" => Protocol::Sctp,
            other => panic!("no protocol: {other}"),
        };
        (name.to_owned(), number.parse().unwrap(), protocol)
    };
    value(words, "ports").map(|list| list.split(',').map(one).collect()).unwrap_or_default()
}

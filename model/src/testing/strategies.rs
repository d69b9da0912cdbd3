//! Random objects over a small world: few names, few addresses, so that collisions, duplicates and
//! contradictions are the rule and not the exception.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::{
    Affinity, ClusterIps, Conditions, Endpoint, EndpointPort, EndpointSlice, Event, IngressMode, Kind,
    LoadBalancer, LoadBalancerIp, Location, Name, Node, Object, ObjectName, Protocol, Service, ServiceKind,
    ServicePort, Traffic, TrafficPolicy,
};

/// Sequences of events, valid and contradictory, in any order, with duplicates, deletions of what was never
/// there, and relists.
pub fn events(length: usize) -> impl Strategy<Value = Vec<Event>> {
    vec(event(), 0..length)
}

/// One Service.
pub fn services() -> impl Strategy<Value = Service> {
    let addresses = (cluster_ips(), vec(address(20..23), 0..2), load_balancer());
    let rest = (traffic(), any::<bool>(), prop::bool::weighted(0.1));
    (object_name(), 0..3_i64, kind(), addresses, vec(service_port(), 0..4), rest).prop_map(
        |(name, created, kind, (cluster_ips, external_ips, load_balancer), ports, rest)| {
            let (traffic, publish_not_ready, proxied_elsewhere) = rest;
            Service {
                name,
                created,
                kind,
                cluster_ips,
                ports: unique(ports),
                external_ips,
                load_balancer,
                traffic,
                publish_not_ready,
                proxied_elsewhere,
            }
        },
    )
}

/// One EndpointSlice. The same slice name may move between services.
pub fn endpoint_slices() -> impl Strategy<Value = EndpointSlice> {
    (namespace(), 0..6_u8, 0..4_u8, vec(endpoint_port(), 0..3), vec(endpoint(), 0..5)).prop_map(
        |(namespace, slice, service, ports, endpoints)| EndpointSlice {
            name: ObjectName::new(namespace, format!("slice-{slice}")),
            service: format!("s{service}").into(),
            ports,
            endpoints,
        },
    )
}

/// One Node out of two: `a` and `b`.
pub fn nodes() -> impl Strategy<Value = Node> {
    (node_name(), option::of(zone()), any::<bool>(), 1..4_u8).prop_map(|(name, zone, dual, last)| {
        let mut addresses = vec![IpAddr::V4(Ipv4Addr::new(192, 168, 0, last))];
        addresses.extend(dual.then(|| IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 9, last.into()))));
        Node { name, zone, addresses, pod_cidrs: Vec::new(), leaving: false }
    })
}

/// The complete lists that stand for what a sequence of events leaves behind, kind by kind.
pub fn relist(events: &[Event]) -> Vec<Event> {
    Kind::ALL.into_iter().map(|kind| Event::Replace(kind, last_of(kind, events))).collect()
}

fn last_of(kind: Kind, events: &[Event]) -> Vec<Object> {
    let mut objects = std::collections::BTreeMap::new();
    for event in events {
        match event {
            Event::Apply(object) if object.kind() == kind => {
                objects.insert(object.name(), object.clone());
            }
            Event::Delete(deleted, name) if *deleted == kind => {
                objects.remove(name);
            }
            Event::Replace(replaced, list) if *replaced == kind => {
                objects = list.iter().map(|object| (object.name(), object.clone())).collect();
            }
            Event::Apply(_) | Event::Delete(..) | Event::Replace(..) => {}
        }
    }
    objects.into_values().collect()
}

fn event() -> impl Strategy<Value = Event> {
    let some_kind = prop::sample::select(&[Kind::Service, Kind::EndpointSlice, Kind::Namespace, Kind::Node]);
    prop_oneof![
        8 => object().prop_map(Event::Apply),
        3 => object().prop_map(|object| Event::Delete(object.kind(), object.name())),
        1 => some_kind.prop_flat_map(|kind| vec(object(), 0..6).prop_map(move |objects| {
            Event::Replace(kind, objects.into_iter().filter(|object| object.kind() == kind).collect())
        })),
    ]
}

fn object() -> impl Strategy<Value = Object> {
    prop_oneof![
        4 => services().prop_map(Object::Service),
        6 => endpoint_slices().prop_map(Object::EndpointSlice),
        1 => namespace().prop_map(Object::Namespace),
        1 => nodes().prop_map(Object::Node),
    ]
}

fn object_name() -> impl Strategy<Value = ObjectName> {
    (namespace(), 0..4_u8).prop_map(|(namespace, name)| ObjectName::new(namespace, format!("s{name}")))
}

fn namespace() -> impl Strategy<Value = Name> {
    prop::sample::select(&["default", "shop"]).prop_map(Name::from)
}

fn node_name() -> impl Strategy<Value = Name> {
    prop::sample::select(&["a", "b"]).prop_map(Name::from)
}

fn zone() -> impl Strategy<Value = Name> {
    prop::sample::select(&["z1", "z2"]).prop_map(Name::from)
}

fn kind() -> impl Strategy<Value = ServiceKind> {
    prop_oneof![
        6 => Just(ServiceKind::ClusterIp),
        3 => Just(ServiceKind::NodePort),
        3 => Just(ServiceKind::LoadBalancer),
        1 => Just(ServiceKind::ExternalName("example.com".into())),
    ]
}

fn cluster_ips() -> impl Strategy<Value = ClusterIps> {
    prop_oneof![
        1 => Just(ClusterIps::Headless),
        6 => vec(address(0..6), 0..3).prop_map(|mut ips| {
            ips.sort();
            ips.dedup_by_key(|ip| ip.is_ipv4());
            ClusterIps::Addresses(ips)
        }),
    ]
}

/// An address of either family out of a small range.
fn address(range: std::ops::Range<u8>) -> impl Strategy<Value = IpAddr> {
    (range, prop::bool::weighted(0.3)).prop_map(|(last, six)| match six {
        false => IpAddr::V4(Ipv4Addr::new(10, 96, 0, last)),
        true => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, last.into())),
    })
}

fn load_balancer() -> impl Strategy<Value = LoadBalancer> {
    let mode = prop::sample::select(&[IngressMode::Vip, IngressMode::Proxy]);
    let ips = vec((address(30..33), mode).prop_map(|(ip, mode)| LoadBalancerIp { ip, mode }), 0..2);
    ips.prop_map(|ips| LoadBalancer { ips, source_ranges: Vec::new(), health_check_port: None })
}

fn traffic() -> impl Strategy<Value = Traffic> {
    let policy = || prop::sample::select(&[TrafficPolicy::Cluster, TrafficPolicy::Local]);
    let affinity = prop_oneof![
        2 => Just(Affinity::None),
        1 => (1..20_u32).prop_map(|timeout_seconds| Affinity::ClientIp { timeout_seconds }),
    ];
    (policy(), policy(), affinity).prop_map(|(internal, external, affinity)| Traffic {
        internal,
        external,
        affinity,
    })
}

fn service_port() -> impl Strategy<Value = ServicePort> {
    (port_name(), protocol(), 80..83_u16, option::of(30000..30003_u16))
        .prop_map(|(name, protocol, port, node_port)| ServicePort { name, protocol, port, node_port })
}

fn endpoint_port() -> impl Strategy<Value = EndpointPort> {
    (port_name(), protocol(), 8080..8083_u16).prop_map(|(name, protocol, port)| EndpointPort {
        name,
        protocol,
        port,
    })
}

fn port_name() -> impl Strategy<Value = Name> {
    prop::sample::select(&["", "http", "dns"]).prop_map(Name::from)
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![5 => Just(Protocol::Tcp), 4 => Just(Protocol::Udp), 1 => Just(Protocol::Sctp)]
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (pod_address(), conditions(), option::of(node_name()), option::of(zone()), option::of(0..3_u8)).prop_map(
        |(address, conditions, node, zone, hostname)| Endpoint {
            address,
            conditions,
            location: Location::new(node, zone),
            hostname: hostname.map(|number| format!("h{number}").into()),
            hints: None,
            pod: None,
        },
    )
}

fn pod_address() -> impl Strategy<Value = IpAddr> {
    (1..8_u8, prop::bool::weighted(0.3)).prop_map(|(last, six)| match six {
        false => IpAddr::V4(Ipv4Addr::new(10, 244, 0, last)),
        true => IpAddr::V6(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 1, last.into())),
    })
}

fn conditions() -> impl Strategy<Value = Conditions> {
    prop_oneof![
        5 => Just(Conditions::READY),
        1 => Just(Conditions { ready: false, serving: false, terminating: false }),
        2 => any::<bool>().prop_map(|serving| Conditions { ready: false, serving, terminating: true }),
    ]
}

/// The API server refuses two ports of one name, or of one number and protocol.
fn unique(ports: Vec<ServicePort>) -> Vec<ServicePort> {
    let mut kept: Vec<ServicePort> = Vec::new();
    for port in ports {
        let clashes = |other: &ServicePort| {
            let same_number = (other.port, other.protocol) == (port.port, port.protocol);
            let same_node_port = other.node_port.is_some()
                && (other.node_port, other.protocol) == (port.node_port, port.protocol);
            other.name == port.name || same_number || same_node_port
        };
        if !kept.iter().any(clashes) {
            kept.push(port);
        }
    }
    kept
}

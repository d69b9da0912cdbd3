//! Builders and proptest strategies for the tests of every crate (feature `testing`).
//!
//! Builders take text and panic on text that is wrong: a test that is wrong must fail at once.

mod strategies;

use std::net::IpAddr;
use std::sync::Arc;

pub use strategies::{endpoint_slices, events, nodes, relist, services};

use crate::{
    Affinity, Cluster, ClusterIps, Conditions, Endpoint, EndpointPort, EndpointSlice, Event, IngressMode,
    Kind, LoadBalancer, LoadBalancerIp, Location, Node, Object, ObjectName, Protocol, Service, ServiceKind,
    ServicePort, Snapshot, Traffic,
};

/// `"namespace/name"`, or a name in `default`.
pub fn name(text: &str) -> ObjectName {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    ObjectName::new(namespace, name)
}

/// An address.
pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is not an address"))
}

/// A ClusterIP service with these addresses and no port yet; no address makes it pending.
pub fn service(full_name: &str, cluster_ips: &[&str]) -> Service {
    Service {
        name: name(full_name),
        created: 0,
        kind: ServiceKind::ClusterIp,
        cluster_ips: ClusterIps::Addresses(cluster_ips.iter().map(|text| ip(text)).collect()),
        ports: Vec::new(),
        external_ips: Vec::new(),
        load_balancer: LoadBalancer::default(),
        traffic: Traffic::default(),
        publish_not_ready: false,
        proxied_elsewhere: false,
    }
}

/// A headless service without a port yet.
pub fn headless(full_name: &str) -> Service {
    Service { cluster_ips: ClusterIps::Headless, ..service(full_name, &[]) }
}

/// An ExternalName service.
pub fn external_name(full_name: &str, target: &str) -> Service {
    Service { kind: ServiceKind::ExternalName(target.into()), ..service(full_name, &[]) }
}

impl Service {
    /// Adds a port, written `name:80/TCP`, `80/UDP` or `http:80/TCP:30080` with a node port.
    #[must_use]
    pub fn port(mut self, text: &str) -> Self {
        self.ports.push(service_port(text));
        if self.kind == ServiceKind::ClusterIp && self.ports.iter().any(|port| port.node_port.is_some()) {
            self.kind = ServiceKind::NodePort;
        }
        self
    }

    /// Sets ClientIP affinity.
    #[must_use]
    pub fn client_ip(mut self, timeout_seconds: u32) -> Self {
        self.traffic.affinity = Affinity::ClientIp { timeout_seconds };
        self
    }

    /// Sets the creation time, in seconds.
    #[must_use]
    pub fn created(mut self, seconds: i64) -> Self {
        self.created = seconds;
        self
    }

    /// Adds a load-balancer address that the node captures.
    #[must_use]
    pub fn load_balancer_ip(mut self, text: &str) -> Self {
        self.kind = ServiceKind::LoadBalancer;
        self.load_balancer.ips.push(LoadBalancerIp { ip: ip(text), mode: IngressMode::Vip });
        self
    }
}

/// A service port, as [`Service::port`] reads it.
pub fn service_port(text: &str) -> ServicePort {
    let (number, rest) = text.split_once('/').unwrap_or_else(|| panic!("{text:?} lacks a protocol"));
    let (port_name, port) = number.split_once(':').unwrap_or(("", number));
    let (transport, node_port) = match rest.split_once(':') {
        Some((transport, node_port)) => (transport, Some(node_port)),
        None => (rest, None),
    };
    ServicePort {
        name: port_name.into(),
        protocol: protocol(transport),
        port: port_number(port),
        node_port: node_port.map(port_number),
    }
}

/// A slice of a service in the same namespace, without ports or endpoints yet. The slice's own name may have
/// no namespace written: it is that of the service.
pub fn slice(slice_name: &str, service_name: &str) -> EndpointSlice {
    let service = name(service_name);
    EndpointSlice {
        name: ObjectName::new(service.namespace, slice_name),
        service: service.name,
        ports: Vec::new(),
        endpoints: Vec::new(),
    }
}

impl EndpointSlice {
    /// Adds a port, written `name:8080/TCP` or `8080/UDP`.
    #[must_use]
    pub fn port(mut self, text: &str) -> Self {
        let ServicePort { name, protocol, port, .. } = service_port(text);
        self.ports.push(EndpointPort { name, protocol, port });
        self
    }

    /// Adds an endpoint.
    #[must_use]
    pub fn with(mut self, endpoint: Endpoint) -> Self {
        self.endpoints.push(endpoint);
        self
    }

    /// Adds ready endpoints on no node.
    #[must_use]
    pub fn ready(mut self, addresses: &[&str]) -> Self {
        self.endpoints.extend(addresses.iter().map(|address| endpoint(address)));
        self
    }
}

/// A ready endpoint on no node.
pub fn endpoint(address: &str) -> Endpoint {
    Endpoint {
        address: ip(address),
        conditions: Conditions::READY,
        location: None,
        hostname: None,
        hints: None,
        pod: None,
    }
}

impl Endpoint {
    /// Puts it on a node.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.location = Location::new(Some(node.into()), self.zone().cloned());
        self
    }

    /// Gives it a hostname.
    #[must_use]
    pub fn hostname(mut self, hostname: &str) -> Self {
        self.hostname = Some(hostname.into());
        self
    }

    /// Not ready and not serving.
    #[must_use]
    pub fn not_ready(mut self) -> Self {
        self.conditions = Conditions { ready: false, serving: false, terminating: false };
        self
    }

    /// Terminating, and serving or not.
    #[must_use]
    pub fn terminating(mut self, serving: bool) -> Self {
        self.conditions = Conditions { ready: false, serving, terminating: true };
        self
    }
}

/// A node with these addresses.
pub fn node(node_name: &str, addresses: &[&str]) -> Node {
    Node {
        name: node_name.into(),
        zone: None,
        addresses: addresses.iter().map(|text| ip(text)).collect(),
        pod_cidrs: Vec::new(),
        leaving: false,
    }
}

/// The snapshot of a cluster whose lists are complete and hold exactly these objects.
pub fn snapshot(objects: impl IntoIterator<Item = Object>) -> Arc<Snapshot> {
    listed(objects).snapshot()
}

/// The cluster whose lists are complete and hold exactly these objects.
pub fn listed(objects: impl IntoIterator<Item = Object>) -> Cluster {
    let mut cluster = Cluster::new();
    for kind in Kind::ALL {
        cluster.apply(Event::Replace(kind, Vec::new()));
    }
    for object in objects {
        cluster.apply(Event::Apply(object));
    }
    cluster
}

impl From<Service> for Object {
    fn from(service: Service) -> Self {
        Self::Service(service)
    }
}

impl From<EndpointSlice> for Object {
    fn from(slice: EndpointSlice) -> Self {
        Self::EndpointSlice(slice)
    }
}

impl From<Node> for Object {
    fn from(node: Node) -> Self {
        Self::Node(node)
    }
}

fn protocol(text: &str) -> Protocol {
    match text {
        "TCP" => Protocol::Tcp,
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => panic!("{text:?} is not a protocol"),
    }
}

fn port_number(text: &str) -> u16 {
    text.parse().ok().filter(|&port| port != 0).unwrap_or_else(|| panic!("{text:?} is not a port"))
}

//! What one Service says in DNS, boiled down from its Member: the unit in which the zone changes. Pure.
//! Built by `names` for each service that changed; read by `zone` and `answer`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::{ClusterIps, Endpoint, Member, Name, ObjectName, Protocol, ServiceKind};

use crate::name::DomainName;

/// Everything at and below the name of one Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The Service.
    pub name: ObjectName,
    /// What stands there.
    pub shape: Shape,
}

/// The kinds of services that DNS tells apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Has cluster IPs.
    Cluster(ClusterNames),
    /// Stands for its endpoints.
    Headless(HeadlessNames),
    /// An alias; None where the target cannot be a domain name.
    External(Option<DomainName>),
}

/// The names of a Service with cluster IPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNames {
    /// Its addresses, never empty.
    pub addresses: Vec<IpAddr>,
    /// Its ports as clients dial them.
    pub ports: Vec<Port>,
    /// False: this node's data plane could not take it, so its names answer SERVFAIL.
    pub programmed: bool,
    /// Somebody else programs it (R15): its names do not wait for this node's data plane.
    pub elsewhere: bool,
}

/// One port of a Service with cluster IPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// The port's name; "" has no SRV name of its own.
    pub name: Name,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The number. Host byte order.
    pub number: u16,
}

/// The names of a headless Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadlessNames {
    /// The published endpoints, ordered by label and address.
    pub hosts: Vec<Host>,
    /// Its ports.
    pub ports: Vec<HeadlessPort>,
}

/// One published endpoint of a headless Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Host {
    /// Its hostname, or its address with dashes.
    pub label: Name,
    /// Its address.
    pub address: IpAddr,
}

/// One port of a headless Service and where it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadlessPort {
    /// The port's name; "" has no SRV name of its own.
    pub name: Name,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The label of a host and the number it serves on, each pair once, in order.
    pub targets: Vec<(Name, u16)>,
}

impl Bundle {
    /// What `member` says; None where it says nothing: a cluster IP has yet to be allocated.
    pub fn new(member: &Member, programmed: bool) -> Option<Self> {
        let service = &member.service;
        let shape = match (&service.kind, &service.cluster_ips) {
            (ServiceKind::ExternalName(target), _) => Shape::External(DomainName::parse(target)),
            (_, ClusterIps::Headless) => Shape::Headless(HeadlessNames::new(member)),
            (_, ClusterIps::Addresses(addresses)) if addresses.is_empty() => return None,
            (_, ClusterIps::Addresses(addresses)) => {
                Shape::Cluster(ClusterNames::new(member, addresses, programmed))
            }
        };
        Some(Self { name: service.name.clone(), shape })
    }

    /// What may be said of a service between "DNS forgets" and "DNS learns": `self` is said now, `next` is
    /// what will be. Nothing is said here that was not said before, unless it needs no programming.
    pub fn forget(&self, next: &Self) -> Self {
        let (Shape::Cluster(now), Shape::Cluster(then)) = (&self.shape, &next.shape) else {
            return if next.waits() { self.clone() } else { next.clone() };
        };
        if then.elsewhere {
            return next.clone();
        }
        Self { name: self.name.clone(), shape: Shape::Cluster(now.forget(then)) }
    }

    /// Whether its names may be said only once the data plane has grown.
    pub fn waits(&self) -> bool {
        match &self.shape {
            Shape::Cluster(names) => !names.elsewhere,
            Shape::Headless(_) | Shape::External(_) => false,
        }
    }

    /// The addresses whose reverse names lead here, in no order and perhaps repeated.
    pub fn addresses(&self) -> Vec<IpAddr> {
        match &self.shape {
            Shape::Cluster(names) => names.addresses.clone(),
            Shape::Headless(names) => names.hosts.iter().map(|host| host.address).collect(),
            Shape::External(_) => Vec::new(),
        }
    }

    /// Whether a port of this protocol has a name of its own, so that `_proto` exists below the service.
    pub fn has_protocol(&self, protocol: Protocol) -> bool {
        match &self.shape {
            Shape::Cluster(names) => names.ports.iter().any(|p| p.protocol == protocol && !p.name.is_empty()),
            Shape::Headless(names) => {
                names.ports.iter().any(|p| p.protocol == protocol && !p.name.is_empty())
            }
            Shape::External(_) => false,
        }
    }

    /// The position of the port `_port._proto`, in lower case without underscores.
    pub fn port(&self, name: &[u8], protocol: Protocol) -> Option<usize> {
        let is_it = |candidate: &Name, of: Protocol| {
            of == protocol && !candidate.is_empty() && candidate.as_bytes().eq_ignore_ascii_case(name)
        };
        match &self.shape {
            Shape::Cluster(names) => names.ports.iter().position(|p| is_it(&p.name, p.protocol)),
            Shape::Headless(names) => names.ports.iter().position(|p| is_it(&p.name, p.protocol)),
            Shape::External(_) => None,
        }
    }
}

impl ClusterNames {
    fn new(member: &Member, addresses: &[IpAddr], programmed: bool) -> Self {
        let elsewhere = member.service.proxied_elsewhere;
        let ports = member.service.ports.iter();
        let ports =
            ports.map(|p| Port { name: p.name.clone(), protocol: p.protocol, number: p.port }).collect();
        Self { addresses: addresses.to_vec(), ports, programmed: programmed || elsewhere, elsewhere }
    }

    /// Drops what `then` no longer has at all. An address or number that merely changes stays until the new
    /// one is programmed; the data plane shrinks only after that.
    fn forget(&self, then: &Self) -> Self {
        let family_stays = |ip: &&IpAddr| then.addresses.iter().any(|new| new.is_ipv4() == ip.is_ipv4());
        let port_stays = |port: &&Port| {
            then.ports.iter().any(|new| new.name == port.name && new.protocol == port.protocol)
        };
        let addresses: Vec<IpAddr> = self.addresses.iter().filter(family_stays).copied().collect();
        let ports = self.ports.iter().filter(port_stays).cloned().collect();
        // One that moves from one family to the other keeps the old until the new is learned.
        let addresses = if addresses.is_empty() { self.addresses.clone() } else { addresses };
        Self { addresses, ports, programmed: self.programmed, elsewhere: self.elsewhere }
    }
}

impl HeadlessNames {
    fn new(member: &Member) -> Self {
        let published = |ready: bool| ready || member.service.publish_not_ready;
        // R11: an address that two slices have counts once, and as ready if either says so; the first slice
        // that publishes it gives its name.
        let mut labels: BTreeMap<IpAddr, Name> = BTreeMap::new();
        for endpoint in member.all_endpoints().filter(|e| published(e.conditions.ready)) {
            labels.entry(endpoint.address).or_insert_with(|| label(endpoint));
        }
        let ports = member.service.ports.iter().map(|port| {
            let serving = member.endpoints(port, "").into_iter();
            let serving = serving.filter(|e| published(e.conditions.ready));
            let mut targets: Vec<(Name, u16)> =
                serving.filter_map(|e| labels.get(&e.address).map(|label| (label.clone(), e.port))).collect();
            // Both addresses of a dual-stack pod are one host: one record.
            targets.sort_unstable();
            targets.dedup();
            HeadlessPort { name: port.name.clone(), protocol: port.protocol, targets }
        });
        let ports = ports.collect();
        let mut hosts: Vec<Host> =
            labels.into_iter().map(|(address, label)| Host { label, address }).collect();
        hosts.sort_unstable();
        Self { hosts, ports }
    }

    /// The hosts with one label, in lower case: the position of the first, and how many.
    pub fn host(&self, label: &[u8]) -> (usize, usize) {
        let first = self.hosts.partition_point(|host| host.label.as_bytes() < label);
        (first, self.hosts[first..].partition_point(|host| host.label.as_bytes() == label))
    }
}

/// The name an endpoint has below its headless service: its hostname, else its address with dashes for
/// dots and colons, as CoreDNS forms it.
fn label(endpoint: &Endpoint) -> Name {
    match &endpoint.hostname {
        Some(hostname) if !hostname.is_empty() && hostname.len() <= 63 => {
            hostname.to_ascii_lowercase().into()
        }
        Some(_) | None => endpoint.address.to_string().replace(['.', ':'], "-").into(),
    }
}

//! What one Service puts into the Tables: its frontends and its service ports (R3, R5, R14 to R16). A pure
//! function of the service, its endpoints and this node's facts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ebpf::backend::{CLUSTER, LOCAL};
use ebpf::frontend::FrontendWord;
use ipnet::IpNet;
use model::{Affinity, IngressMode, Member, Protocol, Service, ServicePort, TrafficPolicy};

use crate::health::{HealthPort, health_port};
use crate::plan::Facts;
use crate::select::select;
use crate::tables::{Block, Family, Frontend, ServiceKey, Slot};

/// The DNS port (RFC 1035).
const DNS: u16 = 53;

/// What one Service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Contribution {
    /// Its frontends, with the service port and the flags.
    pub(crate) frontends: BTreeMap<Frontend, (ServiceKey, u16)>,
    /// Its service ports.
    pub(crate) services: BTreeMap<ServiceKey, Arc<Block>>,
    /// The addresses that are this service's alone: every other port of them refuses.
    pub(crate) owned: Vec<IpAddr>,
    /// Its health-check node port.
    pub(crate) health: Option<HealthPort>,
    /// Who may use the load-balancer addresses of its service ports, where not everybody may (R13).
    pub(crate) sources: BTreeMap<ServiceKey, Vec<IpNet>>,
    /// Why it is left out as a whole.
    pub(crate) skipped: Option<Skip>,
    /// It has SCTP ports, which are not programmed.
    pub(crate) sctp: bool,
}

/// R15: why a Service has no frontends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Skip {
    /// `clusterIP: None`.
    Headless,
    /// Only a DNS alias.
    ExternalName,
    /// No cluster IP has been allocated.
    NoClusterIp,
    /// Labelled `service.kubernetes.io/service-proxy-name`.
    ProxiedElsewhere,
}

impl Skip {
    /// Its name in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Headless => "headless",
            Self::ExternalName => "external_name",
            Self::NoClusterIp => "no_cluster_ip",
            Self::ProxiedElsewhere => "proxied_elsewhere",
        }
    }
}

/// Why the service is not programmed, if it is not.
pub(crate) fn skip(service: &Service) -> Option<Skip> {
    if service.proxied_elsewhere {
        return Some(Skip::ProxiedElsewhere);
    }
    if service.external_name().is_some() {
        return Some(Skip::ExternalName);
    }
    if service.is_headless() {
        return Some(Skip::Headless);
    }
    service.cluster_ips().is_empty().then_some(Skip::NoClusterIp)
}

/// What `member` asks for on this node.
pub(crate) fn contribute(member: &Member, facts: &Facts) -> Contribution {
    let service = &member.service;
    if let Some(reason) = skip(service) {
        return Contribution { skipped: Some(reason), ..Contribution::default() };
    }
    // Where the daemon answers itself, the node has the address, and answers go to any port of it.
    let owned = service.cluster_ips().iter().copied().filter(|ip| !facts.cluster_dns.contains(ip));
    let (owned, health) = (owned.collect(), health_port(member, facts));
    let mut contribution = Contribution { owned, health, ..Contribution::default() };
    for port in &service.ports {
        if port.protocol == Protocol::Sctp {
            contribution.sctp = true;
            continue;
        }
        for (frontend, flags) in frontends(service, port, facts) {
            let key = service_key(service, port, Family::of(frontend.ip));
            contribution
                .services
                .entry(key.clone())
                .or_insert_with(|| Arc::new(block(member, port, &key, facts)));
            if flags & FrontendWord::GUARDED != 0 {
                contribution.sources.insert(key.clone(), sources(service, key.family));
            }
            contribution.frontends.entry(frontend).or_insert((key, flags));
        }
    }
    contribution
}

/// The service port in the maps.
pub(crate) fn service_key(service: &Service, port: &ServicePort, family: Family) -> ServiceKey {
    ServiceKey::new(service.name.clone(), port.name.clone(), port.protocol, family)
}

fn frontends(service: &Service, port: &ServicePort, facts: &Facts) -> Vec<(Frontend, u16)> {
    let families: Vec<Family> = service.cluster_ips().iter().copied().map(Family::of).collect();
    let mut found = Vec::new();
    for &ip in service.cluster_ips() {
        found.push((Frontend::new(ip, port.port, port.protocol), cluster_ip_flags(service, ip, port, facts)));
    }
    // R3 and R5: pods and the node go to the cluster set; only packets from outside obey the policy.
    let outside = match service.traffic.external {
        TrafficPolicy::Local => FrontendWord::PACKET_LOCAL,
        TrafficPolicy::Cluster => 0,
    };
    let vips = service.load_balancer.ips.iter().filter(|ip| ip.mode == IngressMode::Vip).map(|ip| ip.ip);
    for ip in service.external_ips.iter().copied() {
        found.push((Frontend::new(ip, port.port, port.protocol), outside));
    }
    for ip in vips {
        let guarded = if sources(service, Family::of(ip)).is_empty() { 0 } else { FrontendWord::GUARDED };
        found.push((Frontend::new(ip, port.port, port.protocol), outside | guarded));
    }
    if let Some(node_port) = port.node_port {
        let addresses = facts.node_port_addresses.iter().map(|&ip| (ip, outside));
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let loopback = loopback.map(|ip| (ip, FrontendWord::NODE_ONLY));
        for (ip, flags) in addresses.chain(loopback) {
            found.push((Frontend::new(ip, node_port, port.protocol), flags));
        }
    }
    found.retain(|(frontend, _)| families.contains(&Family::of(frontend.ip)));
    found
}

/// R13: the ranges of a family that may use the load-balancer addresses; none where all may.
fn sources(service: &Service, family: Family) -> Vec<IpNet> {
    let ranges = service.load_balancer.source_ranges.iter();
    let ranges: Vec<IpNet> =
        ranges.filter(|net| Family::of(net.addr()) == family).map(IpNet::trunc).collect();
    if ranges.iter().any(|net| net.prefix_len() == 0) { Vec::new() } else { ranges }
}

fn cluster_ip_flags(service: &Service, ip: IpAddr, port: &ServicePort, facts: &Facts) -> u16 {
    let policy = match service.traffic.internal {
        TrafficPolicy::Local => FrontendWord::SOCKET_LOCAL | FrontendWord::PACKET_LOCAL,
        TrafficPolicy::Cluster => 0,
    };
    policy | if answers_here(ip, port, facts) { FrontendWord::HERE_FIRST } else { 0 }
}

/// Whether the daemon of this node answers at this address itself.
fn answers_here(ip: IpAddr, port: &ServicePort, facts: &Facts) -> bool {
    port.port == DNS && facts.cluster_dns.contains(&ip)
}

fn block(member: &Member, port: &ServicePort, key: &ServiceKey, facts: &Facts) -> Block {
    let service = &member.service;
    let affinity_seconds = match service.traffic.affinity {
        Affinity::None => 0,
        Affinity::ClientIp { timeout_seconds } => timeout_seconds,
    };
    // A service without a Local policy has no use for a local window, and changes less without one.
    let local =
        service.traffic.internal == TrafficPolicy::Local || service.traffic.external == TrafficPolicy::Local;
    let mut endpoints = member.endpoints(port, &facts.name);
    endpoints.retain(|endpoint| Family::of(endpoint.address) == key.family);
    if service.cluster_ips().iter().any(|ip| answers_here(*ip, port, facts)) {
        // Others are asked only while the daemon of this node is away, and it is what is behind this address.
        endpoints.retain(|endpoint| !facts.addresses.contains(&endpoint.address));
    }
    let slots = select(&endpoints, &facts.name, facts.zone.as_deref()).into_iter().filter_map(|selected| {
        let windows = if selected.cluster.is_in() { CLUSTER } else { 0 }
            | if local && selected.local.is_in() { LOCAL } else { 0 };
        let endpoint = selected.endpoint;
        (windows != 0).then_some(Slot { ip: endpoint.address, port: endpoint.port, windows })
    });
    Block::new(affinity_seconds, slots.collect())
}

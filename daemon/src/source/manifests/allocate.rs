//! What the API server's allocators do: cluster IPs, node ports and health check ports for the services that
//! do not write them down.
//!
//! A value is chosen by a hash of the service's name, so that it is the same after a restart and does not
//! depend on what else is there, as long as two names do not meet. Where they meet, the service that has its
//! value keeps it, and after a restart the first by name has it; the other takes the next free one. What is
//! written always wins. Pure. Called by `desired.rs`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use model::{ClusterIps, ObjectName, Service};

use super::written::{Family, FamilyPolicy, NODE_PORTS, WrittenService};
use crate::source::report::{Problem, Reason};

/// Host bits beyond this many are not used: no cluster has more than 2^20 services, and numbers stay small.
const HOST_BITS_MAX: u8 = 32;

/// Where addresses come from.
#[derive(Clone, Debug)]
pub(crate) struct Ranges<'a> {
    /// One range of each family at most, the primary one first.
    pub(crate) cidrs: &'a [IpNet],
    /// Addresses with a purpose of their own, which no hash may hit.
    pub(crate) reserved: &'a [IpAddr],
}

/// Completes `services`, which are ordered by name. `held` is what a service has now.
pub(crate) fn allocate<'h>(
    services: &mut [WrittenService],
    ranges: &Ranges<'_>,
    held: impl Fn(&ObjectName) -> Option<&'h Service>,
) -> Vec<Problem> {
    let mut problems = addresses(services, ranges, &held);
    problems.extend(ports(services, &held));
    problems
}

/// The families that a service has, the primary one first (KEP-563).
pub(crate) fn families(service: &WrittenService, cidrs: &[IpNet]) -> Vec<Family> {
    let mut families: Vec<Family> = service.service.cluster_ips().iter().copied().map(Family::of).collect();
    let cluster = cidrs.iter().map(|cidr| Family::of(cidr.addr()));
    let wish = &service.families;
    families
        .extend(wish.written.iter().copied().filter(|family| !families.contains(family)).collect::<Vec<_>>());
    match wish.policy {
        FamilyPolicy::Single => {
            if families.is_empty() {
                families.extend(cluster.take(1));
            }
            // Two written addresses speak for themselves.
            families.truncate(service.service.cluster_ips().len().max(1));
        }
        FamilyPolicy::PreferDual | FamilyPolicy::RequireDual => {
            for family in cluster {
                if !families.contains(&family) {
                    families.push(family);
                }
            }
        }
    }
    families
}

fn addresses<'h>(
    services: &mut [WrittenService],
    ranges: &Ranges<'_>,
    held: &impl Fn(&ObjectName) -> Option<&'h Service>,
) -> Vec<Problem> {
    let mut taken: BTreeSet<IpAddr> = ranges.reserved.iter().copied().collect();
    taken.extend(services.iter().flat_map(|service| service.service.cluster_ips()));
    let mut missing = Vec::new();
    for (index, service) in services.iter_mut().enumerate().filter(|(_, service)| service.wants_addresses()) {
        let kept = held(&service.service.name).map(Service::cluster_ips).unwrap_or_default();
        for family in families(service, ranges.cidrs) {
            if has_family(&service.service, family) {
                continue;
            }
            let kept = kept.iter().copied().find(|ip| Family::of(*ip) == family);
            let usable =
                |ip: &IpAddr| ranges.cidrs.iter().any(|cidr| cidr.contains(ip)) && !taken.contains(ip);
            match kept.filter(usable) {
                Some(ip) => {
                    taken.insert(ip);
                    add_address(&mut service.service, ip);
                }
                None => missing.push((index, family)),
            }
        }
    }
    let mut problems = Vec::new();
    for (index, family) in missing {
        let Some(service) = services.get_mut(index) else { continue };
        let cidr = ranges.cidrs.iter().find(|cidr| Family::of(cidr.addr()) == family);
        match cidr.and_then(|cidr| free_address(cidr, &service.service.name, &taken)) {
            Some(ip) => {
                taken.insert(ip);
                add_address(&mut service.service, ip);
            }
            None => problems.push(no_address(&service.service.name, family, cidr)),
        }
    }
    for service in services.iter_mut() {
        order_addresses(service, ranges.cidrs);
    }
    problems
}

fn no_address(name: &ObjectName, family: Family, cidr: Option<&IpNet>) -> Problem {
    if let Some(cidr) = cidr {
        return Problem::new(Reason::Exhausted, format!("Service {name}: no address is left in {cidr}"));
    }
    let text =
        format!("Service {name}: spec.ipFamilies: the cluster has no {} service range", family.as_str());
    Problem::new(Reason::BadObject, text)
}

fn has_family(service: &Service, family: Family) -> bool {
    service.cluster_ips().iter().any(|ip| Family::of(*ip) == family)
}

fn add_address(service: &mut Service, ip: IpAddr) {
    match &mut service.cluster_ips {
        ClusterIps::Addresses(ips) => ips.push(ip),
        ClusterIps::Headless => {}
    }
}

/// The primary family comes first, whichever address was found first.
fn order_addresses(service: &mut WrittenService, cidrs: &[IpNet]) {
    if service.families.written.is_empty() && service.service.cluster_ips().len() < 2 {
        return;
    }
    let order = families(service, cidrs);
    if let ClusterIps::Addresses(ips) = &mut service.service.cluster_ips {
        ips.sort_by_key(|ip| order.iter().position(|family| *family == Family::of(*ip)));
    }
}

/// The free address nearest behind the hash. The first and the last address of the range are never given:
/// network and broadcast.
fn free_address(cidr: &IpNet, name: &ObjectName, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let bits = (cidr.max_prefix_len() - cidr.prefix_len()).min(HOST_BITS_MAX);
    let usable = (1_u64 << bits).checked_sub(2).filter(|count| *count > 0)?;
    let start = hash(&name.to_string()) % usable;
    // One address more than are taken is always free.
    let tries = usable.min(u64::try_from(taken.len()).unwrap_or(u64::MAX).saturating_add(1));
    (0..tries).map(|step| address_at(cidr, 1 + (start + step) % usable)).find(|ip| !taken.contains(ip))
}

/// The address `offset` behind the first one of the range.
pub(crate) fn address_at(cidr: &IpNet, offset: u64) -> IpAddr {
    match cidr.network() {
        IpAddr::V4(base) => {
            let offset = u32::try_from(offset).unwrap_or(u32::MAX);
            Ipv4Addr::from_bits(base.to_bits().saturating_add(offset)).into()
        }
        IpAddr::V6(base) => Ipv6Addr::from_bits(base.to_bits().saturating_add(offset.into())).into(),
    }
}

/// A port that somebody wants: of a service port, or for health checks.
#[derive(Clone, Copy)]
enum Wanted {
    Port(usize, usize),
    Health(usize),
}

fn ports<'h>(
    services: &mut [WrittenService],
    held: &impl Fn(&ObjectName) -> Option<&'h Service>,
) -> Vec<Problem> {
    let mut taken: BTreeSet<u16> =
        services.iter().flat_map(|service| written_ports(&service.service)).collect();
    let mut missing = Vec::new();
    for (index, service) in services.iter_mut().enumerate() {
        let kept = held(&service.service.name);
        for wanted in wanted_ports(index, service) {
            match kept
                .and_then(|kept| port_of(kept, &service.service, wanted))
                .filter(|port| taken.insert(*port))
            {
                Some(port) => set_port(&mut service.service, wanted, port),
                None => missing.push(wanted),
            }
        }
    }
    let mut problems = Vec::new();
    for wanted in missing {
        let (Wanted::Port(index, _) | Wanted::Health(index)) = wanted;
        let Some(service) = services.get_mut(index) else { continue };
        match free_port(&port_key(&service.service, wanted), &taken) {
            Some(port) => {
                taken.insert(port);
                set_port(&mut service.service, wanted, port);
            }
            None => {
                let text = format!("Service {}: no node port is left", service.service.name);
                problems.push(Problem::new(Reason::Exhausted, text));
            }
        }
    }
    problems
}

fn written_ports(service: &Service) -> impl Iterator<Item = u16> + '_ {
    let ports = service.ports.iter().filter_map(|port| port.node_port);
    ports.chain(service.load_balancer.health_check_port)
}

fn wanted_ports(index: usize, service: &WrittenService) -> Vec<Wanted> {
    let unset = service.service.ports.iter().enumerate().filter(|(_, port)| port.node_port.is_none());
    let mut wanted = Vec::new();
    if service.wants_node_ports {
        wanted.extend(unset.map(|(at, _)| Wanted::Port(index, at)));
    }
    if service.wants_health_port && service.service.load_balancer.health_check_port.is_none() {
        wanted.push(Wanted::Health(index));
    }
    wanted
}

/// What `kept`, the service as it is now, has for the same port.
fn port_of(kept: &Service, service: &Service, wanted: Wanted) -> Option<u16> {
    match wanted {
        Wanted::Health(_) => kept.load_balancer.health_check_port,
        Wanted::Port(_, at) => {
            let port = service.ports.get(at)?;
            let same =
                |other: &&model::ServicePort| (other.port, other.protocol) == (port.port, port.protocol);
            kept.ports.iter().find(same)?.node_port
        }
    }
}

fn set_port(service: &mut Service, wanted: Wanted, number: u16) {
    match wanted {
        Wanted::Health(_) => service.load_balancer.health_check_port = Some(number),
        Wanted::Port(_, at) => {
            if let Some(port) = service.ports.get_mut(at) {
                port.node_port = Some(number);
            }
        }
    }
}

fn port_key(service: &Service, wanted: Wanted) -> String {
    match wanted {
        Wanted::Health(_) => format!("{}:health", service.name),
        Wanted::Port(_, at) => match service.ports.get(at) {
            Some(port) => format!("{}:{}/{}", service.name, port.port, port.protocol),
            None => service.name.to_string(),
        },
    }
}

fn free_port(key: &str, taken: &BTreeSet<u16>) -> Option<u16> {
    let (first, last) = (*NODE_PORTS.start(), *NODE_PORTS.end());
    let count = u64::from(last - first) + 1;
    let start = hash(key) % count;
    let at = |step| u16::try_from((start + step) % count).ok().map(|offset| first + offset);
    (0..count).filter_map(at).find(|port| !taken.contains(port))
}

/// FNV-1a with a finish that spreads the low bits. It must never change: addresses depend on it.
pub(crate) fn hash(text: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in text.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

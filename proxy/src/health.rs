//! Health-check node ports (R7): which services have one, and how many ready endpoints each has on this node.
//! Pure; the daemon serves them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use imbl::OrdMap;
use model::{Member, ObjectName, ServiceKind, TrafficPolicy};

use crate::plan::Facts;
use crate::tables::Family;

/// The health-check node ports of all services. Cloning is O(1).
pub type HealthPorts = OrdMap<ObjectName, HealthPort>;

/// The health-check node port of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthPort {
    /// The port on this node. Host byte order.
    pub port: u16,
    /// The endpoints that are ready and on this node. Terminating ones do not count, whatever they serve: the
    /// load balancer is to send new connections elsewhere.
    pub local: usize,
    /// When the service was made: the older of two claimants has the port (R18).
    pub created: i64,
}

/// The health-check node port of `member`: only load balancers with policy Local have one.
pub(crate) fn health_port(member: &Member, facts: &Facts) -> Option<HealthPort> {
    let service = &member.service;
    let is_local = service.traffic.external == TrafficPolicy::Local;
    let port = service.load_balancer.health_check_port?;
    if !is_local || service.kind != ServiceKind::LoadBalancer {
        return None;
    }
    Some(HealthPort { port, local: local_ready(member, facts), created: service.created })
}

/// A pod of both families is one endpoint, and so is one with several ports.
fn local_ready(member: &Member, facts: &Facts) -> usize {
    let here = member
        .all_endpoints()
        .filter(|endpoint| endpoint.conditions.ready && endpoint.node() == Some(&facts.name));
    let addresses: BTreeSet<IpAddr> = here.map(|endpoint| endpoint.address).collect();
    let of = |family| addresses.iter().filter(|&&ip| Family::of(ip) == family).count();
    of(Family::V4).max(of(Family::V6))
}

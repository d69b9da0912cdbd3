//! Why a frontend leads where it leads: its service port, and every endpoint with the reason why it is in or
//! out. Pure; for `fairway explain`.

use std::net::IpAddr;
use std::sync::Arc;

use model::{Conditions, Hints, Member, Name, ObjectName, Snapshot};

use crate::plan::Facts;
use crate::select::{Standing, select};
use crate::tables::{Family, Frontend, ServiceKey, Tables, Target};

/// What a frontend is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Explanation {
    /// Nobody's: connections go where they are dialled.
    NoFrontend,
    /// An address of services, but not this port of it: refused.
    NoPort,
    /// A service port.
    Service(ServiceKey, u16, Vec<Explained>),
}

/// One endpoint of a service port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// Where it listens.
    pub ip: IpAddr,
    /// The port it listens on. Host byte order.
    pub port: u16,
    /// Its pod, where known.
    pub pod: Option<ObjectName>,
    /// Its node, where known.
    pub node: Option<Name>,
    /// Its zone, where known.
    pub zone: Option<Name>,
    /// Ready, serving, terminating: over all slices.
    pub conditions: Conditions,
    /// The zones and nodes that it is meant for.
    pub hints: Option<Arc<Hints>>,
    /// Its standing in the cluster window.
    pub cluster: Standing,
    /// Its standing in the local window.
    pub local: Standing,
    /// Out because it is of the other family.
    pub other_family: bool,
}

/// Explains what `tables` and `snapshot` say of a frontend on the node of `facts`.
pub fn explain(tables: &Tables, snapshot: &Snapshot, facts: &Facts, frontend: &Frontend) -> Explanation {
    match tables.frontends.get(frontend) {
        Some(Target::Service(key, flags)) => {
            let member = snapshot.services.get(&key.name);
            let endpoints = member.map(|member| endpoints(member, key, facts)).unwrap_or_default();
            Explanation::Service(key.clone(), *flags, endpoints)
        }
        Some(Target::Refuse) => Explanation::NoPort,
        None if tables.frontends.contains_key(&Frontend::any_port(frontend.ip)) => Explanation::NoPort,
        None => Explanation::NoFrontend,
    }
}

/// Every endpoint of a service port, of both families, and why it is in or out.
pub fn endpoints(member: &Member, key: &ServiceKey, facts: &Facts) -> Vec<Explained> {
    let ports = member.service.ports.iter();
    let Some(port) = ports.into_iter().find(|port| port.name == key.port && port.protocol == key.protocol)
    else {
        return Vec::new();
    };
    // Each family is selected on its own, as the planner does.
    let of_family = |family| {
        let mut found = member.endpoints(port, &facts.name);
        found.retain(|endpoint| Family::of(endpoint.address) == family);
        select(&found, &facts.name, facts.zone.as_deref()).into_iter().map(move |selected| {
            let written = selected.endpoint.endpoint;
            let pod = |pod: &str| ObjectName::new(key.name.namespace.clone(), pod);
            Explained {
                ip: selected.endpoint.address,
                port: selected.endpoint.port,
                pod: written.pod.as_deref().map(pod),
                node: written.node().cloned(),
                zone: written.zone().cloned(),
                conditions: selected.endpoint.conditions,
                hints: written.hints.clone(),
                cluster: selected.cluster,
                local: selected.local,
                other_family: family != key.family,
            }
        })
    };
    of_family(Family::V4).chain(of_family(Family::V6)).collect()
}

//! Objects as somebody wrote them: what the API server and the controllers need beyond the model's values.
//! Pure. Made by `text.rs`, read by `allocate.rs` and `controller.rs`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use model::{ClusterIps, Name, Object, Service, ServiceKind};

use crate::source::convert::{Fault, Wrong, dns_label, port};

/// Node ports lie in this range, as the API server's default has it.
pub(crate) const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// A good object of the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// A Service, to be completed.
    Service(WrittenService),
    /// Anything else is complete.
    Plain(Object),
}

/// A Service as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WrittenService {
    /// What is written, with the API's defaults; addresses and node ports may be missing.
    pub(crate) service: Service,
    /// `spec.selector`; empty for a service that has none.
    pub(crate) selector: BTreeMap<String, String>,
    /// `targetPort` of each port, in the order of the ports.
    pub(crate) targets: Vec<Target>,
    /// `spec.ipFamilies` and `spec.ipFamilyPolicy`.
    pub(crate) families: FamilyWish,
    /// `spec.allocateLoadBalancerNodePorts`, and the type has node ports.
    pub(crate) wants_node_ports: bool,
    /// A LoadBalancer with the external policy Local, which has a health check port (R7).
    pub(crate) wants_health_port: bool,
}

/// Where a service port leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// This number.
    Number(u16),
    /// The container port of this name, whatever its number in each pod.
    Name(Name),
}

/// An IP family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The families that a service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FamilyWish {
    /// `spec.ipFamilies`.
    pub(crate) written: Vec<Family>,
    /// `spec.ipFamilyPolicy`.
    pub(crate) policy: FamilyPolicy,
}

/// `spec.ipFamilyPolicy`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FamilyPolicy {
    /// One family.
    #[default]
    Single,
    /// Two where the cluster has two.
    PreferDual,
    /// Two.
    RequireDual,
}

impl Family {
    /// The family of an address.
    pub(crate) const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The word of the API.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

impl WrittenService {
    /// What `object` says beyond `service`, which was made of it.
    pub(crate) fn new(service: Service, object: &api::Service) -> Result<Self, Fault> {
        let spec = object.spec.as_ref().ok_or(Wrong::Missing.at("spec"))?;
        if service.ports.is_empty() && service.external_name().is_none() && !service.is_headless() {
            return Err(Wrong::Missing.at("spec.ports"));
        }
        for (index, port) in service.ports.iter().enumerate() {
            if port.node_port.is_some_and(|number| !NODE_PORTS.contains(&number)) {
                let wrong = Wrong::Clash("node ports lie in 30000 to 32767");
                return Err(wrong.at(format!("spec.ports[{index}].nodePort")));
            }
        }
        let balanced = service.kind == ServiceKind::LoadBalancer;
        let local = service.traffic.external == model::TrafficPolicy::Local;
        Ok(Self {
            selector: spec.selector.clone().unwrap_or_default(),
            targets: targets(spec)?,
            families: families(spec)?,
            wants_node_ports: service.kind == ServiceKind::NodePort
                || balanced && spec.allocate_load_balancer_node_ports.unwrap_or(true),
            wants_health_port: balanced && local,
            service,
        })
    }

    /// Wants cluster IPs at all.
    pub(crate) fn wants_addresses(&self) -> bool {
        self.service.external_name().is_none() && self.service.cluster_ips != ClusterIps::Headless
    }
}

fn targets(spec: &api::ServiceSpec) -> Result<Vec<Target>, Fault> {
    let written = spec.ports.as_deref().unwrap_or_default();
    written.iter().enumerate().map(|(index, from)| target(index, from)).collect()
}

fn target(index: usize, from: &api::ServicePort) -> Result<Target, Fault> {
    let field = || format!("spec.ports[{index}].targetPort");
    match &from.target_port {
        Some(IntOrString::String(name)) => {
            dns_label(name).map_err(|wrong| wrong.at(field()))?;
            Ok(Target::Name(name.as_str().into()))
        }
        // The API's default: the target port is the port.
        None | Some(IntOrString::Int(0)) => {
            port(from.port).map(Target::Number).map_err(|wrong| wrong.at(field()))
        }
        Some(IntOrString::Int(number)) => {
            port(*number).map(Target::Number).map_err(|wrong| wrong.at(field()))
        }
    }
}

fn families(spec: &api::ServiceSpec) -> Result<FamilyWish, Fault> {
    let mut written = Vec::new();
    for (index, text) in spec.ip_families.iter().flatten().enumerate() {
        let field = format!("spec.ipFamilies[{index}]");
        let family = match text.as_str() {
            "IPv4" => Family::V4,
            "IPv6" => Family::V6,
            other => return Err(Wrong::Word { found: other.to_owned(), known: "IPv4, IPv6" }.at(field)),
        };
        if written.contains(&family) {
            return Err(Wrong::Twice(text.clone()).at(field));
        }
        written.push(family);
    }
    let policy = match spec.ip_family_policy.as_deref() {
        None | Some("") if written.len() > 1 => FamilyPolicy::RequireDual,
        None | Some("" | "SingleStack") => FamilyPolicy::Single,
        Some("PreferDualStack") => FamilyPolicy::PreferDual,
        Some("RequireDualStack") => FamilyPolicy::RequireDual,
        Some(other) => {
            let known = "SingleStack, PreferDualStack, RequireDualStack";
            return Err(Wrong::Word { found: other.to_owned(), known }.at("spec.ipFamilyPolicy"));
        }
    };
    Ok(FamilyWish { written, policy })
}

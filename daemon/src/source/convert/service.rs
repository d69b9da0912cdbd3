//! Services. The fields that are judged here are those that a node programs or answers; any other may say what
//! it likes. An object is taken as a whole or refused with the field that is wrong.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::core::v1 as api;
use model::{
    Affinity, ClusterIps, IngressMode, Kind, LoadBalancer, LoadBalancerIp, Service, ServiceKind, ServicePort,
    Traffic, TrafficPolicy,
};

use super::{BadObject, Fault, Wrong, dns_label, dns_name, ip, label, net, object_name, port};
use crate::source::convert::value::{protocol, routable};

/// `sessionAffinityConfig.clientIP.timeoutSeconds` where it is not written: three hours.
const AFFINITY_TIMEOUT: i32 = 10_800;
/// The longest affinity timeout of the API: one day.
const AFFINITY_TIMEOUT_MAX: i32 = 86_400;
/// Somebody else programs a service with this label (R15).
const PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// The model's Service.
pub fn service(object: &api::Service) -> Result<Service, BadObject> {
    convert(object).map_err(|fault| fault.of(Kind::Service, &object.metadata))
}

fn convert(object: &api::Service) -> Result<Service, Fault> {
    let name = object_name(&object.metadata)?;
    dns_label(&name.name).map_err(|wrong| wrong.at("metadata.name"))?;
    let spec = object.spec.as_ref().ok_or(Wrong::Missing.at("spec"))?;
    let kind = kind(spec)?;
    let cluster_ips = match &kind {
        // Only a name: addresses that are left over from an earlier type mean nothing.
        ServiceKind::ExternalName(_) => ClusterIps::Addresses(Vec::new()),
        ServiceKind::ClusterIp | ServiceKind::NodePort | ServiceKind::LoadBalancer => cluster_ips(spec)?,
    };
    if cluster_ips == ClusterIps::Headless && has_node_ports(&kind) {
        return Err(
            Wrong::Clash("a headless service cannot be a NodePort or LoadBalancer").at("spec.clusterIP")
        );
    }
    Ok(Service {
        created: object.metadata.creation_timestamp.as_ref().map_or(0, |time| time.0.as_second()),
        ports: ports(spec, &kind)?,
        external_ips: addresses(
            spec.external_ips.as_deref().unwrap_or_default(),
            "spec.externalIPs",
            routable,
        )?,
        load_balancer: load_balancer(object, spec, &kind)?,
        traffic: traffic(spec)?,
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        proxied_elsewhere: label(&object.metadata, PROXY_NAME).is_some(),
        name,
        kind,
        cluster_ips,
    })
}

fn kind(spec: &api::ServiceSpec) -> Result<ServiceKind, Fault> {
    match spec.type_.as_deref() {
        None | Some("" | "ClusterIP") => Ok(ServiceKind::ClusterIp),
        Some("NodePort") => Ok(ServiceKind::NodePort),
        Some("LoadBalancer") => Ok(ServiceKind::LoadBalancer),
        Some("ExternalName") => external_name(spec).map_err(|wrong| wrong.at("spec.externalName")),
        Some(other) => {
            let known = "ClusterIP, NodePort, LoadBalancer, ExternalName";
            Err(Wrong::Word { found: other.to_owned(), known }.at("spec.type"))
        }
    }
}

fn external_name(spec: &api::ServiceSpec) -> Result<ServiceKind, Wrong> {
    let written = spec.external_name.as_deref().filter(|name| !name.is_empty()).ok_or(Wrong::Missing)?;
    let target = written.strip_suffix('.').unwrap_or(written);
    dns_name(target)?;
    Ok(ServiceKind::ExternalName(target.into()))
}

const fn has_node_ports(kind: &ServiceKind) -> bool {
    matches!(kind, ServiceKind::NodePort | ServiceKind::LoadBalancer)
}

fn cluster_ips(spec: &api::ServiceSpec) -> Result<ClusterIps, Fault> {
    let one = spec.cluster_ip.as_deref().filter(|text| !text.is_empty());
    let all = spec.cluster_ips.as_deref().unwrap_or_default();
    if let (Some(one), Some(first)) = (one, all.first())
        && one != first
    {
        return Err(Wrong::Clash("the first of clusterIPs must be clusterIP").at("spec.clusterIPs[0]"));
    }
    let (texts, field) = match one {
        Some(one) if all.is_empty() => (vec![one], "spec.clusterIP"),
        _ => (all.iter().map(String::as_str).collect(), "spec.clusterIPs"),
    };
    if texts == ["None"] {
        return Ok(ClusterIps::Headless);
    }
    let ips = addresses(&texts, field, ip)?;
    match ips.as_slice() {
        [] | [_] => Ok(ClusterIps::Addresses(ips)),
        [first, second] if first.is_ipv4() != second.is_ipv4() => Ok(ClusterIps::Addresses(ips)),
        _ => Err(Wrong::Clash("at most one address of each family").at(field)),
    }
}

fn addresses<T: AsRef<str>>(
    texts: &[T],
    field: &str,
    read: fn(&str) -> Result<IpAddr, Wrong>,
) -> Result<Vec<IpAddr>, Fault> {
    let single = field.ends_with("IP");
    let place = |index| if single { field.to_owned() } else { format!("{field}[{index}]") };
    let each = |(index, text): (usize, &T)| read(text.as_ref()).map_err(|wrong| wrong.at(place(index)));
    texts.iter().enumerate().map(each).collect()
}

fn ports(spec: &api::ServiceSpec, kind: &ServiceKind) -> Result<Vec<ServicePort>, Fault> {
    let written = spec.ports.as_deref().unwrap_or_default();
    let mut names = BTreeSet::new();
    let mut numbers = BTreeSet::new();
    let mut ports = Vec::with_capacity(written.len());
    for (index, object) in written.iter().enumerate() {
        let field = |name: &str| format!("spec.ports[{index}].{name}");
        let port = service_port(object, field)?;
        if port.node_port.is_some() && !has_node_ports(kind) {
            let wrong = Wrong::Clash("only a NodePort or LoadBalancer service has node ports");
            return Err(wrong.at(field("nodePort")));
        }
        // With several ports the name is what endpoints match by.
        if port.name.is_empty() && written.len() > 1 {
            return Err(Wrong::Missing.at(field("name")));
        }
        if !names.insert(port.name.clone()) {
            return Err(Wrong::Twice(format!("{:?}", &*port.name)).at(field("name")));
        }
        if !numbers.insert((port.port, port.protocol)) {
            return Err(Wrong::Twice(format!("{}/{}", port.port, port.protocol)).at(field("port")));
        }
        ports.push(port);
    }
    Ok(ports)
}

fn service_port(object: &api::ServicePort, field: impl Fn(&str) -> String) -> Result<ServicePort, Fault> {
    let name = object.name.as_deref().unwrap_or_default();
    if !name.is_empty() {
        dns_label(name).map_err(|wrong| wrong.at(field("name")))?;
    }
    let node_port = match object.node_port {
        None | Some(0) => None,
        Some(number) => Some(port(number).map_err(|wrong| wrong.at(field("nodePort")))?),
    };
    Ok(ServicePort {
        name: name.into(),
        protocol: protocol(object.protocol.as_deref()).map_err(|wrong| wrong.at(field("protocol")))?,
        port: port(object.port).map_err(|wrong| wrong.at(field("port")))?,
        node_port,
    })
}

fn load_balancer(
    object: &api::Service,
    spec: &api::ServiceSpec,
    kind: &ServiceKind,
) -> Result<LoadBalancer, Fault> {
    if *kind != ServiceKind::LoadBalancer {
        return Ok(LoadBalancer::default());
    }
    let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
    let mut ips = Vec::new();
    for (index, ingress) in ingress.iter().enumerate() {
        let Some(text) = ingress.ip.as_deref().filter(|text| !text.is_empty()) else { continue };
        let field = |name| format!("status.loadBalancer.ingress[{index}].{name}");
        let ip = ip(text).map_err(|wrong| wrong.at(field("ip")))?;
        let mode = ingress_mode(ingress.ip_mode.as_deref()).map_err(|wrong| wrong.at(field("ipMode")))?;
        ips.push(LoadBalancerIp { ip, mode });
    }
    let health_check_port = match spec.health_check_node_port {
        None | Some(0) => None,
        Some(number) => Some(port(number).map_err(|wrong| wrong.at("spec.healthCheckNodePort"))?),
    };
    Ok(LoadBalancer { ips, source_ranges: source_ranges(spec)?, health_check_port })
}

/// R13: blanks around a range are no fault.
fn source_ranges(spec: &api::ServiceSpec) -> Result<Vec<ipnet::IpNet>, Fault> {
    let written = spec.load_balancer_source_ranges.as_deref().unwrap_or_default();
    let place = |index| format!("spec.loadBalancerSourceRanges[{index}]");
    let each = |(index, text): (usize, &String)| net(text.trim()).map_err(|wrong| wrong.at(place(index)));
    written.iter().enumerate().map(each).collect()
}

fn ingress_mode(text: Option<&str>) -> Result<IngressMode, Wrong> {
    match text {
        None | Some("" | "VIP") => Ok(IngressMode::Vip),
        Some("Proxy") => Ok(IngressMode::Proxy),
        Some(other) => Err(Wrong::Word { found: other.to_owned(), known: "VIP, Proxy" }),
    }
}

fn traffic(spec: &api::ServiceSpec) -> Result<Traffic, Fault> {
    Ok(Traffic {
        internal: policy(spec.internal_traffic_policy.as_deref())
            .map_err(|wrong| wrong.at("spec.internalTrafficPolicy"))?,
        external: policy(spec.external_traffic_policy.as_deref())
            .map_err(|wrong| wrong.at("spec.externalTrafficPolicy"))?,
        affinity: affinity(spec)?,
    })
}

fn policy(text: Option<&str>) -> Result<TrafficPolicy, Wrong> {
    match text {
        None | Some("" | "Cluster") => Ok(TrafficPolicy::Cluster),
        Some("Local") => Ok(TrafficPolicy::Local),
        Some(other) => Err(Wrong::Word { found: other.to_owned(), known: "Cluster, Local" }),
    }
}

fn affinity(spec: &api::ServiceSpec) -> Result<Affinity, Fault> {
    match spec.session_affinity.as_deref() {
        None | Some("" | "None") => Ok(Affinity::None),
        Some("ClientIP") => {
            let config = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
            let written = config.and_then(|config| config.timeout_seconds).unwrap_or(AFFINITY_TIMEOUT);
            let valid = u32::try_from(written).ok().filter(|_| (1..=AFFINITY_TIMEOUT_MAX).contains(&written));
            let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            let timeout_seconds = valid.ok_or(Wrong::Timeout(written).at(field))?;
            Ok(Affinity::ClientIp { timeout_seconds })
        }
        Some(other) => {
            Err(Wrong::Word { found: other.to_owned(), known: "None, ClientIP" }.at("spec.sessionAffinity"))
        }
    }
}

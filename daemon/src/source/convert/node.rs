//! Nodes, Pods and Namespaces, as far as a node's network needs them. Pure; both sources call it, and consumers
//! trust what comes of it.

use k8s_openapi::api::core::v1 as api;
use model::{Kind, Name, Node, Pod};

use super::{BadObject, Fault, cluster_name, ip, label, net, object_name};

/// Which zone a node is in.
const ZONE: &str = "topology.kubernetes.io/zone";
/// The autoscaler's mark on a node that it is about to delete (R8).
const LEAVING: &str = "ToBeDeletedByClusterAutoscaler";

/// The model's Node.
pub fn node(object: &api::Node) -> Result<Node, BadObject> {
    convert_node(object).map_err(|fault| fault.of(Kind::Node, &object.metadata))
}

/// The model's Pod.
pub fn pod(object: &api::Pod) -> Result<Pod, BadObject> {
    convert_pod(object).map_err(|fault| fault.of(Kind::Pod, &object.metadata))
}

/// The name of a Namespace.
pub fn namespace(object: &api::Namespace) -> Result<Name, BadObject> {
    cluster_name(&object.metadata).map_err(|fault| fault.of(Kind::Namespace, &object.metadata))
}

fn convert_node(object: &api::Node) -> Result<Node, Fault> {
    let status = object.status.as_ref();
    let written = status.and_then(|status| status.addresses.as_deref()).unwrap_or_default();
    let mut addresses = Vec::new();
    for (index, address) in written.iter().enumerate().filter(|(_, address)| address.type_ == "InternalIP") {
        let field = || format!("status.addresses[{index}].address");
        addresses.push(ip(&address.address).map_err(|wrong| wrong.at(field()))?);
    }
    Ok(Node {
        name: cluster_name(&object.metadata)?,
        zone: label(&object.metadata, ZONE).filter(|zone| !zone.is_empty()).map(Name::from),
        addresses,
        pod_cidrs: object.spec.as_ref().map_or(Ok(Vec::new()), pod_cidrs)?,
        leaving: object.metadata.deletion_timestamp.is_some()
            || object
                .spec
                .iter()
                .flat_map(|spec| spec.taints.iter().flatten())
                .any(|taint| taint.key == LEAVING),
    })
}

fn pod_cidrs(spec: &api::NodeSpec) -> Result<Vec<ipnet::IpNet>, Fault> {
    let all = spec.pod_cidrs.as_deref().unwrap_or_default();
    match &spec.pod_cidr {
        Some(one) if all.is_empty() && !one.is_empty() => {
            Ok(vec![net(one).map_err(|wrong| wrong.at("spec.podCIDR"))?])
        }
        _ => {
            let place = |index| format!("spec.podCIDRs[{index}]");
            let each = |(index, text): (usize, &String)| net(text).map_err(|wrong| wrong.at(place(index)));
            all.iter().enumerate().map(each).collect()
        }
    }
}

fn convert_pod(object: &api::Pod) -> Result<Pod, Fault> {
    let spec = object.spec.as_ref();
    let labels = object.metadata.labels.iter().flatten();
    Ok(Pod {
        name: object_name(&object.metadata)?,
        addresses: object.status.as_ref().map_or(Ok(Vec::new()), pod_ips)?,
        labels: labels.map(|(key, value)| (key.as_str().into(), value.as_str().into())).collect(),
        node: spec.and_then(|spec| spec.node_name.as_deref()).map(Name::from),
        host_network: spec.and_then(|spec| spec.host_network).unwrap_or(false),
    })
}

fn pod_ips(status: &api::PodStatus) -> Result<Vec<std::net::IpAddr>, Fault> {
    // A pod that has ended keeps its addresses in the status although another pod may have them by now.
    if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
        return Ok(Vec::new());
    }
    let all = status.pod_ips.as_deref().unwrap_or_default();
    match &status.pod_ip {
        Some(one) if all.is_empty() && !one.is_empty() => {
            Ok(vec![ip(one).map_err(|wrong| wrong.at("status.podIP"))?])
        }
        _ => {
            let place = |index| format!("status.podIPs[{index}].ip");
            let each =
                |(index, item): (usize, &api::PodIP)| ip(&item.ip).map_err(|wrong| wrong.at(place(index)));
            all.iter().enumerate().map(each).collect()
        }
    }
}

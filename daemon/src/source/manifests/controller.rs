//! What the EndpointSlice controller does: the endpoints of a service with a selector are the running pods
//! that it selects. Pure. Called by `desired.rs`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::{
    Conditions, Endpoint, EndpointPort, EndpointSlice, Location, Name, Node, ObjectName, ServicePort,
};
use sandbox::Record;

use super::allocate::hash;
use super::written::{Family, Target, WrittenService};

/// Name, protocol and number of a port: what pods of one slice have in common.
type PortKey = (Name, &'static str, u16);

/// The slices of `service`: one for each family and each set of port numbers, because pods may have
/// different numbers for one name. `pods` are those of the service's namespace, all on `node`.
pub(crate) fn slices(
    service: &WrittenService,
    families: &[Family],
    pods: &[&Record],
    node: &Node,
) -> Vec<EndpointSlice> {
    if service.selector.is_empty() || service.service.external_name().is_some() {
        return Vec::new();
    }
    let mut groups: BTreeMap<(Family, Vec<PortKey>), Vec<Endpoint>> = BTreeMap::new();
    for pod in pods.iter().filter(|pod| is_selected(&service.selector, pod)) {
        let ports = ports(service, pod);
        for family in families {
            // The API's endpoints have one address of each family: the pod's first.
            let address = pod.addresses.iter().copied().find(|ip| Family::of(*ip) == *family);
            if let Some(address) = address {
                let endpoint = endpoint(service, pod, address, node);
                groups.entry((*family, key(&ports))).or_default().push(endpoint);
            }
        }
    }
    groups.into_iter().map(|((family, ports), endpoints)| slice(service, family, &ports, endpoints)).collect()
}

/// Every label of the selector is a label of the pod.
fn is_selected(selector: &BTreeMap<String, String>, pod: &Record) -> bool {
    selector.iter().all(|(key, value)| pod.labels.get(key) == Some(value))
}

/// The numbers of the service's ports in one pod; a name that the pod does not have is left out.
fn ports<'a>(service: &'a WrittenService, pod: &Record) -> Vec<(&'a ServicePort, u16)> {
    let pairs = service.service.ports.iter().zip(&service.targets);
    pairs.filter_map(|(port, target)| Some((port, number(port, target, pod)?))).collect()
}

fn number(port: &ServicePort, target: &Target, pod: &Record) -> Option<u16> {
    match target {
        Target::Number(number) => Some(*number),
        Target::Name(name) => {
            let named = |from: &&sandbox::ContainerPort| {
                from.name.as_deref() == Some(&**name)
                    && protocol_word(&from.protocol) == port.protocol.as_str()
            };
            pod.ports.iter().find(named).map(|from| from.container_port)
        }
    }
}

/// The API's default for a container port.
fn protocol_word(written: &str) -> &str {
    if written.is_empty() { "TCP" } else { written }
}

fn key(ports: &[(&ServicePort, u16)]) -> Vec<PortKey> {
    ports.iter().map(|(port, number)| (port.name.clone(), port.protocol.as_str(), *number)).collect()
}

fn endpoint(service: &WrittenService, pod: &Record, address: IpAddr, node: &Node) -> Endpoint {
    let name = &service.service.name.name;
    let has_subdomain = pod.subdomain.as_deref() == Some(&**name);
    Endpoint {
        address,
        conditions: Conditions {
            // A terminating pod is not ready, whatever its containers say (KEP-1672).
            ready: service.service.publish_not_ready || pod.ready && !pod.terminating,
            serving: pod.ready,
            terminating: pod.terminating,
        },
        location: Location::new(Some(node.name.clone()), node.zone.clone()),
        hostname: pod.hostname.as_deref().filter(|_| has_subdomain).map(Name::from),
        hints: None,
        pod: Some(pod.pod.name.as_str().into()),
    }
}

fn slice(
    service: &WrittenService,
    family: Family,
    ports: &[PortKey],
    mut endpoints: Vec<Endpoint>,
) -> EndpointSlice {
    endpoints.sort_by_key(|endpoint| endpoint.address);
    let name = &service.service.name;
    // The same ports make the same name, so that a pod that comes or goes changes one slice.
    let suffix = hash(&format!("{} {ports:?}", family.as_str())) & 0xffff_ffff;
    let written = service.service.ports.iter();
    let ports = written.filter_map(|port| {
        let (_, _, number) =
            ports.iter().find(|(name, word, _)| *name == port.name && *word == port.protocol.as_str())?;
        Some(EndpointPort { name: port.name.clone(), protocol: port.protocol, port: *number })
    });
    EndpointSlice {
        name: ObjectName::new(name.namespace.clone(), format!("{}-{suffix:08x}", name.name)),
        service: name.name.clone(),
        ports: ports.collect(),
        endpoints,
    }
}

//! EndpointSlices and legacy Endpoints. What R11 says to skip is skipped here, so that consumers never see it:
//! FQDN slices, ports without a number, endpoints without an address.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as api;
use model::{
    Conditions, Endpoint, EndpointPort, EndpointSlice, Endpoints, EndpointsSubset, Hints, Kind, Location,
    Name,
};

use super::value::{protocol, routable};
use super::{BadObject, Fault, Wrong, dns_label, label, object_name, port};

/// The service that a slice belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The model's EndpointSlice; None for one that says nothing to a node: without a service, or of names.
pub fn endpoint_slice(object: &api::EndpointSlice) -> Result<Option<EndpointSlice>, BadObject> {
    slice(object).map_err(|fault| fault.of(Kind::EndpointSlice, &object.metadata))
}

/// The model's legacy Endpoints.
pub fn endpoints(object: &core::Endpoints) -> Result<Endpoints, BadObject> {
    legacy(object).map_err(|fault| fault.of(Kind::Endpoints, &object.metadata))
}

fn slice(object: &api::EndpointSlice) -> Result<Option<EndpointSlice>, Fault> {
    let name = object_name(&object.metadata)?;
    let family = match object.address_type.as_str() {
        "IPv4" => Family::V4,
        "IPv6" => Family::V6,
        "FQDN" => return Ok(None),
        other => {
            let known = "IPv4, IPv6, FQDN";
            return Err(Wrong::Word { found: other.to_owned(), known }.at("addressType"));
        }
    };
    let Some(service) = label(&object.metadata, SERVICE_NAME).filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let mut endpoints = Vec::with_capacity(object.endpoints.len());
    for (index, written) in object.endpoints.iter().enumerate() {
        // Consumers read an endpoint's first address only, as the API asks.
        let Some(text) = written.addresses.first() else { continue };
        let field = format!("endpoints[{index}].addresses[0]");
        let address = routable(text).and_then(|ip| family.check(ip)).map_err(|wrong| wrong.at(field))?;
        endpoints.push(endpoint(address, written, &name.namespace, index)?);
    }
    let ports = slice_ports(object.ports.as_deref().unwrap_or_default())?;
    Ok(Some(EndpointSlice { service: service.into(), name, ports, endpoints }))
}

#[derive(Clone, Copy)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn check(self, ip: IpAddr) -> Result<IpAddr, Wrong> {
        match (self, ip) {
            (Self::V4, IpAddr::V4(_)) | (Self::V6, IpAddr::V6(_)) => Ok(ip),
            (Self::V4, IpAddr::V6(_)) => Err(Wrong::Family(ip, "IPv4")),
            (Self::V6, IpAddr::V4(_)) => Err(Wrong::Family(ip, "IPv6")),
        }
    }
}

fn endpoint(address: IpAddr, from: &api::Endpoint, namespace: &str, index: usize) -> Result<Endpoint, Fault> {
    let hostname = hostname(from.hostname.as_deref(), || format!("endpoints[{index}].hostname"))?;
    Ok(Endpoint {
        address,
        conditions: conditions(from.conditions.as_ref()),
        location: Location::new(name(from.node_name.as_deref()), name(from.zone.as_deref())),
        hostname,
        hints: from.hints.as_ref().and_then(hints),
        pod: from.target_ref.as_ref().and_then(|target| pod(target, namespace)),
    })
}

/// R1: what an unset condition means.
fn conditions(from: Option<&api::EndpointConditions>) -> Conditions {
    Conditions {
        ready: from.and_then(|from| from.ready).unwrap_or(true),
        serving: from.and_then(|from| from.serving).unwrap_or(true),
        terminating: from.and_then(|from| from.terminating).unwrap_or(false),
    }
}

fn hints(from: &api::EndpointHints) -> Option<Arc<Hints>> {
    let zones: Vec<Name> = from.for_zones.iter().flatten().map(|zone| zone.name.as_str().into()).collect();
    let nodes: Vec<Name> = from.for_nodes.iter().flatten().map(|node| node.name.as_str().into()).collect();
    (!zones.is_empty() || !nodes.is_empty()).then(|| Arc::new(Hints { zones, nodes }))
}

/// The pod behind an endpoint. One of another namespace cannot be: a Service selects in its own.
fn pod(target: &core::ObjectReference, namespace: &str) -> Option<Box<str>> {
    let is_here = target.namespace.as_deref().is_none_or(|written| written == namespace);
    if !is_here || target.kind.as_deref() != Some("Pod") {
        return None;
    }
    target.name.as_deref().filter(|name| !name.is_empty()).map(Box::from)
}

fn hostname(text: Option<&str>, field: impl Fn() -> String) -> Result<Option<Name>, Fault> {
    let Some(hostname) = text.filter(|text| !text.is_empty()) else { return Ok(None) };
    dns_label(hostname).map_err(|wrong| wrong.at(field()))?;
    Ok(Some(hostname.into()))
}

fn name(text: Option<&str>) -> Option<Name> {
    text.filter(|text| !text.is_empty()).map(Name::from)
}

fn slice_ports(written: &[api::EndpointPort]) -> Result<Vec<EndpointPort>, Fault> {
    let mut ports = Vec::with_capacity(written.len());
    for (index, from) in written.iter().enumerate() {
        let field = |name| format!("ports[{index}].{name}");
        let number = match from.port {
            None | Some(0) => continue,
            Some(number) => port(number).map_err(|wrong| wrong.at(field("port")))?,
        };
        ports.push(EndpointPort {
            name: from.name.as_deref().unwrap_or_default().into(),
            protocol: protocol(from.protocol.as_deref()).map_err(|wrong| wrong.at(field("protocol")))?,
            port: number,
        });
    }
    Ok(ports)
}

fn legacy(object: &core::Endpoints) -> Result<Endpoints, Fault> {
    let name = object_name(&object.metadata)?;
    let mut subsets = Vec::new();
    for (index, written) in object.subsets.iter().flatten().enumerate() {
        let mut endpoints = Vec::new();
        for (list, ready) in [("addresses", true), ("notReadyAddresses", false)] {
            let addresses = if ready { &written.addresses } else { &written.not_ready_addresses };
            for (at, from) in addresses.iter().flatten().enumerate() {
                let field = format!("subsets[{index}].{list}[{at}]");
                endpoints.push(legacy_address(from, ready, &name.namespace, &field)?);
            }
        }
        let ports = legacy_ports(written.ports.as_deref().unwrap_or_default(), index)?;
        subsets.push(EndpointsSubset { endpoints, ports });
    }
    Ok(Endpoints { name, subsets })
}

fn legacy_address(
    from: &core::EndpointAddress,
    ready: bool,
    namespace: &str,
    field: &str,
) -> Result<Endpoint, Fault> {
    Ok(Endpoint {
        address: routable(&from.ip).map_err(|wrong| wrong.at(format!("{field}.ip")))?,
        conditions: Conditions { ready, serving: ready, terminating: false },
        location: Location::new(name(from.node_name.as_deref()), None),
        hostname: hostname(from.hostname.as_deref(), || format!("{field}.hostname"))?,
        hints: None,
        pod: from.target_ref.as_ref().and_then(|target| pod(target, namespace)),
    })
}

fn legacy_ports(written: &[core::EndpointPort], subset: usize) -> Result<Vec<EndpointPort>, Fault> {
    let mut ports = Vec::with_capacity(written.len());
    for (index, from) in written.iter().enumerate() {
        let field = |name| format!("subsets[{subset}].ports[{index}].{name}");
        if from.port == 0 {
            continue;
        }
        ports.push(EndpointPort {
            name: from.name.as_deref().unwrap_or_default().into(),
            protocol: protocol(from.protocol.as_deref()).map_err(|wrong| wrong.at(field("protocol")))?,
            port: port(from.port).map_err(|wrong| wrong.at(field("port")))?,
        });
    }
    Ok(ports)
}

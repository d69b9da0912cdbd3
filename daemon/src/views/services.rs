//! `fairway get services`: each Service, its addresses and ports, its endpoints, and whether it is programmed.
//! Rows are made from the snapshot that names and tables reflect.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use model::{Conditions, IngressMode, Member, ObjectName, Service, ServiceKind, ServicePort, Snapshot};
use serde::{Deserialize, Serialize};

use crate::commands::table::table;

/// One Service.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRow {
    namespace: String,
    name: String,
    /// `ClusterIP`, `NodePort`, `LoadBalancer`, `ExternalName` or `Headless`.
    #[serde(rename = "type")]
    kind: String,
    /// Every address that clients dial, node addresses not included.
    addresses: Vec<IpAddr>,
    external_name: Option<String>,
    /// `name:80/TCP`, with `:30080` where it has a node port.
    ports: Vec<String>,
    /// Addresses that are ready.
    ready: usize,
    /// Addresses in any slice.
    endpoints: usize,
    /// `programmed`, `names only`, or why it is not programmed.
    state: String,
}

/// The rows of a snapshot; `unprogrammed` says why a service could not be programmed.
pub fn rows(snapshot: &Snapshot, unprogrammed: &BTreeMap<ObjectName, String>) -> Vec<ServiceRow> {
    snapshot.services.values().map(|member| row(member, unprogrammed)).collect()
}

/// The rows as a table.
pub fn text(rows: &[ServiceRow]) -> String {
    let cells = rows.iter().map(|row| {
        let dialled = match &row.external_name {
            Some(target) => target.clone(),
            None => join(&row.addresses),
        };
        vec![
            format!("{}/{}", row.namespace, row.name),
            row.kind.clone(),
            dialled,
            join(&row.ports),
            format!("{}/{}", row.ready, row.endpoints),
            row.state.clone(),
        ]
    });
    table(&["SERVICE", "TYPE", "ADDRESS", "PORTS", "READY", "STATE"], &cells.collect::<Vec<_>>())
}

fn row(member: &Member, unprogrammed: &BTreeMap<ObjectName, String>) -> ServiceRow {
    let service = &*member.service;
    let conditions = by_address(member);
    ServiceRow {
        namespace: service.name.namespace.to_string(),
        name: service.name.name.to_string(),
        kind: kind(service).to_owned(),
        addresses: addresses(service),
        external_name: service.external_name().map(ToString::to_string),
        ports: service.ports.iter().map(port).collect(),
        ready: conditions.values().filter(|conditions| conditions.ready).count(),
        endpoints: conditions.len(),
        state: unprogrammed.get(&service.name).cloned().unwrap_or_else(|| state(service).to_owned()),
    }
}

fn by_address(member: &Member) -> BTreeMap<IpAddr, Conditions> {
    let mut found: BTreeMap<IpAddr, Conditions> = BTreeMap::new();
    for endpoint in member.all_endpoints() {
        let known = found.entry(endpoint.address).or_insert(endpoint.conditions);
        known.ready |= endpoint.conditions.ready;
    }
    found
}

fn kind(service: &Service) -> &'static str {
    match &service.kind {
        _ if service.is_headless() => "Headless",
        ServiceKind::ClusterIp => "ClusterIP",
        ServiceKind::NodePort => "NodePort",
        ServiceKind::LoadBalancer => "LoadBalancer",
        ServiceKind::ExternalName(_) => "ExternalName",
    }
}

/// R15: what is only a name, and what somebody else programs.
fn state(service: &Service) -> &'static str {
    if service.proxied_elsewhere {
        "another proxy's"
    } else if service.is_headless() || service.external_name().is_some() {
        "names only"
    } else if service.cluster_ips().is_empty() {
        "without a cluster IP"
    } else {
        "programmed"
    }
}

fn addresses(service: &Service) -> Vec<IpAddr> {
    if service.external_name().is_some() {
        return Vec::new();
    }
    let captured = service.load_balancer.ips.iter().filter(|ip| ip.mode == IngressMode::Vip).map(|ip| ip.ip);
    let all = service.cluster_ips().iter().chain(&service.external_ips).copied().chain(captured);
    let mut seen = BTreeSet::new();
    all.filter(|ip| seen.insert(*ip)).collect()
}

fn port(port: &ServicePort) -> String {
    let name = if port.name.is_empty() { String::new() } else { format!("{}:", port.name) };
    let node_port = port.node_port.map(|number| format!(":{number}")).unwrap_or_default();
    format!("{name}{}/{}{node_port}", port.port, port.protocol)
}

fn join<T: ToString>(items: &[T]) -> String {
    if items.is_empty() {
        return "-".to_owned();
    }
    items.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use model::testing::{endpoint, external_name, headless, service, slice, snapshot};

    use super::*;

    #[test]
    fn a_row_says_what_is_dialled_and_how_many_endpoints_are_ready() {
        let snapshot = snapshot([
            service("shop/web", &["10.96.0.1"]).port("http:80/TCP:30080").into(),
            slice("a", "shop/web").port("http:8080/TCP").ready(&["10.244.0.1"]).into(),
            slice("b", "shop/web").port("http:9090/TCP").with(endpoint("10.244.0.2").not_ready()).into(),
            headless("shop/db").port("5432/TCP").into(),
            external_name("shop/bank", "bank.example").into(),
            service("shop/late", &["10.96.0.9"]).port("80/TCP").into(),
        ]);
        let unprogrammed = BTreeMap::from([(ObjectName::new("shop", "late"), "the map is full".to_owned())]);
        expect![[r#"
            SERVICE    TYPE          ADDRESS       PORTS              READY  STATE
            shop/bank  ExternalName  bank.example  -                  0/0    names only
            shop/db    Headless      -             5432/TCP           0/0    names only
            shop/late  ClusterIP     10.96.0.9     80/TCP             0/0    the map is full
            shop/web   NodePort      10.96.0.1     http:80/TCP:30080  1/2    programmed
        "#]]
        .assert_eq(&text(&rows(&snapshot, &unprogrammed)));
    }
}

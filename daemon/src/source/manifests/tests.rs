//! Tables: what is written in a folder, and what comes of it. The parts share the helpers below; no test here
//! touches a file.

use std::fmt::Write;

use expect_test::{Expect, expect};
use model::{Conditions, Endpoint, EndpointSlice, Event, Node, Object, Service, ServiceKind};
use sandbox::{ContainerPort, PodId, Record};

use super::desired::Desired;
use super::folder::Folder;
use super::{Cluster, load_texts};

fn cluster() -> Cluster {
    Cluster {
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        cluster_dns: None,
        node: Node {
            name: "a".into(),
            zone: None,
            addresses: vec!["192.0.2.1".parse().unwrap()],
            pod_cidrs: vec!["10.1.0.0/24".parse().unwrap()],
            leaving: false,
        },
    }
}

fn dual_cluster() -> Cluster {
    let service_cidrs = vec!["10.96.0.0/16".parse().unwrap(), "fd00:10:96::/112".parse().unwrap()];
    Cluster { service_cidrs, ..cluster() }
}

/// A ready pod of the namespace shop with the label app=web.
fn pod(name: &str, address: &str, ports: &[(&str, u16)]) -> Record {
    let port = |(name, number): &(&str, u16)| ContainerPort {
        name: Some((*name).to_owned()),
        container_port: *number,
        protocol: "TCP".to_owned(),
        host_port: None,
        host_ip: None,
    };
    Record {
        pod: PodId { namespace: "shop".to_owned(), name: name.to_owned() },
        labels: [("app".to_owned(), "web".to_owned())].into(),
        addresses: vec![address.parse().unwrap()],
        ports: ports.iter().map(port).collect(),
        hostname: None,
        subdomain: None,
        host_network: false,
        ready: true,
        terminating: false,
        pause: 1,
    }
}

/// What a cluster would have, without what every cluster has.
fn dump(events: &[Event]) -> String {
    let mut out = String::new();
    for event in events {
        match event {
            Event::Replace(_, objects) => objects.iter().for_each(|object| dump_object(object, &mut out)),
            Event::Apply(object) => dump_object(object, &mut out),
            Event::Delete(kind, name) => writeln!(out, "delete {} {name}", kind.as_str()).unwrap(),
        }
    }
    out
}

fn dump_object(object: &Object, out: &mut String) {
    match object {
        Object::Service(service) if is_default(service) => {}
        Object::Service(service) => dump_service(service, out),
        Object::EndpointSlice(slice) => dump_slice(slice, out),
        Object::Endpoints(endpoints) => {
            writeln!(out, "Endpoints {}", endpoints.name).unwrap();
            endpoints.slices().iter().for_each(|slice| dump_slice(slice, out));
        }
        Object::Namespace(name) if matches!(&**name, "default" | "kube-system") => {}
        Object::Node(node) if &*node.name == "a" => {}
        Object::Namespace(_) | Object::Node(_) => {
            writeln!(out, "{} {}", object.kind().as_str(), object.name()).unwrap();
        }
        Object::Pod(pod) => writeln!(out, "Pod {} {:?}", pod.name, pod.addresses).unwrap(),
    }
}

fn is_default(service: &Service) -> bool {
    matches!(service.name.to_string().as_str(), "default/kubernetes" | "kube-system/kube-dns")
}

fn dump_service(service: &Service, out: &mut String) {
    let kind = match &service.kind {
        ServiceKind::ClusterIp => "ClusterIP",
        ServiceKind::NodePort => "NodePort",
        ServiceKind::LoadBalancer => "LoadBalancer",
        ServiceKind::ExternalName(name) => name,
    };
    write!(out, "Service {} {kind} {:?}", service.name, service.cluster_ips).unwrap();
    for port in &service.ports {
        write!(out, " {}:{}/{}", port.name, port.port, port.protocol).unwrap();
        if let Some(node_port) = port.node_port {
            write!(out, "@{node_port}").unwrap();
        }
    }
    writeln!(out).unwrap();
}

fn dump_slice(slice: &EndpointSlice, out: &mut String) {
    write!(out, "EndpointSlice {} of {}:", slice.name, slice.service).unwrap();
    for port in &slice.ports {
        write!(out, " {}:{}/{}", port.name, port.port, port.protocol).unwrap();
    }
    writeln!(out).unwrap();
    for endpoint in &slice.endpoints {
        let Endpoint { address, conditions, hostname, pod, .. } = endpoint;
        let node = endpoint.node();
        let Conditions { ready, serving, terminating } = conditions;
        write!(out, "  {address} ready={ready} serving={serving} terminating={terminating}").unwrap();
        writeln!(out, " node={node:?} hostname={hostname:?} pod={pod:?}").unwrap();
    }
}

fn check(files: &[(&str, &str)], records: &[Record], expected: &Expect) {
    check_in(&cluster(), files, records, expected);
}

fn check_in(cluster: &Cluster, files: &[(&str, &str)], records: &[Record], expected: &Expect) {
    let (events, problems) = load_texts(files, records, cluster);
    let problems: String = problems.iter().map(|problem| format!("! {problem}\n")).collect();
    expected.assert_eq(&(dump(&events) + &problems));
}

mod controllers;
mod files;
mod objects;

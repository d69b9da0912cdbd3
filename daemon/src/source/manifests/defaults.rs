//! What every cluster has without anybody writing it: the Services `default/kubernetes` and
//! `kube-system/kube-dns`. Pure. Called by `desired.rs`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use model::{ClusterIps, LoadBalancer, ObjectName, Protocol, Service, ServiceKind, ServicePort, Traffic};

use super::allocate::address_at;
use super::written::{FamilyPolicy, FamilyWish, Target, WrittenService};

/// The port of the API server behind `default/kubernetes`, as kubeadm has it.
const API_SERVER_PORT: u16 = 6443;
/// Where in the service range the cluster's DNS is: the tenth address, as with kubeadm.
const DNS_OFFSET: u64 = 10;

/// The name of the API server's Service.
pub(crate) fn kubernetes_name() -> ObjectName {
    ObjectName::new("default", "kubernetes")
}

/// The name of the cluster DNS's Service.
pub(crate) fn kube_dns_name() -> ObjectName {
    ObjectName::new("kube-system", "kube-dns")
}

/// The first address of the service range is the API server's.
pub(crate) fn kubernetes_ip(cidr: &ipnet::IpNet) -> IpAddr {
    address_at(cidr, 1)
}

/// The cluster DNS IP of a cluster that says nothing about it.
pub(crate) fn kube_dns_ip(cidr: &ipnet::IpNet) -> IpAddr {
    address_at(cidr, DNS_OFFSET)
}

/// `default/kubernetes`, without endpoints: no API server is known.
pub(crate) fn kubernetes() -> WrittenService {
    written(kubernetes_name(), &[("https", Protocol::Tcp, 443, API_SERVER_PORT)])
}

/// `kube-system/kube-dns`; this daemon answers there.
pub(crate) fn kube_dns() -> WrittenService {
    written(kube_dns_name(), &[("dns", Protocol::Udp, 53, 53), ("dns-tcp", Protocol::Tcp, 53, 53)])
}

fn written(name: ObjectName, ports: &[(&str, Protocol, u16, u16)]) -> WrittenService {
    let service_port = |(name, protocol, port, _): &(&str, Protocol, u16, u16)| ServicePort {
        name: (*name).into(),
        protocol: *protocol,
        port: *port,
        node_port: None,
    };
    WrittenService {
        service: Service {
            name,
            created: 0,
            kind: ServiceKind::ClusterIp,
            cluster_ips: ClusterIps::Addresses(Vec::new()),
            ports: ports.iter().map(service_port).collect(),
            external_ips: Vec::new(),
            load_balancer: LoadBalancer::default(),
            traffic: Traffic::default(),
            publish_not_ready: false,
            proxied_elsewhere: false,
        },
        selector: BTreeMap::new(),
        targets: ports.iter().map(|(.., target)| Target::Number(*target)).collect(),
        families: FamilyWish { written: Vec::new(), policy: FamilyPolicy::Single },
        wants_node_ports: false,
        wants_health_port: false,
    }
}

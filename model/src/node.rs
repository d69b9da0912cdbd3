//! Nodes and Pods, as far as a node's network needs them. What a field of the API means is decided by the source
//! that fills them in.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::name::{Name, ObjectName};

/// A Node: facts of a machine of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: Name,
    /// The label `topology.kubernetes.io/zone`.
    pub zone: Option<Name>,
    /// `status.addresses` of type InternalIP, in order; the first of each family is the primary one.
    pub addresses: Vec<IpAddr>,
    /// `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// Being deleted, or tainted `ToBeDeletedByClusterAutoscaler` (R8).
    pub leaving: bool,
}

/// A Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Namespace and name.
    pub name: ObjectName,
    /// `status.podIPs`; empty before the sandbox has run.
    pub addresses: Vec<IpAddr>,
    /// `metadata.labels`.
    pub labels: BTreeMap<Name, Name>,
    /// `spec.nodeName`.
    pub node: Option<Name>,
    /// `spec.hostNetwork`: it has the node's addresses.
    pub host_network: bool,
}

impl Node {
    /// The first address of each family: what `--nodeport-addresses primary` means (R16).
    pub fn primary_addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        let first4 = self.addresses.iter().find(|ip| ip.is_ipv4());
        let first6 = self.addresses.iter().find(|ip| ip.is_ipv6());
        first4.into_iter().chain(first6).copied()
    }
}

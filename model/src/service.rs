//! A Service as its consumers need it: already checked, defaults filled in, nothing that nobody reads.
//!
//! Sources build these values and must reject what the types cannot say (a port of 0, an address that is
//! none); consumers trust them. The words are those of the Service API, `core/v1`.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;

use crate::name::{Name, ObjectName};

/// A Service of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace and name.
    pub name: ObjectName,
    /// `metadata.creationTimestamp` in seconds since the epoch, 0 where unknown. The older of two claimants
    /// of one address wins (R18).
    pub created: i64,
    /// `spec.type`.
    pub kind: ServiceKind,
    /// `spec.clusterIPs`.
    pub cluster_ips: ClusterIps,
    /// `spec.ports`, in the order written.
    pub ports: Vec<ServicePort>,
    /// `spec.externalIPs`.
    pub external_ips: Vec<IpAddr>,
    /// `status.loadBalancer` and what belongs to it.
    pub load_balancer: LoadBalancer,
    /// The traffic policies and session affinity.
    pub traffic: Traffic,
    /// `spec.publishNotReadyAddresses`: DNS publishes endpoints whatever their readiness.
    pub publish_not_ready: bool,
    /// Carries the label `service.kubernetes.io/service-proxy-name`: somebody else programs it (R15).
    pub proxied_elsewhere: bool,
}

/// `spec.type`. An ExternalName carries its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// Reachable inside the cluster.
    ClusterIp,
    /// Also on a port of every node.
    NodePort,
    /// Also on the addresses of a load balancer.
    LoadBalancer,
    /// Only a DNS alias: the target, without the final dot.
    ExternalName(Name),
}

/// `spec.clusterIPs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterIps {
    /// `None`: headless.
    Headless,
    /// One address per family; empty while none has been allocated.
    Addresses(Vec<IpAddr>),
}

/// One port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePort {
    /// The port's name; "" for the unnamed port.
    pub name: Name,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The port clients dial on cluster, external and load-balancer IPs. Host byte order, never 0.
    pub port: u16,
    /// The port clients dial on node addresses.
    pub node_port: Option<u16>,
}

/// A transport protocol of the Service API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP: named in DNS, never programmed (R15).
    Sctp,
}

/// What belongs to the load balancer in front of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancer {
    /// `status.loadBalancer.ingress[]` with an IP.
    pub ips: Vec<LoadBalancerIp>,
    /// `spec.loadBalancerSourceRanges`; empty means open (R13).
    pub source_ranges: Vec<IpNet>,
    /// `spec.healthCheckNodePort` (R7).
    pub health_check_port: Option<u16>,
}

/// One address of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadBalancerIp {
    /// The address.
    pub ip: IpAddr,
    /// Whether the node captures it (R14).
    pub mode: IngressMode,
}

/// `status.loadBalancer.ingress[].ipMode` (KEP-1860).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IngressMode {
    /// Captured on the node; the default.
    Vip,
    /// Left to the load balancer.
    Proxy,
}

/// How traffic to a Service is spread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// `spec.internalTrafficPolicy`: for the cluster IPs (KEP-2086).
    pub internal: TrafficPolicy,
    /// `spec.externalTrafficPolicy`: for node ports, load-balancer and external IPs.
    pub external: TrafficPolicy,
    /// `spec.sessionAffinity`.
    pub affinity: Affinity,
}

/// Which endpoints a policy allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TrafficPolicy {
    /// All of the cluster.
    #[default]
    Cluster,
    /// Those of this node only.
    Local,
}

/// `spec.sessionAffinity` with its timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// Each connection is balanced on its own.
    #[default]
    None,
    /// A client keeps its endpoint until `timeout_seconds` after its last connection (1 to 86,400).
    ClientIp {
        /// `sessionAffinityConfig.clientIP.timeoutSeconds`.
        timeout_seconds: u32,
    },
}

impl Service {
    /// The allocated cluster IPs; empty for a headless service and for one that has none yet.
    pub fn cluster_ips(&self) -> &[IpAddr] {
        match &self.cluster_ips {
            ClusterIps::Headless => &[],
            ClusterIps::Addresses(ips) => ips,
        }
    }

    /// True for `clusterIP: None`.
    pub fn is_headless(&self) -> bool {
        self.cluster_ips == ClusterIps::Headless
    }

    /// The target of an ExternalName service.
    pub fn external_name(&self) -> Option<&Name> {
        match &self.kind {
            ServiceKind::ExternalName(target) => Some(target),
            ServiceKind::ClusterIp | ServiceKind::NodePort | ServiceKind::LoadBalancer => None,
        }
    }
}

impl Protocol {
    /// The word of the API: `TCP`, `UDP`, `SCTP`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }

    /// The protocol number of the IP header (IANA).
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

//! What the daemon tells the packet engine of the node's surroundings: plain values, which it reads whenever the
//! network changes. Nothing here looks for itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use ebpf::address::Address;
use ebpf::packet::uplink;
use ipnet::IpNet;

/// A link by which packets reach the node and leave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The IPv4 address that what leaves by it gets.
    pub ipv4: Option<Ipv4Addr>,
    /// The IPv6 one.
    pub ipv6: Option<Ipv6Addr>,
    /// Its packets have Ethernet headers.
    pub is_ethernet: bool,
}

/// Where the node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Surroundings {
    /// The links that the engine works at.
    pub uplinks: Vec<Uplink>,
    /// The ranges of this node's pods, which are masqueraded when they leave the cluster.
    pub pods: Vec<IpNet>,
    /// What pods reach with their own addresses: other nodes and their pods, ranges of the options.
    pub direct: Vec<IpNet>,
    /// The node's own addresses.
    pub own: Vec<IpAddr>,
    /// The ports that the node itself takes for its connections.
    pub host_ports: RangeInclusive<u16>,
}

impl Uplink {
    /// As the map `uplinks` has it.
    pub(super) fn value(&self, to: &Surroundings) -> uplink::Uplink {
        let ipv4 = self.ipv4.map_or(Address::NONE, |ip| IpAddr::V4(ip).into());
        let ipv6 = self.ipv6.map_or(Address::NONE, |ip| IpAddr::V6(ip).into());
        let header = if self.is_ethernet { 14 } else { 0 };
        uplink::Uplink::new(ipv4, ipv6, header, *to.host_ports.start(), *to.host_ports.end()).at(self.index)
    }
}

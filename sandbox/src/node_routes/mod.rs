//! Routes to the pods of other nodes: straight where a node is on the same link, through one VXLAN device where it is
//! not. The plan is pure; applying it reads what the kernel has and writes the difference, again and again.
//! Called by the daemon, which knows the nodes.

mod apply;
mod plan;

use std::net::IpAddr;

use ipnet::IpNet;

use crate::attachment::{End, mac_address};
use crate::netlink::{MacAddress, Netlink, NetlinkError, VxlanDevice};

pub use plan::plan;

/// The VXLAN device of every node.
pub const VXLAN_DEVICE: &str = "fairway.vxlan";
/// What VXLAN adds to a packet, by the family that carries it: outer IP, UDP, VXLAN and inner Ethernet headers.
const OVERHEAD4: u32 = 50;
const OVERHEAD6: u32 = 70;

/// A node, as far as routes to its pods need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutedNode {
    /// Its name, from which the Ethernet address of its VXLAN device follows.
    pub name: String,
    /// Its addresses, the primary one of each family first.
    pub addresses: Vec<IpAddr>,
    /// The ranges of its pods.
    pub pod_cidrs: Vec<IpNet>,
}

/// How other nodes are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteOptions {
    /// Through VXLAN even where a node is on the same link.
    pub always_tunnel: bool,
    /// The UDP port of VXLAN.
    pub port: u16,
    /// The MTU of the node's uplink.
    pub mtu: u32,
}

/// An address of this node, with its link and the length of its prefix.
pub type OwnAddress = (u32, IpAddr, u8);

/// What the kernel should have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeRoutes {
    /// The VXLAN device, where any node needs it.
    pub(crate) device: Option<VxlanDevice>,
    /// The addresses of the device.
    pub(crate) addresses: Vec<IpAddr>,
    /// A route for each range.
    pub(crate) routes: Vec<PlannedRoute>,
    /// Who is behind the device.
    pub(crate) tunnels: Vec<Tunnel>,
    /// The ranges that cannot be reached, and why: one sentence each.
    pub problems: Vec<String>,
}

/// A route to a range of another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PlannedRoute {
    pub(crate) range: IpNet,
    pub(crate) gateway: IpAddr,
    /// None is the VXLAN device.
    pub(crate) link: Option<u32>,
    /// Where it is less than the link's.
    pub(crate) mtu: Option<u32>,
}

/// A node behind the VXLAN device: no learning, no flooding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tunnel {
    pub(crate) mac: MacAddress,
    /// The address of the node.
    pub(crate) remote: IpAddr,
    /// What stands for it as the gateway of its ranges.
    pub(crate) gateways: Vec<IpAddr>,
}

impl NodeRoutes {
    /// Makes the kernel have this and nothing else of its kind; what was changed, for people. Called in the node's
    /// network namespace.
    pub fn apply(&self) -> Result<Vec<String>, NetlinkError> {
        apply::apply(&mut Netlink::open()?, self)
    }
}

/// The addresses of this node with their links.
pub fn own_addresses() -> Result<Vec<OwnAddress>, NetlinkError> {
    Netlink::open()?.addresses()
}

/// Every node computes it for every other, so that nobody has to tell.
fn vxlan_mac(node: &str) -> MacAddress {
    mac_address(node, VXLAN_DEVICE, End::Host)
}

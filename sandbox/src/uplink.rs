//! The links by which packets reach the node and leave it: those of its default routes, those that have its own
//! addresses, and the VXLAN device; or those of given names. Acts on the network namespace of the calling thread.

use std::net::IpAddr;

use crate::attach::LOOPBACK;
use crate::netlink::{Netlink, NetlinkError};
use crate::node::{OUTSIDE4, OUTSIDE6};
use crate::node_routes::VXLAN_DEVICE;

/// A link of the node towards others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Its packets have Ethernet headers.
    pub is_ethernet: bool,
}

/// The links with these names, where any are given; else those that the routes and `own`, the node's addresses,
/// tell. The VXLAN device is always one.
pub fn uplinks(names: &[String], own: &[IpAddr]) -> Result<Vec<Uplink>, NetlinkError> {
    let mut node = Netlink::open()?;
    let addresses = node.addresses()?;
    let mut found: Vec<u32> =
        addresses.iter().filter(|(_, ip, _)| own.contains(ip)).map(|(link, ..)| *link).collect();
    for outside in [OUTSIDE4, OUTSIDE6] {
        found.extend(node.link_towards(outside)?);
    }
    let mut links = node.links()?;
    links.retain(|link| {
        let chosen = if names.is_empty() { found.contains(&link.index) } else { names.contains(&link.name) };
        link.index != LOOPBACK && (chosen || link.name == VXLAN_DEVICE)
    });
    let with_addresses = |link: crate::netlink::Link| Uplink {
        addresses: addresses
            .iter()
            .filter(|(index, ..)| *index == link.index)
            .map(|(_, ip, _)| *ip)
            .collect(),
        is_ethernet: link.mac.is_some(),
        index: link.index,
        name: link.name,
    };
    Ok(links.into_iter().map(with_addresses).collect())
}

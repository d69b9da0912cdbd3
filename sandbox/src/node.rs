//! What the node itself needs so that pods can be reached: forwarding, the addresses that the daemon listens
//! on, and what its own addresses are. Acts on the network namespace of the calling thread.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use crate::attach::LOOPBACK;
use crate::netlink::{Netlink, NetlinkError};
use crate::sysctl::{self, SysctlError};

/// The MTU of a node without an uplink.
const ETHERNET_MTU: u32 = 1500;
/// Any address of the outside world: only the choice of a source is asked for, nothing is sent.
pub(crate) const OUTSIDE4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub(crate) const OUTSIDE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1));

/// Lets the node forward between its pods and the world, for the families of its pod ranges.
pub fn enable_forwarding(ranges: &[IpNet]) -> Result<(), SysctlError> {
    families(ranges).try_for_each(sysctl::enable_forwarding)
}

/// The same with no look at each link of a node that forwards already: every ADD does this.
pub(crate) fn ensure_forwarding(ranges: &[IpNet]) -> Result<(), SysctlError> {
    families(ranges).filter(|ipv6| !sysctl::forwards(*ipv6)).try_for_each(sysctl::enable_forwarding)
}

/// Whether it is IPv6, for each family of the ranges.
fn families(ranges: &[IpNet]) -> impl Iterator<Item = bool> {
    [false, true].into_iter().filter(|ipv6| ranges.iter().any(|range| range.addr().is_ipv6() == *ipv6))
}

/// Gives loopback the addresses, and sets it up. Those that it has already are fine.
pub fn add_loopback_addresses(addresses: &[IpAddr]) -> Result<(), NetlinkError> {
    let own = node_addresses()?;
    let mut node = Netlink::open()?;
    node.set_up(LOOPBACK)?;
    for address in addresses {
        // A node without an address of its own has no other source towards its pods.
        let added = match own.iter().any(|own| own.is_ipv4() == address.is_ipv4()) {
            true => node.add_served_address(LOOPBACK, *address),
            false => node.add_address(LOOPBACK, *address),
        };
        match added {
            Err(error) if error.is_exists() => {}
            result => result?,
        }
    }
    Ok(())
}

/// Takes the addresses from loopback again. Those that it does not have are fine.
pub fn remove_loopback_addresses(addresses: &[IpAddr]) -> Result<(), NetlinkError> {
    let mut node = Netlink::open()?;
    for address in addresses {
        match node.remove_address(LOOPBACK, *address) {
            Err(error) if error.is_missing() => {}
            result => result?,
        }
    }
    Ok(())
}

/// The addresses that the node uses towards the world, IPv4 first: the sources of its default routes, else the
/// first global address of the family that is not on loopback.
pub fn node_addresses() -> Result<Vec<IpAddr>, NetlinkError> {
    let mut node = Netlink::open()?;
    let all = node.addresses()?;
    let mut found = Vec::new();
    for outside in [OUTSIDE4, OUTSIDE6] {
        let usable = |ip: &IpAddr| ip.is_ipv4() == outside.is_ipv4() && is_global(*ip);
        let by_route = node.source_towards(outside)?.filter(usable);
        let first = || {
            let others = all.iter().filter(|(link, ..)| *link != LOOPBACK).map(|(_, ip, _)| *ip);
            others.into_iter().find(usable)
        };
        found.extend(by_route.or_else(first));
    }
    Ok(found)
}

/// The smallest MTU of the links that have the node's addresses: what pods may send without fragments.
pub fn node_mtu() -> Result<u32, NetlinkError> {
    let own = node_addresses()?;
    let mut node = Netlink::open()?;
    let uplinks: Vec<u32> =
        node.addresses()?.into_iter().filter(|(_, ip, _)| own.contains(ip)).map(|(link, ..)| link).collect();
    let links = node.links()?;
    let mtus = links.iter().filter(|link| uplinks.contains(&link.index)).map(|link| link.mtu);
    Ok(mtus.min().unwrap_or(ETHERNET_MTU))
}

/// Every address of the namespace, loopback's included.
pub fn local_addresses() -> Result<Vec<IpAddr>, NetlinkError> {
    let mut all: Vec<IpAddr> = Netlink::open()?.addresses()?.into_iter().map(|(_, ip, _)| ip).collect();
    all.sort();
    all.dedup();
    Ok(all)
}

const fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !ip.is_loopback() && !ip.is_link_local() && !ip.is_unspecified(),
        IpAddr::V6(ip) => !ip.is_loopback() && !ip.is_unicast_link_local() && !ip.is_unspecified(),
    }
}

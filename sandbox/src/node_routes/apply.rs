//! Brings a plan to the kernel: reads what is there, writes the difference. What leads to a node is there before its
//! route, and goes after it.

use std::net::IpAddr;

use super::{NodeRoutes, PlannedRoute, VXLAN_DEVICE};
use crate::netlink::{MacAddress, Netlink, NetlinkError, NodeRoute};

/// A neighbour or forwarding entry of the device: an address and whose it is.
type Entry = (IpAddr, MacAddress);

pub(super) fn apply(node: &mut Netlink, wanted: &NodeRoutes) -> Result<Vec<String>, NetlinkError> {
    let mut changes = Vec::new();
    let device = make_device(node, wanted, &mut changes)?;
    let neighbours: Vec<Entry> = wanted
        .tunnels
        .iter()
        .flat_map(|tunnel| tunnel.gateways.iter().map(|gateway| (*gateway, tunnel.mac)))
        .collect();
    let forwarding: Vec<Entry> = wanted.tunnels.iter().map(|tunnel| (tunnel.remote, tunnel.mac)).collect();
    let mut old_neighbours = Vec::new();
    let mut old_forwarding = Vec::new();
    if let Some(device) = device {
        let found = node.neighbours(device)?;
        for (address, mac) in neighbours.iter().filter(|entry| !found.contains(entry)) {
            node.add_neighbour(device, *address, *mac)?;
            changes.push(format!("neighbour {address} at {mac}"));
        }
        old_neighbours.extend(found.into_iter().filter(|entry| !neighbours.contains(entry)));
        let found = node.forwarding(device)?;
        for (remote, mac) in forwarding.iter().filter(|entry| !found.contains(entry)) {
            node.add_forwarding(device, *remote, *mac)?;
            changes.push(format!("forwarding entry of {remote} at {mac}"));
        }
        old_forwarding.extend(found.into_iter().filter(|entry| !forwarding.contains(entry)));
    }
    apply_routes(node, &wanted.routes, device, &mut changes)?;
    let Some(device) = device else { return Ok(changes) };
    for (address, _) in old_neighbours.into_iter().filter(|old| neighbours.iter().all(|new| new.0 != old.0)) {
        ignore_missing(node.delete_neighbour(device, address))?;
        changes.push(format!("no neighbour {address}"));
    }
    for (remote, mac) in old_forwarding {
        ignore_missing(node.delete_forwarding(device, remote, mac))?;
        changes.push(format!("no forwarding entry of {remote}"));
    }
    Ok(changes)
}

/// The index of the device, as it should be; None where none should be, and then none is.
fn make_device(
    node: &mut Netlink,
    wanted: &NodeRoutes,
    changes: &mut Vec<String>,
) -> Result<Option<u32>, NetlinkError> {
    let found = node.vxlan(VXLAN_DEVICE)?;
    let kept = match (&found, &wanted.device) {
        (Some((index, is_up, found)), Some(device)) if found == device => {
            if !is_up {
                node.set_up(*index)?;
                changes.push(format!("{VXLAN_DEVICE} up"));
            }
            Some(*index)
        }
        _ => None,
    };
    if let (Some((index, ..)), None) = (&found, kept) {
        ignore_missing(node.delete_link(*index))?;
        changes.push(format!("no {VXLAN_DEVICE} as it was"));
    }
    let Some(device) = &wanted.device else { return Ok(None) };
    let index = match kept {
        Some(index) => index,
        None => {
            changes.push(format!("{VXLAN_DEVICE} from {} to port {}", device.local, device.port));
            node.add_vxlan(device)?
        }
    };
    let own: Vec<IpAddr> =
        node.addresses()?.into_iter().filter(|(link, ..)| *link == index).map(|(_, ip, _)| ip).collect();
    for address in wanted.addresses.iter().filter(|address| !own.contains(address)) {
        node.add_address(index, *address)?;
        changes.push(format!("{address} on {VXLAN_DEVICE}"));
    }
    let is_ours = |ip: &&IpAddr| !is_link_local(**ip) && !wanted.addresses.contains(ip);
    for address in own.iter().filter(is_ours) {
        ignore_missing(node.remove_address(index, *address))?;
        changes.push(format!("no {address} on {VXLAN_DEVICE}"));
    }
    Ok(Some(index))
}

fn apply_routes(
    node: &mut Netlink,
    wanted: &[PlannedRoute],
    device: Option<u32>,
    changes: &mut Vec<String>,
) -> Result<(), NetlinkError> {
    let resolve = |route: &PlannedRoute| {
        let link = route.link.or(device)?;
        Some(NodeRoute { range: route.range, gateway: route.gateway, link, mtu: route.mtu })
    };
    let wanted: Vec<NodeRoute> = wanted.iter().filter_map(resolve).collect();
    let found = node.node_routes()?;
    for old in found.iter().filter(|found| !wanted.contains(found)) {
        // Not replaced: an IPv6 route is refused while the old one leads to its gateway by another link.
        ignore_missing(node.delete_node_route(old))?;
        changes.push(format!("no route to {} through {}", old.range, old.gateway));
    }
    for route in wanted.iter().filter(|route| !found.contains(route)) {
        node.add_node_route(route)?;
        changes.push(format!("route to {} through {}", route.range, route.gateway));
    }
    Ok(())
}

const fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn ignore_missing(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.is_missing() => Ok(()),
        result => result,
    }
}

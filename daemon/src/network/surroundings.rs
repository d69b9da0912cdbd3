//! What the packet engine is told of the node's surroundings: its uplinks, the ranges of pods, and what pods reach
//! with their own addresses. Read anew whenever the network may have changed; it changes nothing itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::RangeInclusive;

use anyhow::{Context, Result};
use ipnet::IpNet;
use model::Snapshot;
use proxy::{Surroundings, Uplink};

use super::{Settled, direct};
use crate::cli::Switch;

/// The ports that the node takes for its own connections.
const PORT_RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";

/// Whether the packet engine runs, and masquerades in place of nftables.
pub(super) fn is_on(settled: &Settled) -> bool {
    settled.args.network.packets.packets == Switch::On
}

/// What there is now.
pub(super) fn surroundings(
    settled: &Settled,
    snapshot: &Snapshot,
    pod_cidrs: &[IpNet],
) -> Result<Surroundings> {
    let node = &settled.facts.node_ips.value;
    let names = &settled.args.network.packets.uplink;
    let links = sandbox::uplinks(names, node).context("cannot read this node's links")?;
    Ok(Surroundings {
        uplinks: links.into_iter().map(|link| uplink(link, node)).collect(),
        pods: pod_cidrs.iter().map(IpNet::trunc).collect(),
        direct: direct(settled, snapshot),
        own: sandbox::local_addresses().context("cannot read this node's addresses")?,
        host_ports: host_ports().with_context(|| format!("cannot read {PORT_RANGE}"))?,
    })
}

/// What leaves by a link gets an address of that link, where it has one: with another, nodes that are reached
/// through a tunnel would not take it.
fn uplink(link: sandbox::Uplink, node: &[IpAddr]) -> Uplink {
    let addresses = || link.addresses.iter().chain(node);
    let usable = |ip: &&Ipv6Addr| !ip.is_unicast_link_local() && !ip.is_loopback();
    let ipv4: Option<Ipv4Addr> =
        addresses().find_map(|ip| if let IpAddr::V4(ip) = ip { Some(*ip) } else { None });
    let ipv6: Vec<Ipv6Addr> =
        addresses().filter_map(|ip| if let IpAddr::V6(ip) = ip { Some(*ip) } else { None }).collect();
    Uplink {
        ipv4,
        ipv6: ipv6.iter().find(usable).copied(),
        index: link.index,
        name: link.name,
        is_ethernet: link.is_ethernet,
    }
}

fn host_ports() -> Result<RangeInclusive<u16>> {
    let text = std::fs::read_to_string(PORT_RANGE)?;
    let mut numbers = text.split_whitespace().map(str::parse);
    let (first, last) = (numbers.next().context("no range")??, numbers.next().context("no range")??);
    Ok(first..=last)
}

//! Which route leads to which node: straight or through the tunnel, or why neither. Pure: nodes and addresses in, the
//! plan out; `apply` brings it to the kernel.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;

use super::{
    NodeRoutes, OVERHEAD4, OVERHEAD6, OwnAddress, PlannedRoute, RouteOptions, RoutedNode, Tunnel,
    VXLAN_DEVICE, vxlan_mac,
};
use crate::netlink::VxlanDevice;

/// Plans the routes from `own` to `peers`; `addresses` are those of this node with their links.
pub fn plan(
    own: &RoutedNode,
    peers: &[RoutedNode],
    addresses: &[OwnAddress],
    options: RouteOptions,
) -> NodeRoutes {
    let mut planned = NodeRoutes::default();
    let mut taken: BTreeMap<IpNet, &str> =
        own.pod_cidrs.iter().map(|range| (range.trunc(), own.name.as_str())).collect();
    for peer in peers.iter().filter(|peer| peer.name != own.name) {
        let mut tunnelled = Vec::new();
        for range in peer.pod_cidrs.iter().map(IpNet::trunc) {
            if let Some((other, owner)) = taken.iter().find(|(other, _)| overlap(other, &range)) {
                let sentence = format!("pods {range} of node {} overlap {other} of node {owner}", peer.name);
                planned.problems.push(sentence);
                continue;
            }
            taken.insert(range, &peer.name);
            match on_link(peer, range, addresses).filter(|_| !options.always_tunnel) {
                Some((link, gateway)) => {
                    planned.routes.push(PlannedRoute { range, gateway, link: Some(link), mtu: None });
                }
                None => tunnelled.push(range),
            }
        }
        tunnel(&mut planned, (own, peer), &tunnelled, options);
    }
    if let Some(device) = &mut planned.device {
        device.mtu = options.mtu;
        planned.addresses = own.pod_cidrs.iter().map(IpNet::network).collect();
    }
    planned
}

fn overlap(one: &IpNet, other: &IpNet) -> bool {
    one.contains(other) || other.contains(one)
}

/// The link on which an address of the peer, of the range's family, is reached without a router.
fn on_link(peer: &RoutedNode, range: IpNet, addresses: &[OwnAddress]) -> Option<(u32, IpAddr)> {
    let same_family = |ip: &&IpAddr| ip.is_ipv4() == range.addr().is_ipv4();
    peer.addresses.iter().filter(same_family).find_map(|peer| {
        let reaches = |(_, ip, length): &&OwnAddress| {
            IpNet::new(*ip, *length).is_ok_and(|net| net.contains(peer) && net.addr() != *peer)
        };
        addresses.iter().find(reaches).map(|(link, ..)| (*link, *peer))
    })
}

fn tunnel(
    planned: &mut NodeRoutes,
    (own, peer): (&RoutedNode, &RoutedNode),
    ranges: &[IpNet],
    options: RouteOptions,
) {
    if ranges.is_empty() {
        return;
    }
    // One device carries one family: that of the node's first address, the same on every node.
    let Some(local) = own.addresses.first().copied() else {
        planned.problems.push(format!("node {} cannot be tunnelled to: this node has no address", peer.name));
        return;
    };
    let Some(remote) = peer.addresses.iter().find(|ip| ip.is_ipv4() == local.is_ipv4()).copied() else {
        let sentence =
            format!("node {} cannot be tunnelled to: it has no address of {local}'s family", peer.name);
        planned.problems.push(sentence);
        return;
    };
    let overhead = if local.is_ipv4() { OVERHEAD4 } else { OVERHEAD6 };
    planned.device.get_or_insert_with(|| VxlanDevice {
        name: VXLAN_DEVICE.to_owned(),
        mac: vxlan_mac(&own.name),
        local,
        port: options.port,
        mtu: 0,
    });
    planned.tunnels.push(Tunnel {
        mac: vxlan_mac(&peer.name),
        remote,
        gateways: ranges.iter().map(IpNet::network).collect(),
    });
    // The network's own address stands for the node: no pod has it.
    planned.routes.extend(ranges.iter().map(|range| PlannedRoute {
        range: *range,
        gateway: range.network(),
        link: None,
        mtu: Some(options.mtu.saturating_sub(overhead)),
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPTIONS: RouteOptions = RouteOptions { always_tunnel: false, port: 8472, mtu: 1500 };

    fn node(name: &str, addresses: &[&str], ranges: &[&str]) -> RoutedNode {
        RoutedNode {
            name: name.to_owned(),
            addresses: addresses.iter().map(|ip| ip.parse().unwrap()).collect(),
            pod_cidrs: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        }
    }

    fn own() -> RoutedNode {
        node("a", &["192.0.2.10", "2001:db8::10"], &["10.244.1.0/24", "fd00:1::/64"])
    }

    fn addresses() -> Vec<OwnAddress> {
        let each =
            [(1, "127.0.0.1", 8), (2, "192.0.2.10", 24), (2, "2001:db8::10", 64), (3, "10.96.0.10", 32)];
        each.map(|(link, ip, length)| (link, ip.parse().unwrap(), length)).to_vec()
    }

    fn lines(planned: &NodeRoutes) -> Vec<String> {
        let route = |route: &PlannedRoute| {
            let link = route.link.map_or("vxlan".to_owned(), |link| link.to_string());
            let mtu = route.mtu.map(|mtu| format!(" mtu {mtu}")).unwrap_or_default();
            format!("{} via {} dev {link}{mtu}", route.range, route.gateway)
        };
        let tunnel = |tunnel: &Tunnel| format!("{} at {}", tunnel.mac, tunnel.remote);
        let routes = planned.routes.iter().map(route);
        routes.chain(planned.tunnels.iter().map(tunnel)).chain(planned.problems.clone()).collect()
    }

    #[track_caller]
    fn check(peers: &[RoutedNode], options: RouteOptions, expected: &[&str]) -> NodeRoutes {
        let planned = plan(&own(), peers, &addresses(), options);
        assert_eq!(lines(&planned), expected);
        planned
    }

    #[test]
    fn a_node_on_the_link_is_routed_to_straight() {
        let peers = [own(), node("b", &["192.0.2.11", "2001:db8::11"], &["10.244.2.0/24", "fd00:2::/64"])];
        let expected = ["10.244.2.0/24 via 192.0.2.11 dev 2", "fd00:2::/64 via 2001:db8::11 dev 2"];
        let planned = check(&peers, OPTIONS, &expected);
        assert_eq!(planned.device, None);
    }

    #[test]
    fn a_node_behind_a_router_is_tunnelled_to() {
        let peers = [node("c", &["198.51.100.7", "2001:db8:9::7"], &["10.244.3.0/24", "fd00:3::/64"])];
        let mac = vxlan_mac("c");
        let expected = [
            "10.244.3.0/24 via 10.244.3.0 dev vxlan mtu 1450",
            "fd00:3::/64 via fd00:3:: dev vxlan mtu 1450",
            &format!("{mac} at 198.51.100.7"),
        ];
        let planned = check(&peers, OPTIONS, &expected);
        let device = planned.device.unwrap();
        assert_eq!((device.mtu, device.mac, device.port), (1500, vxlan_mac("a"), 8472));
        assert_ne!(device.mac, mac);
        let addresses: Vec<_> = planned.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["10.244.1.0", "fd00:1::"]);
    }

    #[test]
    fn a_family_without_an_address_on_the_link_is_tunnelled() {
        let peers = [node("b", &["192.0.2.11"], &["10.244.2.0/24", "fd00:2::/64"])];
        let expected = [
            "10.244.2.0/24 via 192.0.2.11 dev 2",
            "fd00:2::/64 via fd00:2:: dev vxlan mtu 1450",
            &format!("{} at 192.0.2.11", vxlan_mac("b")),
        ];
        check(&peers, OPTIONS, &expected);
    }

    #[test]
    fn all_can_be_tunnelled_to() {
        let peers = [node("b", &["192.0.2.11"], &["10.244.2.0/24"])];
        let expected =
            ["10.244.2.0/24 via 10.244.2.0 dev vxlan mtu 1450", &format!("{} at 192.0.2.11", vxlan_mac("b"))];
        check(&peers, RouteOptions { always_tunnel: true, ..OPTIONS }, &expected);
    }

    #[test]
    fn what_cannot_be_reached_is_said() {
        let peers = [
            node("b", &["2001:db8:9::7"], &["10.244.2.0/24"]),
            node("c", &["192.0.2.12"], &["10.244.1.128/25"]),
            node("d", &["192.0.2.13"], &[]),
        ];
        let expected = [
            "node b cannot be tunnelled to: it has no address of 192.0.2.10's family",
            "pods 10.244.1.128/25 of node c overlap 10.244.1.0/24 of node a",
        ];
        check(&peers, OPTIONS, &expected);
    }
}

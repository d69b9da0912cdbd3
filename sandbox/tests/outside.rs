//! Pods that leave the cluster, towards a namespace that knows the node and no pod: an answer arrives only if the
//! packet left with the node's address. Nothing to clean up: the namespaces go with the test.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the helpers of tests are tests too")]

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::process::Command;
use std::time::Duration;

use sandbox::{
    AttachOptions, HostRoute, MacAddress, Masquerade, Netlink, NetworkNamespace, PodId, Veth,
    add_loopback_addresses, attach, enable_forwarding, local_addresses, node_addresses,
    remove_loopback_addresses, remove_masquerade,
};
use socket2::{Domain, Protocol, Socket, Type};

const TIMEOUT: Duration = Duration::from_secs(5);

/// A node with one pod, and a machine outside.
struct World {
    node: NetworkNamespace,
    outside: NetworkNamespace,
    pod: NetworkNamespace,
    node_address: IpAddr,
    outside_address: IpAddr,
    pod_address: IpAddr,
}

fn world(range: &str, node_address: &str, outside_address: &str) -> Option<World> {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "needs root");
        println!("SKIP: needs root");
        return None;
    }
    let [node, outside, pod] = [(); 3].map(|()| NetworkNamespace::create().unwrap());
    let (node_address, outside_address) = (node_address.parse().unwrap(), outside_address.parse().unwrap());
    let mut near = Netlink::open_in(&node).unwrap();
    let uplink = near
        .add_veth(&Veth {
            name: "uplink",
            mac: MacAddress([2, 0, 0, 0, 0, 1]),
            peer_namespace: outside.as_fd(),
            peer_name: "eth0",
            peer_mac: MacAddress([2, 0, 0, 0, 0, 2]),
            mtu: 1500,
            group: 0,
            born: 1,
        })
        .unwrap();
    let mut far = Netlink::open_in(&outside).unwrap();
    let far_link = far.link("eth0").unwrap();
    far.set_up(far_link.index).unwrap();
    for (netlink, link, own, other) in [
        (&mut near, uplink.index, node_address, outside_address),
        (&mut far, far_link.index, outside_address, node_address),
    ] {
        netlink.add_address(link, own).unwrap();
        netlink.add_host_route(HostRoute { address: other, link }).unwrap();
    }
    let ranges = [range.parse().unwrap()];
    let name = PodId { namespace: "default".into(), name: "web".into() };
    let attachment = node.enter(|| {
        enable_forwarding(&ranges).unwrap();
        attach(&AttachOptions {
            namespace: &pod,
            container_id: "web",
            ifname: "eth0",
            pod: Some(&name),
            ranges: &ranges,
            mtu: 1500,
            bpf_dir: None,
            host_ports: &[],
        })
    });
    let pod_address = attachment.unwrap().unwrap().addresses[0];
    Some(World { node, outside, pod, node_address, outside_address, pod_address })
}

impl World {
    fn masquerade(&self, range: &str) -> Masquerade {
        Masquerade {
            pods: vec![range.parse().unwrap()],
            direct: vec![self.node_address.into()],
            dns: vec!["10.96.0.10".parse().unwrap(), "fd00:96::a".parse().unwrap()],
        }
    }

    /// The source that a server outside sees.
    fn tcp_source(&self) -> IpAddr {
        let listener = self.outside.enter(|| TcpListener::bind((self.outside_address, 0))).unwrap().unwrap();
        let target = listener.local_addr().unwrap();
        let mut near = self.pod.enter(|| TcpStream::connect_timeout(&target, TIMEOUT)).unwrap().unwrap();
        let (mut far, peer) = listener.accept().unwrap();
        far.write_all(b"y").unwrap();
        let mut byte = [0];
        near.read_exact(&mut byte).unwrap();
        peer.ip()
    }

    fn udp_source(&self) -> IpAddr {
        let server = self.outside.enter(|| UdpSocket::bind((self.outside_address, 0))).unwrap().unwrap();
        let client = self.pod.enter(|| UdpSocket::bind((self.pod_address, 0))).unwrap().unwrap();
        for socket in [&server, &client] {
            socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        }
        client.send_to(b"x", server.local_addr().unwrap()).unwrap();
        let mut byte = [0];
        let (_, peer) = server.recv_from(&mut byte).unwrap();
        server.send_to(b"y", peer).unwrap();
        client.recv_from(&mut byte).unwrap();
        assert_eq!(&byte, b"y");
        peer.ip()
    }

    /// One echo request. The answer proves the translation: outside there is no way back to the pod.
    fn ping(&self) {
        let (domain, protocol, request, answer) = match self.outside_address {
            IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
            IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
        };
        let socket = self.pod.enter(|| Socket::new(domain, Type::RAW, Some(protocol))).unwrap().unwrap();
        socket.set_read_timeout(Some(TIMEOUT)).unwrap();
        // The checksum is the complement of the only words that are not zero; for IPv6 the kernel fills it in.
        let checksum = !(u16::from(request) << 8) - 1;
        let [high, low] = checksum.to_be_bytes();
        let packet = [request, 0, high, low, 0, 1, 0, 0];
        socket.send_to(&packet, &SocketAddr::new(self.outside_address, 0).into()).unwrap();
        loop {
            let mut bytes = [0; 128];
            let count = (&socket).read(&mut bytes).unwrap();
            // A raw IPv4 socket shows the IP header too.
            let header = if self.outside_address.is_ipv4() { usize::from(bytes[0] & 15) * 4 } else { 0 };
            if bytes[header..count].first() == Some(&answer) {
                return;
            }
        }
    }
}

fn leaves_with_the_nodes_address(range: &str, node: &str, outside: &str) {
    let Some(world) = world(range, node, outside) else { return };
    let masquerade = world.masquerade(range);
    assert!(world.node.enter(|| masquerade.apply()).unwrap().unwrap());
    assert_eq!(world.tcp_source(), world.node_address);
    assert_eq!(world.udp_source(), world.node_address);
    world.ping();
}

#[test]
fn scenario_46_pods_leave_with_the_address_of_the_node() {
    leaves_with_the_nodes_address("10.1.0.0/24", "198.51.100.1", "198.51.100.2");
}

#[test]
fn scenario_46_pods_leave_with_the_address_of_the_node_over_ipv6() {
    leaves_with_the_nodes_address("fd00:1::/64", "2001:db8::1", "2001:db8::2");
}

#[test]
fn nothing_is_masqueraded_towards_direct_ranges() {
    let Some(world) = world("10.1.0.0/24", "198.51.100.1", "198.51.100.2") else { return };
    let mut masquerade = world.masquerade("10.1.0.0/24");
    masquerade.direct.push("198.51.100.0/24".parse().unwrap());
    world.node.enter(|| masquerade.apply()).unwrap().unwrap();
    let mut far = Netlink::open_in(&world.outside).unwrap();
    let link = far.link("eth0").unwrap().index;
    far.add_host_route(HostRoute { address: world.pod_address, link }).unwrap();
    let mut near = Netlink::open_in(&world.node).unwrap();
    let mac = near.link("uplink").unwrap().mac.unwrap();
    far.add_neighbour(link, world.pod_address, mac).unwrap();
    assert_eq!(world.tcp_source(), world.pod_address);
}

#[test]
fn the_table_is_written_once_repaired_and_removed() {
    let Some(world) = world("10.1.0.0/24", "198.51.100.1", "198.51.100.2") else { return };
    let masquerade = world.masquerade("10.1.0.0/24");
    let apply = || world.node.enter(|| masquerade.apply()).unwrap().unwrap();
    assert!(apply());
    assert!(!apply(), "the second time there is nothing to do");
    let other = Masquerade { dns: Vec::new(), ..masquerade.clone() };
    assert!(world.node.enter(|| other.apply()).unwrap().unwrap());
    assert!(!world.node.enter(|| masquerade.is_applied()).unwrap().unwrap());
    assert!(apply());
    assert!(world.node.enter(|| masquerade.is_applied()).unwrap().unwrap());
    world.node.enter(remove_masquerade).unwrap().unwrap();
    world.node.enter(remove_masquerade).unwrap().expect("twice is fine");
    assert!(!world.node.enter(|| masquerade.is_applied()).unwrap().unwrap());
}

/// What a person sees, where `nft` is installed.
#[test]
fn nft_reads_the_table() {
    let Some(world) = world("10.1.0.0/24", "198.51.100.1", "198.51.100.2") else { return };
    world.node.enter(|| world.masquerade("10.1.0.0/24").apply()).unwrap().unwrap();
    let list = || Command::new("nft").args(["list", "table", "inet", "fairway"]).output();
    let Ok(output) = world.node.enter(list).unwrap() else {
        println!("SKIP: nft is not installed");
        return;
    };
    let text = String::from_utf8(output.stdout).unwrap();
    let expected = r#"table inet fairway {
	chain prerouting {
		type filter hook prerouting priority raw; policy accept;
		ip daddr 10.96.0.10 notrack comment "to 10.96.0.10/32 untracked"
		ip6 daddr fd00:96::a notrack comment "to fd00:96::a/128 untracked"
	}

	chain output {
		type filter hook output priority raw; policy accept;
		ip daddr 10.96.0.10 notrack comment "to 10.96.0.10/32 untracked"
		ip6 daddr fd00:96::a notrack comment "to fd00:96::a/128 untracked"
		ip saddr 10.96.0.10 notrack comment "from 10.96.0.10/32 untracked"
		ip6 saddr fd00:96::a notrack comment "from fd00:96::a/128 untracked"
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip daddr 10.1.0.0/24 return comment "to 10.1.0.0/24 as it is"
		ip daddr 198.51.100.1 return comment "to 198.51.100.1/32 as it is"
		ip saddr 10.1.0.0/24 masquerade comment "from 10.1.0.0/24 masqueraded"
	}
}
"#;
    assert_eq!(text, expected, "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn pods_see_the_node_with_its_own_address_and_not_with_one_that_it_serves_on() {
    for (range, node, outside, served) in [
        ("10.1.0.0/24", "198.51.100.1", "198.51.100.2", "10.96.0.10"),
        ("fd00:1::/64", "2001:db8::1", "2001:db8::2", "fd00:1:1::a"),
    ] {
        let Some(world) = world(range, node, outside) else { return };
        let served = [served.parse().unwrap()];
        world.node.enter(|| add_loopback_addresses(&served)).unwrap().unwrap();
        assert!(world.node.enter(local_addresses).unwrap().unwrap().contains(&served[0]));
        let mut netlink = Netlink::open_in(&world.node).unwrap();
        assert_eq!(netlink.source_towards(world.pod_address).unwrap(), Some(world.node_address));
        world.node.enter(|| remove_loopback_addresses(&served)).unwrap().unwrap();
        assert!(!world.node.enter(local_addresses).unwrap().unwrap().contains(&served[0]));
    }
}

#[test]
fn the_node_knows_its_address() {
    let Some(world) = world("10.1.0.0/24", "198.51.100.1", "198.51.100.2") else { return };
    assert_eq!(world.node.enter(node_addresses).unwrap().unwrap(), [world.node_address]);
}

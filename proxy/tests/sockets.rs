//! Real sockets through the real programs: what a client of a service sees. Every test has a process, a network
//! namespace, a cgroup and pins of its own.

mod support;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;

use model::testing::{endpoint, ip, name, service, slice};
use model::{Event, Kind, Object};

use support::*;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("a socket address")
}

/// One service `shop/web` with TCP and UDP ports 80 on 10.96.0.5 and these backends on 8080.
fn web(backends: &[&str]) -> Vec<Object> {
    let service = service("shop/web", &["10.96.0.5"]).port("http:80/TCP").port("dns:80/UDP");
    let slice = slice("web-1", "shop/web").port("http:8080/TCP").port("dns:8080/UDP").ready(backends);
    vec![service.into(), slice.into()]
}

#[test]
fn scenario_01_a_connection_reaches_an_endpoint_and_shows_the_service() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let _world = node.serve(web(&["10.244.0.2"]));
        let mut stream = dial("10.96.0.5:80").unwrap();
        assert_eq!(ask(&mut stream), "10.244.0.2:8080");
        assert_eq!(stream.peer_addr().unwrap(), address("10.96.0.5:80"));
    });
}

#[test]
fn scenario_02_connections_are_spread_evenly() {
    on_a_node(|node| {
        let backends = ["10.244.0.2", "10.244.0.3", "10.244.0.4"];
        backends.iter().for_each(|ip| backend(ip, 8080));
        let world = node.serve(web(&backends));
        let mut counts: BTreeMap<String, f64> = BTreeMap::new();
        for _ in 0..3000 {
            *counts.entry(reach("10.96.0.5:80")).or_default() += 1.0;
        }
        let chi_square: f64 = counts.values().map(|count| (count - 1000.0).powi(2) / 1000.0).sum();
        assert!(counts.len() == 3 && chi_square < 27.6, "{counts:?}");
        let opened: u64 = world.proxy.backends().iter().map(|backend| backend.count.opened).sum();
        assert_eq!(opened, 3000);
    });
}

#[test]
fn scenario_08_without_endpoints_connect_and_send_are_refused() {
    on_a_node(|node| {
        let _world = node.serve(web(&[]));
        assert_eq!(refused("10.96.0.5:80"), ErrorKind::ConnectionRefused);
        let socket = udp_socket("10.96.0.5:80");
        let error = socket.send_to(b"who?", "10.96.0.5:80").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(socket.connect("10.96.0.5:80").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn scenario_03_a_port_that_goes_leaves_the_other_alone() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        backend("10.244.0.3", 9090);
        let both = service("shop/web", &["10.96.0.5"]).port("t:80/TCP").port("u:80/UDP");
        let tcp = slice("web-t", "shop/web").port("t:8080/TCP").ready(&["10.244.0.2"]);
        let udp = slice("web-u", "shop/web").port("u:9090/UDP").ready(&["10.244.0.3"]);
        let mut world = node.serve([both.into(), tcp.into(), udp.into()]);
        assert_eq!(reach("10.96.0.5:80"), "10.244.0.2:8080");
        let socket = udp_socket("10.96.0.5:80");
        let (answer, from) = exchange(&socket, "10.96.0.5:80").unwrap();
        assert_eq!((answer.as_str(), from), ("10.244.0.3:9090", address("10.96.0.5:80")));

        world.apply(Event::Apply(service("shop/web", &["10.96.0.5"]).port("t:80/TCP").into()));
        assert_eq!(reach("10.96.0.5:80"), "10.244.0.2:8080");
        assert_eq!(exchange(&socket, "10.96.0.5:80").unwrap_err().kind(), ErrorKind::ConnectionRefused);
        assert_eq!(refused("10.96.0.5:81"), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn scenario_09_from_none_to_one_endpoint_a_client_gets_answers() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let mut world = node.serve(web(&[]));
        let socket = udp_socket("10.96.0.5:80");
        assert!(exchange(&socket, "10.96.0.5:80").is_err());
        web(&["10.244.0.2"]).into_iter().for_each(|object| world.apply(Event::Apply(object)));
        assert_eq!(exchange(&socket, "10.96.0.5:80").unwrap().0, "10.244.0.2:8080");
    });
}

#[test]
fn scenario_10_a_datagram_after_a_replacement_reaches_a_live_endpoint() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        backend("10.244.0.3", 8080);
        let mut world = node.serve(web(&["10.244.0.2"]));
        let socket = udp_socket("10.96.0.5:80");
        assert_eq!(exchange(&socket, "10.96.0.5:80").unwrap().0, "10.244.0.2:8080");
        web(&["10.244.0.3"]).into_iter().for_each(|object| world.apply(Event::Apply(object)));
        let (answer, from) = exchange(&socket, "10.96.0.5:80").unwrap();
        assert_eq!((answer.as_str(), from), ("10.244.0.3:8080", address("10.96.0.5:80")));
    });
}

#[test]
fn an_unconnected_socket_keeps_its_backend() {
    on_a_node(|node| {
        let backends = ["10.244.0.2", "10.244.0.3", "10.244.0.4"];
        backends.iter().for_each(|ip| backend(ip, 8080));
        let _world = node.serve(web(&backends));
        let socket = udp_socket("10.96.0.5:80");
        let (first, _) = exchange(&socket, "10.96.0.5:80").unwrap();
        for _ in 0..50 {
            assert_eq!(exchange(&socket, "10.96.0.5:80").unwrap(), (first.clone(), address("10.96.0.5:80")));
        }
    });
}

#[test]
fn scenario_12_mapped_addresses_are_ipv4() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let _world = node.serve(web(&["10.244.0.2"]));
        let mut stream = dial("[::ffff:10.96.0.5]:80").unwrap();
        assert_eq!(ask(&mut stream), "10.244.0.2:8080");
        assert_eq!(stream.peer_addr().unwrap(), address("[::ffff:10.96.0.5]:80"));
        let socket = udp_socket("[::ffff:10.96.0.5]:80");
        let (answer, from) = exchange(&socket, "[::ffff:10.96.0.5]:80").unwrap();
        assert_eq!((answer.as_str(), from), ("10.244.0.2:8080", address("[::ffff:10.96.0.5]:80")));
        socket.connect("[::ffff:10.96.0.5]:80").unwrap();
        assert_eq!(socket.peer_addr().unwrap(), address("[::ffff:10.96.0.5]:80"));
        socket.send(b"who?").unwrap();
        assert_eq!(socket.recv_from(&mut [0; 64]).unwrap().1, address("[::ffff:10.96.0.5]:80"));
    });
}

#[test]
fn scenario_13_a_direct_connection_after_a_service_shows_the_pod() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let mut world = node.serve(web(&["10.244.0.2"]));
        let socket = udp_socket("10.96.0.5:80");
        socket.connect("10.96.0.5:80").unwrap();
        assert_eq!(socket.peer_addr().unwrap(), address("10.96.0.5:80"));
        disconnect(&socket);
        socket.connect("10.244.0.2:8080").unwrap();
        assert_eq!(socket.peer_addr().unwrap(), address("10.244.0.2:8080"));
        world.apply(Event::Delete(Kind::Service, name("shop/web")));
        socket.send(b"who?").unwrap();
        assert_eq!(socket.recv_from(&mut [0; 64]).unwrap().1, address("10.244.0.2:8080"));
    });
}

#[test]
fn scenario_14_replies_come_from_the_service_that_was_asked() {
    on_a_node(|node| {
        let backends = ["10.244.0.2", "10.244.0.3"];
        backends.iter().for_each(|ip| backend(ip, 8080));
        let two = |name: &str, vip: &str, backends: &[&str]| -> Vec<Object> {
            let slice = slice("s", name).port("8080/UDP").ready(backends);
            let slice = model::EndpointSlice { name: model::testing::name(name), ..slice };
            vec![service(name, &[vip]).port("80/UDP").into(), slice.into()]
        };
        let all = [two("x/one", "10.96.0.5", &backends), two("x/two", "10.96.0.6", &backends)];
        let mut world = node.serve(all.into_iter().flatten());
        for _ in 0..20 {
            let socket = udp_socket("10.96.0.5:80");
            let (one, two) = ("10.96.0.5:80", "10.96.0.6:80");
            socket.send_to(b"who?", one).unwrap();
            socket.send_to(b"who?", two).unwrap();
            let mut from = [(); 2].map(|()| socket.recv_from(&mut [0; 64]).unwrap().1);
            from.sort();
            assert_eq!(from, [address(one), address(two)]);
        }
        // With a single shared backend the reply carries the service asked last.
        for object in two("x/one", "10.96.0.5", &["10.244.0.2"]).into_iter().chain(two(
            "x/two",
            "10.96.0.6",
            &["10.244.0.2"],
        )) {
            world.apply(Event::Apply(object));
        }
        let socket = udp_socket("10.96.0.5:80");
        for vip in ["10.96.0.5:80", "10.96.0.6:80", "10.96.0.5:80"] {
            assert_eq!(exchange(&socket, vip).unwrap().1, address(vip));
        }
    });
}

#[test]
fn scenario_15_the_only_endpoint_reaches_itself() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let _world = node.serve(web(&["10.244.0.2"]));
        let client = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        client.bind(&address("10.244.0.2:0").into()).unwrap();
        client.connect(&address("10.96.0.5:80").into()).unwrap();
        assert_eq!(ask(&mut client.into()), "10.244.0.2:8080");
        let client = std::net::UdpSocket::bind("10.244.0.2:0").unwrap();
        assert_eq!(exchange(&client, "10.96.0.5:80").unwrap().1, address("10.96.0.5:80"));
    });
}

#[test]
fn scenario_17_terminating_and_not_serving_gets_nothing() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let service = service("shop/web", &["10.96.0.5"]).port("80/TCP");
        let slice = |endpoint| slice("web-1", "shop/web").port("8080/TCP").with(endpoint);
        let serving = slice(endpoint("10.244.0.2").terminating(true));
        let mut world = node.serve([service.into(), serving.into()]);
        assert_eq!(reach("10.96.0.5:80"), "10.244.0.2:8080");
        world.apply(Event::Apply(slice(endpoint("10.244.0.2").terminating(false)).into()));
        assert_eq!(refused("10.96.0.5:80"), ErrorKind::ConnectionRefused);
    });
}

#[test]
fn scenario_22_internal_policy_local_without_a_local_endpoint() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let mut web = service("shop/web", &["10.96.0.5"]).port("80/TCP:30080");
        web.traffic.internal = model::TrafficPolicy::Local;
        let there = slice("web-1", "shop/web").port("8080/TCP").with(endpoint("10.244.0.2").on("b"));
        let mut world = node.serve([web.into(), there.into()]);
        assert_eq!(refused("10.96.0.5:80"), ErrorKind::HostUnreachable);
        assert_eq!(reach(&format!("{NODE4}:30080")), "10.244.0.2:8080");
        let here = slice("web-1", "shop/web").port("8080/TCP").with(endpoint("10.244.0.2").on("a"));
        world.apply(Event::Apply(here.into()));
        assert_eq!(reach("10.96.0.5:80"), "10.244.0.2:8080");
    });
}

/// A service with affinity on ClusterIP, NodePort and load-balancer IP, and these backends.
fn sticky(timeout_seconds: u32, backends: &[&str]) -> Vec<Object> {
    let service = service("shop/web", &["10.96.0.5"])
        .port("a:80/TCP:30080")
        .port("b:81/TCP")
        .client_ip(timeout_seconds)
        .load_balancer_ip("203.0.113.7");
    let slice = slice("web-1", "shop/web").port("a:8080/TCP").port("b:8080/TCP").ready(backends);
    vec![service.into(), slice.into()]
}

#[test]
fn scenario_25_affinity_is_per_client_and_service_port() {
    on_a_node(|node| {
        let backends: Vec<String> = (2..22).map(|last| format!("10.244.0.{last}")).collect();
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        backends.iter().for_each(|ip| backend(ip, 8080));
        let _world = node.serve(sticky(10800, &backends));
        let vips = ["10.96.0.5:80", &format!("{NODE4}:30080"), "203.0.113.7:80", "127.0.0.1:30080"];
        let first = reach(vips[0]);
        for attempt in 0..50 {
            assert_eq!(reach(vips[attempt % vips.len()]), first);
        }
        // Nineteen in twenty that each of these is another one; all of them together cannot stay by chance.
        let pods: Vec<String> = (0..8)
            .map(|_| {
                in_pod(|| {
                    backends.iter().for_each(|ip| backend(ip, 8080));
                    let first = reach("10.96.0.5:80");
                    assert_eq!([(); 10].map(|()| reach("10.96.0.5:80")), [(); 10].map(|()| first.clone()));
                    first
                })
            })
            .collect();
        assert!(pods.iter().any(|pod| *pod != first), "{pods:?}");
    });
}

#[test]
fn a_known_pod_is_the_client_by_its_address() {
    on_a_node(|node| {
        let backends: Vec<String> = (2..22).map(|last| format!("10.244.0.{last}")).collect();
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        let _world = node.serve(sticky(10800, &backends));
        let pin = node.bpf_dir.join(ebpf::maps::LAYOUT).join(ebpf::maps::PODS);
        // Two namespaces of one address: a pod's sandbox that was made anew.
        let reached: Vec<String> = (0..6)
            .map(|_| {
                in_pod(|| {
                    backends.iter().for_each(|ip| backend(ip, 8080));
                    let map = aya::maps::MapData::from_pin(&pin).unwrap();
                    let mut pods: aya::maps::HashMap<_, u64, [u8; 32]> =
                        aya::maps::Map::HashMap(map).try_into().unwrap();
                    let mut value = [0; 32];
                    value[..16].copy_from_slice(&ebpf::address::Address::from(ip("10.244.9.9")).bytes());
                    pods.insert(proxy::netns_cookie().unwrap(), value, 0).unwrap();
                    reach("10.96.0.5:80")
                })
            })
            .collect();
        assert!(reached.iter().all(|backend| *backend == reached[0]), "{reached:?}");
    });
}

#[test]
fn scenario_26_affinity_moves_at_once_when_its_endpoint_goes() {
    on_a_node(|node| {
        let mut backends: Vec<&str> = vec!["10.244.0.2", "10.244.0.3", "10.244.0.4"];
        backends.iter().for_each(|ip| backend(ip, 8080));
        let mut world = node.serve(sticky(10, &backends));
        let first = reach("10.96.0.5:80");
        assert_eq!([(); 5].map(|()| reach("10.96.0.5:80")), [(); 5].map(|()| first.clone()));
        backends.retain(|ip| !first.starts_with(&format!("{ip}:")));
        sticky(10, &backends).into_iter().for_each(|object| world.apply(Event::Apply(object)));
        let second = reach("10.96.0.5:80");
        assert_ne!(first, second);
        assert_eq!([(); 5].map(|()| reach("10.96.0.5:80")), [(); 5].map(|()| second.clone()));
    });
}

#[test]
fn scenario_30_after_each_change_of_type_the_right_addresses_answer() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let slice: Object = slice("web-1", "shop/web").port("8080/TCP").ready(&["10.244.0.2"]).into();
        let cluster_ip = || service("shop/web", &["10.96.0.5"]).port("80/TCP");
        let node_port = || service("shop/web", &["10.96.0.5"]).port("80/TCP:30080");
        let mut world = node.serve([cluster_ip().into(), slice]);
        let answers = || {
            let node_port = format!("{NODE4}:30080");
            ["10.96.0.5:80", node_port.as_str(), "203.0.113.7:80"].map(reachable)
        };
        assert_eq!(answers(), [true, false, false]);
        world.apply(Event::Apply(node_port().into()));
        assert_eq!(answers(), [true, true, false]);
        world.apply(Event::Apply(node_port().load_balancer_ip("203.0.113.7").into()));
        assert_eq!(answers(), [true, true, true]);
        world.apply(Event::Apply(model::testing::external_name("shop/web", "example.com").into()));
        assert_eq!(answers(), [false, false, false]);
        world.apply(Event::Apply(cluster_ip().into()));
        assert_eq!(answers(), [true, false, false]);
    });
}

#[test]
fn scenario_32_a_service_of_another_proxy_is_left_alone_and_comes_back() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let mut world = node.serve(web(&["10.244.0.2"]));
        assert!(reachable("10.96.0.5:80"));
        let Object::Service(ours) = web(&[]).remove(0) else { unreachable!() };
        let theirs = model::Service { proxied_elsewhere: true, ..ours.clone() };
        world.apply(Event::Apply(theirs.into()));
        assert!(!reachable("10.96.0.5:80"));
        assert!(world.proxy.tables().frontends.is_empty());
        world.apply(Event::Apply(ours.into()));
        assert!(reachable("10.96.0.5:80"));
        world.apply(Event::Apply(model::testing::headless("shop/none").port("80/TCP").into()));
        assert_eq!(world.proxy.tables().services.len(), 2);
    });
}

#[test]
fn scenario_33_each_family_stands_alone_also_after_a_restart() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        backend("fd00:244::2", 8080);
        let service = service("shop/web", &["10.96.0.5", "fd00:96::5"]).port("80/TCP");
        let slice4 = slice("web-4", "shop/web").port("8080/TCP").ready(&["10.244.0.2"]);
        let slice6 = slice("web-6", "shop/web").port("8080/TCP").ready(&["fd00:244::2"]);
        let mut world = node.serve([service.into(), slice4.into()]);
        assert_eq!(reach("10.96.0.5:80"), "10.244.0.2:8080");
        assert_eq!(refused("[fd00:96::5]:80"), ErrorKind::ConnectionRefused);
        world.apply(Event::Apply(slice6.into()));
        let mut stream = dial("[fd00:96::5]:80").unwrap();
        assert_eq!(ask(&mut stream), "[fd00:244::2]:8080");
        assert_eq!(stream.peer_addr().unwrap(), address("[fd00:96::5]:80"));

        world.proxy.close();
        world.proxy = node.proxy();
        let ops = world.proxy.grow(&world.cluster.snapshot(), std::time::Instant::now()).ops;
        assert_eq!(ops, 0, "a restart over an unchanged cluster writes nothing");
        assert!(reachable("10.96.0.5:80") && reachable("[fd00:96::5]:80"));
    });
}

#[test]
fn scenario_34_connections_and_affinities_outlive_the_process() {
    on_a_node(|node| {
        let backends: Vec<String> = (2..22).map(|last| format!("10.244.0.{last}")).collect();
        let mut backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        backends.iter().for_each(|ip| backend(ip, 8080));
        let mut world = node.serve(sticky(10800, &backends));
        let mut streams: Vec<_> = (0..20).map(|_| dial("10.96.0.5:80").unwrap()).collect();
        let first = ask(&mut streams[0]);
        // Dropped without a goodbye: the pins are what is left of it.
        drop(world.proxy);
        assert_eq!(reach("10.96.0.5:80"), first);
        world.proxy = node.proxy();
        assert_eq!(reach("10.96.0.5:80"), first);
        // The change made meanwhile is written, and nothing else.
        let gone = backends.iter().position(|ip| !first.starts_with(&format!("{ip}:"))).unwrap();
        backends.remove(gone);
        sticky(10800, &backends).into_iter().for_each(|object| world.cluster.apply(Event::Apply(object)));
        let outcome = world.proxy.grow(&world.cluster.snapshot(), std::time::Instant::now());
        assert_eq!(outcome.ops, 2 * 3, "block, word and the windows of one endpoint, on two ports");
        assert_eq!(reach("10.96.0.5:80"), first);
        streams.iter_mut().for_each(|stream| assert_eq!(ask(stream), first));
        assert_eq!(streams[0].peer_addr().unwrap(), address("10.96.0.5:80"));
    });
}

#[test]
fn scenario_35_nothing_is_removed_before_the_lists_are_complete() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let world = node.serve(web(&["10.244.0.2"]));
        drop(world.proxy);
        let mut proxy = node.proxy();
        let now = std::time::Instant::now();
        let mut cluster = model::Cluster::new();
        for kind in [Kind::Service, Kind::Node] {
            cluster.apply(Event::Replace(kind, Vec::new()));
            assert_eq!(proxy.grow(&cluster.snapshot(), now), proxy::Outcome::default());
            assert_eq!(proxy.shrink(now + proxy::GRACE), None);
            assert_eq!(reach("10.96.0.5:80"), "10.244.0.2:8080");
        }
        cluster.apply(Event::Replace(Kind::EndpointSlice, Vec::new()));
        assert!(proxy.grow(&cluster.snapshot(), now).complete);
        proxy.shrink(now + proxy::GRACE);
        assert!(!reachable("10.96.0.5:80"));
    });
}

#[test]
fn scenario_37_what_does_not_fit_is_reported_and_the_rest_works() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        // Two for the services, two for the daemon's own probe.
        let config = proxy::Config { sizes: proxy::Sizes { services: 4, ..SMALL }, ..node.config() };
        let mut proxy = proxy::Proxy::open(config).unwrap();
        let mut cluster = model::testing::listed([]);
        for (index, name) in ["x/a", "x/b", "x/c"].into_iter().enumerate() {
            let vip = format!("10.96.0.{}", index + 5);
            let slice = slice("s", name).port("8080/TCP").ready(&["10.244.0.2"]);
            let slice = model::EndpointSlice { name: model::testing::name(name), ..slice };
            cluster.apply(Event::Apply(service(name, &[&vip]).port("80/TCP").into()));
            cluster.apply(Event::Apply(slice.into()));
        }
        let now = std::time::Instant::now();
        let outcome = proxy.grow(&cluster.snapshot(), now);
        assert_eq!(outcome.unprogrammed.keys().collect::<Vec<_>>(), [&name("x/c")]);
        assert!(reachable("10.96.0.5:80") && reachable("10.96.0.6:80"));
        cluster.apply(Event::Delete(Kind::Service, name("x/a")));
        proxy.grow(&cluster.snapshot(), now);
        proxy.shrink(now + proxy::GRACE);
        let outcome = proxy.grow(&cluster.snapshot(), now);
        assert!(outcome.unprogrammed.is_empty(), "{outcome:?}");
        assert!(reachable("10.96.0.7:80") && !reachable("10.96.0.5:80"));
    });
}

#[test]
fn scenario_39_no_connect_fails_while_endpoints_are_replaced() {
    on_a_node(|node| {
        let backends = ["10.244.0.2", "10.244.0.3", "10.244.0.4"];
        backends.iter().for_each(|ip| backend(ip, 8080));
        let mut world = node.serve(web(&backends));
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let reached = reach("10.96.0.5:80");
                        assert!(backends.iter().any(|ip| reached == format!("{ip}:8080")), "{reached}");
                    }
                });
            }
            for round in 0..1000 {
                let kept: Vec<&str> = backends
                    .iter()
                    .enumerate()
                    .filter(|(index, _)| index % 3 != round % 3)
                    .map(|(_, ip)| *ip)
                    .collect();
                web(&kept).into_iter().for_each(|object| world.apply(Event::Apply(object)));
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    });
}

#[test]
fn scenario_45_a_node_port_never_takes_a_pods_own_loopback() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let service = service("shop/web", &["10.96.0.5", "fd00:96::5"]).port("80/TCP:30080");
        let slice = slice("web-1", "shop/web").port("8080/TCP").ready(&["10.244.0.2"]);
        let _world = node.serve([service.into(), slice.into()]);
        assert_eq!(reach("127.0.0.1:30080"), "10.244.0.2:8080");
        assert_eq!(refused("[::1]:30080"), ErrorKind::ConnectionRefused);
        in_pod(|| {
            serve("127.0.0.1", 30080);
            serve("::1", 30080);
            assert_eq!(reach("127.0.0.1:30080"), "127.0.0.1:30080");
            assert_eq!(reach("[::1]:30080"), "[::1]:30080");
        });
    });
}

#[test]
fn the_cluster_dns_answers_here_while_the_daemon_lives() {
    on_a_node(|node| {
        backend("10.96.0.10", 53);
        backend("10.244.0.2", 53);
        let dns = service("kube-system/kube-dns", &["10.96.0.10"]).port("dns:53/UDP").port("tcp:53/TCP");
        let slice =
            slice("d", "kube-system/kube-dns").port("dns:53/UDP").port("tcp:53/TCP").ready(&["10.244.0.2"]);
        let world = node.serve([dns.into(), slice.into()]);
        let heartbeat = world.proxy.heartbeat();
        let asked = |socket: &std::net::UdpSocket| exchange(socket, "10.96.0.10:53").unwrap().0;
        heartbeat.beat();
        let socket = udp_socket("10.96.0.10:53");
        assert_eq!(
            (asked(&socket), reach("10.96.0.10:53")),
            ("10.96.0.10:53".into(), "10.96.0.10:53".into())
        );
        heartbeat.stop();
        assert_eq!(
            (asked(&socket), reach("10.96.0.10:53")),
            ("10.244.0.2:53".into(), "10.244.0.2:53".into())
        );
    });
}

/// Whether a connection is made within half a second: an address that nobody has swallows it silently.
fn reachable(vip: &str) -> bool {
    std::net::TcpStream::connect_timeout(&address(vip), std::time::Duration::from_millis(500)).is_ok()
}

//! Real sockets through the real programs: what a client of a service sees. Every test has a process, a network
//! namespace, a cgroup and pins of its own.

mod support;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use model::testing::{endpoint, name, service, slice};
use model::{Event, Kind, Object};

use support::*;

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
        let opened: u64 = world.proxy.backends().map(|backend| backend.count.opened).sum();
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

/// A UDP client of `frontend` with one port whose endpoint is replaced.
fn replace_under_a_client(world: &mut World, frontend: &str) {
    web(&["10.244.0.2"]).into_iter().for_each(|object| world.apply(Event::Apply(object)));
    let socket = udp_socket(frontend);
    assert_eq!(
        exchange(&socket, frontend).expect("it is answered"),
        ("10.244.0.2:8080".into(), address(frontend))
    );
    web(&["10.244.0.3"]).into_iter().for_each(|object| world.apply(Event::Apply(object)));
    assert_eq!(
        exchange(&socket, frontend).expect("it is answered"),
        ("10.244.0.3:8080".into(), address(frontend))
    );
}

#[test]
fn scenario_10_a_datagram_after_a_replacement_reaches_a_live_endpoint() {
    on_a_node(|node| {
        ["10.244.0.2", "10.244.0.3"].iter().for_each(|ip| backend(ip, 8080));
        replace_under_a_client(&mut node.serve(web(&[])), "10.96.0.5:80");
    });
}

#[test]
fn scenario_12_a_replacement_under_a_pod_and_under_a_mapped_address() {
    on_a_node(|node| {
        ["10.244.0.2", "10.244.0.3"].iter().for_each(|ip| backend(ip, 8080));
        let mut world = node.serve(web(&[]));
        replace_under_a_client(&mut world, "[::ffff:10.96.0.5]:80");
        in_pod(|| {
            ["10.244.0.2", "10.244.0.3"].iter().for_each(|ip| backend(ip, 8080));
            replace_under_a_client(&mut world, "10.96.0.5:80");
            replace_under_a_client(&mut world, "[::ffff:10.96.0.5]:80");
        });
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
fn a_socket_whose_seat_is_taken_has_its_record_beside_it() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let world = node.serve(web(&["10.244.0.2"]));
        let peer = |socket: &UdpSocket| socket.peer_addr().unwrap();
        let (vip, pod) = (address("10.96.0.5:80"), address("10.244.0.2:8080"));
        let connected = |socket: UdpSocket, to: SocketAddr| {
            socket.connect(to).unwrap();
            socket
        };
        let first = connected(udp_socket("10.96.0.5:80"), vip);
        let second = connected(of_the_seat_of(&first), vip);
        assert_eq!(records(&node.bpf_dir), (1, 1));
        assert_eq!((peer(&first), peer(&second)), (vip, vip));
        assert_eq!(world.proxy.connections().list().unwrap().0.len(), 2);
        // A direct connection has no record, wherever the one before it was.
        let second = connected(second, pod);
        assert_eq!((peer(&first), peer(&second)), (vip, pod));
        assert_eq!(records(&node.bpf_dir), (1, 0));
        let second = connected(second, vip);
        drop(first);
        assert_eq!((peer(&second), records(&node.bpf_dir)), (vip, (0, 1)));
        // It moves to the seat, now that it is free.
        let second = connected(second, vip);
        assert_eq!((peer(&second), records(&node.bpf_dir)), (vip, (1, 0)));
        drop(second);
        assert_eq!(records(&node.bpf_dir), (0, 0));
        assert_eq!(world.proxy.backends().map(|backend| backend.count.closed).sum::<u64>(), 4);
    });
}

/// A socket that shares its seat with another one: cookies are handed out one after the other, in batches to each CPU.
fn of_the_seat_of(other: &UdpSocket) -> UdpSocket {
    let wanted = ebpf::seat::index(cookie(other));
    for _ in 0..16 * ebpf::maps::RECORDS_ENTRIES {
        let socket = udp_socket("10.96.0.5:80");
        if ebpf::seat::index(cookie(&socket)) == wanted {
            return socket;
        }
    }
    panic!("no cookie for seat {wanted}");
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
        let client = UdpSocket::bind("10.244.0.2:0").unwrap();
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
        assert_eq!(difference(&mut proxy), None, "nothing of what did not fit is left in the maps");
    });
}

#[test]
fn scenario_39_no_connect_fails_while_endpoints_are_replaced() {
    on_a_node(|node| {
        let backends = ["10.244.0.2", "10.244.0.3", "10.244.0.4"];
        backends.iter().for_each(|ip| backend(ip, 8080));
        // Another service comes and goes, so that ids change hands: its servers are never in the set.
        add_address("10.244.0.9");
        let strangers: Vec<String> = (9000..9004).map(|port| format!("10.244.0.9:{port}")).collect();
        strangers.iter().for_each(|address| tcp_server(address));
        let other = |round: usize| {
            let slice = slice("other-1", "shop/other").port(&format!("{}/TCP", 9000 + round % 4));
            slice.ready(&["10.244.0.9"]).into()
        };
        let mut world = node.serve(web(&backends));
        world.apply(Event::Apply(service("shop/other", &["10.96.0.6"]).port("80/TCP").into()));
        let stop = AtomicBool::new(false);
        let [tried, failed, misdirected] = [(); 3].map(|()| AtomicU64::new(0));
        let connect = || {
            while !stop.load(Ordering::Relaxed) {
                tried.fetch_add(1, Ordering::Relaxed);
                let Ok(mut stream) = dial("10.96.0.5:80") else {
                    failed.fetch_add(1, Ordering::Relaxed);
                    continue;
                };
                let reached = ask(&mut stream);
                let right = backends.iter().any(|ip| reached == format!("{ip}:8080"));
                misdirected.fetch_add(u64::from(!right), Ordering::Relaxed);
            }
        };
        std::thread::scope(|scope| {
            (0..16).for_each(|_| drop(scope.spawn(connect)));
            for round in 0..1000 {
                let indices = (0..backends.len()).filter(|index| index % 3 != round % 3);
                let kept: Vec<&str> = indices.map(|index| backends[index]).collect();
                web(&kept).into_iter().for_each(|object| world.apply(Event::Apply(object)));
                world.apply(Event::Apply(other(round)));
            }
            stop.store(true, Ordering::Relaxed);
        });
        let counts = [tried, failed, misdirected].map(AtomicU64::into_inner);
        eprintln!("1000 replacements: tried, failed, misdirected: {counts:?}");
        assert!(counts[0] > 1000 && counts[1..] == [0, 0], "{counts:?}");
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
        let asked = || {
            let socket = udp_socket("10.96.0.10:53");
            [exchange(&socket, "10.96.0.10:53").unwrap().0, reach("10.96.0.10:53")]
        };
        let (here, elsewhere) = (["10.96.0.10:53", "10.96.0.10:53"], ["10.244.0.2:53", "10.244.0.2:53"]);
        let mut alone = world.proxy.heartbeat();
        alone.beat();
        alone.beat();
        assert_eq!(asked(), here);
        alone.stop();
        assert_eq!(asked(), elsewhere);
        // During a take-over both beat, the one that leaves perhaps last.
        let (mut old, mut new) = (world.proxy.heartbeat(), world.proxy.heartbeat());
        old.beat();
        new.beat();
        old.beat();
        old.stop();
        assert_eq!(asked(), here);
    });
}

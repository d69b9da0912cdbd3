//! Sockets whose endpoint is gone: who is ended, and who is left alone (R9). Real sockets of the node and of pods,
//! which have a process to be found by.

mod support;

use std::io::{ErrorKind, Result};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use model::testing::{ip, name, service, slice};
use model::{Event, Kind, Object, Pod};

use support::*;

/// R9 says "at once"; a test waits longer before it gives up.
const PATIENCE: Duration = Duration::from_secs(10);

/// Service `x/dns` on 10.96.0.5:53, UDP and TCP, with these backends on 5353.
fn dns(backends: &[&str]) -> Vec<Object> {
    let service = service("x/dns", &["10.96.0.5"]).port("u:53/UDP").port("t:53/TCP");
    let slice = slice("dns-1", "x/dns").port("u:5353/UDP").port("t:5353/TCP").ready(backends);
    vec![service.into(), slice.into()]
}

fn apply(world: &mut World, objects: Vec<Object>) {
    objects.into_iter().for_each(|object| world.apply(Event::Apply(object)));
}

/// A UDP socket connected to `frontend`, which has been answered by `backend`.
fn connected(frontend: &str, backend: &str) -> UdpSocket {
    let socket = udp_socket(frontend);
    socket.connect(frontend).expect("it connects");
    assert_eq!(question(&socket).expect("an answer"), backend);
    socket
}

/// A question and its answer over a connected socket.
fn question(socket: &UdpSocket) -> Result<String> {
    socket.send(b"who?")?;
    let mut buffer = [0; 128];
    let read = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(&buffer[..read]).into_owned())
}

/// Waits until a socket has no peer any more. A receive says ECONNABORTED; a send that comes first, that there is
/// no destination.
fn until_ended(socket: &UdpSocket) {
    let begun = Instant::now();
    loop {
        match question(socket) {
            Err(error) => {
                let known = [Some(libc::ECONNABORTED), Some(libc::EDESTADDRREQ)];
                return assert!(known.contains(&error.raw_os_error()), "{error}");
            }
            Ok(answer) => assert!(begun.elapsed() < PATIENCE, "still answered by {answer}"),
        }
    }
}

/// Waits until so many sockets have been ended.
fn until_counted(world: &World, datagrams: u64, streams: u64) {
    let begun = Instant::now();
    while (world.proxy.ended().datagrams, world.proxy.ended().streams) != (datagrams, streams) {
        assert!(begun.elapsed() < PATIENCE, "{:?}", world.proxy.ended());
        std::thread::yield_now();
    }
}

#[test]
fn scenario_11_a_connected_socket_of_a_pod_ends_with_its_endpoint() {
    on_a_node(|node| {
        let mut world = node.serve(dns(&["10.244.0.2", "10.244.0.3"]));
        in_pod(|| {
            ["10.244.0.2", "10.244.0.3"].iter().for_each(|ip| backend(ip, 5353));
            // As many as it takes to have one on each endpoint.
            let sockets: Vec<UdpSocket> = std::iter::repeat_with(|| udp_socket("10.96.0.5:53"))
                .inspect(|socket| socket.connect("10.96.0.5:53").expect("it connects"))
                .take(20)
                .collect();
            let answers: Vec<String> = sockets.iter().map(|socket| question(socket).unwrap()).collect();
            apply(&mut world, dns(&["10.244.0.3"]));
            for (socket, answer) in sockets.iter().zip(&answers) {
                if answer == "10.244.0.2:5353" {
                    until_ended(socket);
                } else {
                    assert_eq!(question(socket).unwrap(), "10.244.0.3:5353");
                }
            }
            let moved = answers.iter().filter(|answer| *answer == "10.244.0.2:5353").count() as u64;
            until_counted(&world, moved, 0);
            assert_eq!(world.proxy.ended().unseen, proxy::Unseen::default());
        });
    });
}

#[test]
fn scenario_12_sockets_of_the_node_and_with_mapped_addresses_end_too() {
    on_a_node(|node| {
        ["10.244.0.2", "10.244.0.3"].iter().for_each(|ip| backend(ip, 5353));
        let mut world = node.serve(dns(&["10.244.0.2"]));
        let plain = connected("10.96.0.5:53", "10.244.0.2:5353");
        let mapped = connected("[::ffff:10.96.0.5]:53", "10.244.0.2:5353");
        // Not through a service: no business of ours.
        let direct = connected("10.244.0.2:5353", "10.244.0.2:5353");
        apply(&mut world, dns(&["10.244.0.3"]));
        until_ended(&plain);
        until_ended(&mapped);
        assert_eq!(question(&direct).unwrap(), "10.244.0.2:5353");
    });
}

#[test]
fn scenario_13_removing_the_service_ends_its_socket_and_not_one_that_went_on_to_the_pod() {
    on_a_node(|node| {
        backend("10.244.0.2", 5353);
        let mut world = node.serve(dns(&["10.244.0.2"]));
        let stays = connected("10.96.0.5:53", "10.244.0.2:5353");
        let goes_on = connected("10.96.0.5:53", "10.244.0.2:5353");
        disconnect(&goes_on);
        goes_on.connect("10.244.0.2:5353").unwrap();
        world.apply(Event::Delete(Kind::Service, name("x/dns")));
        until_ended(&stays);
        assert_eq!(question(&goes_on).unwrap(), "10.244.0.2:5353");
        assert_eq!(goes_on.peer_addr().unwrap(), "10.244.0.2:5353".parse::<SocketAddr>().unwrap());
        until_counted(&world, 1, 0);
    });
}

#[test]
fn a_service_without_endpoints_is_left_alone_and_a_start_catches_up() {
    on_a_node(|node| {
        ["10.244.0.2", "10.244.0.3"].iter().for_each(|ip| backend(ip, 5353));
        let mut world = node.serve(dns(&["10.244.0.2"]));
        let socket = connected("10.96.0.5:53", "10.244.0.2:5353");
        apply(&mut world, dns(&[]));
        // Time for both looks at the sockets, which must find nothing to end.
        std::thread::sleep(Duration::from_secs(1));
        assert_eq!(question(&socket).unwrap(), "10.244.0.2:5353");
        world.proxy.close();
        // The endpoint was replaced while no daemon ran.
        let _world = node.serve(dns(&["10.244.0.3"]));
        until_ended(&socket);
    });
}

#[test]
fn connections_end_by_option_only_and_only_with_their_pod() {
    on_a_node(|node| {
        ["10.244.0.2", "10.244.0.3", "10.244.0.4"].iter().for_each(|ip| backend(ip, 5353));
        let pod = |name: &str, address: &str| Pod {
            name: model::testing::name(name),
            addresses: vec![ip(address)],
            labels: std::collections::BTreeMap::new(),
            node: Some("a".into()),
            host_network: false,
        };
        let world_of = |end_tcp| {
            let config = proxy::Config { end_tcp, ..node.config() };
            let proxy = proxy::Proxy::open(config).unwrap();
            let objects = dns(&["10.244.0.2"]).into_iter();
            let pods = [pod("x/a", "10.244.0.2"), pod("x/b", "10.244.0.3")].map(Object::Pod);
            let mut world = World { proxy, cluster: model::testing::listed(objects.chain(pods)) };
            world.sync();
            world
        };
        for end_tcp in [false, true] {
            let mut world = world_of(end_tcp);
            let mut gone = dial("10.96.0.5:53").unwrap();
            assert_eq!(ask(&mut gone), "10.244.0.2:5353");
            apply(&mut world, dns(&["10.244.0.3"]));
            let mut relabelled = dial("10.96.0.5:53").unwrap();
            assert_eq!(ask(&mut relabelled), "10.244.0.3:5353");
            // One pod goes, the other one only leaves the slices.
            world.apply(Event::Delete(Kind::Pod, name("x/a")));
            apply(&mut world, dns(&["10.244.0.4"]));
            if end_tcp {
                let mut buffer = [0; 1];
                let error = std::io::Read::read(&mut gone, &mut buffer).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
                until_counted(&world, 0, 1);
            } else {
                std::thread::sleep(Duration::from_secs(1));
                assert_eq!(ask(&mut gone), "10.244.0.2:5353");
            }
            assert_eq!(ask(&mut relabelled), "10.244.0.3:5353");
            world.proxy.close();
        }
    });
}

#[test]
fn many_stale_sockets_end_while_the_tables_go_on() {
    on_a_node(|node| {
        const SOCKETS: usize = 10_000;
        raise_file_limit();
        ["10.244.0.2", "10.244.0.3"].iter().for_each(|ip| add_address(ip));
        let mut world = node.serve(dns(&["10.244.0.2"]));
        let sockets: Vec<UdpSocket> = (0..SOCKETS).map(|_| udp_socket("10.96.0.5:53")).collect();
        sockets.iter().for_each(|socket| socket.connect("10.96.0.5:53").unwrap());
        let begun = Instant::now();
        apply(&mut world, dns(&["10.244.0.3"]));
        // The tables were swapped before anything was ended; nobody waited for that.
        let frontend = udp_socket("10.96.0.5:53");
        frontend.connect("10.96.0.5:53").unwrap();
        until_counted(&world, SOCKETS as u64, 0);
        eprintln!("{SOCKETS} stale sockets ended in {:?}", begun.elapsed());
        sockets.iter().for_each(until_ended);
        assert_eq!(frontend.send(b"x").unwrap(), 1);
    });
}

#[test]
fn a_record_whose_close_nobody_saw_is_swept() {
    on_a_node(|node| {
        backend("10.244.0.2", 5353);
        // This one never closes: its client's goodbye stays unanswered.
        add_address("10.244.0.3");
        let silent = std::net::TcpListener::bind("10.244.0.3:5353").unwrap();
        let world = node.serve(dns(&["10.244.0.3"]));
        let departing = dial("10.96.0.5:53").unwrap();
        let _accepted = silent.accept().unwrap();
        world.proxy.close();
        let world = node.serve(dns(&["10.244.0.2"]));
        let (lost, mut kept) = (dial("10.96.0.5:53").unwrap(), dial("10.96.0.5:53").unwrap());
        world.proxy.close();
        foreign::detach(&node.bpf_dir.join(ebpf::maps::LAYOUT).join("link_release"));
        drop((lost, departing));
        let records = || records(&node.bpf_dir);
        assert_eq!(records(), (3, 0));
        let _world = node.serve(dns(&["10.244.0.2"]));
        let begun = Instant::now();
        while records() != (1, 0) {
            assert!(begun.elapsed() < PATIENCE, "{:?} records", records());
            std::thread::sleep(Duration::from_millis(10));
        }
        assert_eq!(kept.peer_addr().unwrap(), "10.96.0.5:53".parse::<SocketAddr>().unwrap());
        assert_eq!(ask(&mut kept), "10.244.0.2:5353");
    });
}

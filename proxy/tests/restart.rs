//! What outlives the process: a restart, an upgrade to another layout of the maps, a start that fails. Another
//! version is played by another number of the layout.

mod support;

use std::io::ErrorKind;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use model::testing::{service, slice};
use model::{Event, Kind};
use proxy::{Config, Proxy};

use support::*;

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
        let ops = world.proxy.grow(&world.cluster.snapshot(), Instant::now()).ops;
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
        let outcome = world.proxy.grow(&world.cluster.snapshot(), Instant::now());
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
        let now = Instant::now();
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
fn scenario_27_affinity_and_connections_survive_another_layout() {
    on_a_node(|node| {
        let backends: Vec<String> = (2..22).map(|last| format!("10.244.0.{last}")).collect();
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        backends.iter().for_each(|ip| backend(ip, 8080));
        let mut world = node.serve(sticky(10800, &backends));
        // The ids of the next layout are others: what comes last here, in the order of names, is first there.
        let first = reach("10.96.0.5:80");
        let open = dial("10.96.0.5:80").unwrap();
        let udp = service("a/udp", &["10.96.0.6"]).port("80/UDP");
        world.apply(Event::Apply(udp.into()));
        world.apply(Event::Apply(slice("udp-1", "a/udp").port("8080/UDP").ready(&backends[..3]).into()));
        let socket = udp_socket("10.96.0.6:80");
        let chosen = exchange(&socket, "10.96.0.6:80").unwrap();
        let World { proxy, cluster } = world;
        proxy.close();

        let (stop, tried, failed) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
        let mut world = std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    tried.fetch_add(1, Ordering::Relaxed);
                    let right = dial("10.96.0.5:80").is_ok_and(|mut stream| ask(&mut stream) == first);
                    failed.fetch_add(u64::from(!right), Ordering::Relaxed);
                }
            });
            let newer = Config { layout: proxy::LAYOUT + 1, ..node.config() };
            let mut world = World { proxy: Proxy::open(newer).unwrap(), cluster };
            assert_eq!(reach("10.96.0.5:80"), first, "the older programs serve until the maps are filled");
            assert!(node.bpf_dir.join("v1/link_connect4").exists());
            world.sync();
            stop.store(true, Ordering::Relaxed);
            world
        });
        assert_eq!(failed.into_inner(), 0, "of {} connections", tried.into_inner());
        assert!(!node.bpf_dir.join("v1").exists() && node.bpf_dir.join("v2/link_connect4").exists());
        assert_eq!([(); 20].map(|()| reach("10.96.0.5:80")), [(); 20].map(|()| first.clone()));
        assert_eq!(
            [(); 20].map(|()| exchange(&socket, "10.96.0.6:80").unwrap()),
            [(); 20].map(|()| chosen.clone())
        );
        assert_eq!(open.peer_addr().unwrap(), address("10.96.0.5:80"));
        assert!(world.proxy.examine(Instant::now()).iter().all(|finding| finding.wrong.is_none()));

        // The older version must not touch what it does not know.
        world.proxy.close();
        let Err(error) = Proxy::open(node.config()) else { panic!("a downgrade must be refused") };
        assert!(error.to_string().contains("those of a newer fairway"), "{error}");
        assert!(!node.bpf_dir.join("v1").exists());
        assert_eq!(reach("10.96.0.5:80"), first);
    });
}

#[test]
fn scenario_37_full_maps_grow_at_a_restart() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        // Two for the services, two for the daemon's own probe.
        let sizes = proxy::Sizes { services: 4, ..SMALL };
        let mut cluster = model::testing::listed([]);
        for (index, name) in ["x/a", "x/b", "x/c"].into_iter().enumerate() {
            cluster.apply(Event::Apply(
                service(name, &[&format!("10.96.0.{}", index + 5)]).port("80/TCP").into(),
            ));
            let endpoints = slice(&format!("s{index}"), name).port("8080/TCP").ready(&["10.244.0.2"]);
            cluster.apply(Event::Apply(endpoints.into()));
        }
        let mut proxy = Proxy::open(Config { sizes, ..node.config() }).unwrap();
        assert_eq!(proxy.grow(&cluster.snapshot(), Instant::now()).unprogrammed.len(), 1);
        let mut open = dial("10.96.0.5:80").unwrap();
        assert!(!reachable("10.96.0.7:80"));
        proxy.close();

        let mut proxy = node.proxy();
        assert_eq!(
            reach("10.96.0.5:80"),
            "10.244.0.2:8080",
            "the small maps serve until the large ones are filled"
        );
        let outcome = proxy.grow(&cluster.snapshot(), Instant::now());
        assert!(outcome.unprogrammed.is_empty(), "{outcome:?}");
        for vip in ["10.96.0.5:80", "10.96.0.6:80", "10.96.0.7:80"] {
            assert_eq!(reach(vip), "10.244.0.2:8080");
        }
        assert!(!node.bpf_dir.join("v0").exists());
        assert_eq!(ask(&mut open), "10.244.0.2:8080");
        assert_eq!(open.peer_addr().unwrap(), address("10.96.0.5:80"));
        // Maps that are larger than they need be stay.
        proxy.close();
        let mut proxy = Proxy::open(Config { sizes, ..node.config() }).unwrap();
        assert_eq!(proxy.grow(&cluster.snapshot(), Instant::now()).ops, 0);
    });
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    on_a_node(|node| {
        let nowhere = Config { cgroup: node.cgroup.join("nowhere"), ..node.config() };
        assert!(Proxy::open(nowhere).is_err());
        assert!(!node.bpf_dir.exists());
        // One that has served nothing yet is no different.
        drop(node.proxy());
        assert!(!node.bpf_dir.exists());
        node.serve(web(&["10.244.0.2"])).proxy.close();
        assert!(node.bpf_dir.join("v1/link_connect4").exists());
    });
}

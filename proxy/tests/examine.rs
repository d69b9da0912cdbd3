//! The self-check: what somebody else takes away or changes is noticed, put right, and nobody else is harmed. The
//! somebody else is played by `support/foreign.rs`.

mod support;

use std::time::Instant;

use aya::maps::{Array, HashMap, Map, MapData};
use ebpf::maps::{FRONTENDS, LAYOUT, SERVICES};
use model::Object;
use model::testing::{service, slice};
use proxy::Finding;

use support::*;

fn web() -> Vec<Object> {
    let service = service("shop/web", &["10.96.0.5"]).port("80/TCP").port("80/UDP");
    let slice = slice("web-1", "shop/web").port("8080/TCP").port("8080/UDP").ready(&["10.244.0.2"]);
    vec![service.into(), slice.into()]
}

/// What was wrong, by what it was.
fn wrong(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().filter(|finding| finding.wrong.is_some()).map(|finding| finding.what).collect()
}

fn well(findings: &[Finding]) -> bool {
    findings.iter().all(|finding| finding.well)
}

#[test]
fn scenario_40_what_was_taken_away_is_put_back_and_others_stay() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        // Somebody else's programs, before ours and after them: each forbids one port.
        let _first = foreign::forbid(&node.cgroup, 4242);
        let mut world = node.serve(web());
        let _second = foreign::forbid(&node.cgroup, 4343);
        let others_run = || {
            for port in [4242, 4343] {
                let address = format!("10.244.0.2:{port}");
                assert_eq!(refused(&address), std::io::ErrorKind::PermissionDenied, "{address}");
            }
        };
        assert_eq!(wrong(&world.proxy.examine(Instant::now())), [""; 0]);
        others_run();

        let pin = node.bpf_dir.join(LAYOUT).join("link_connect4");
        std::fs::remove_file(&pin).unwrap();
        // The kernel drops the last reference to a link some time later.
        while std::net::UdpSocket::bind("127.0.0.1:0").unwrap().connect("10.96.0.5:80").is_ok() {
            std::thread::yield_now();
        }
        let found = world.proxy.examine(Instant::now());
        assert_eq!((wrong(&found), well(&found)), (vec!["programs"], true), "{found:?}");
        assert_eq!(reach("10.96.0.5:80"), "10.244.0.2:8080");
        others_run();
        foreign::detach(&pin);
        let found = world.proxy.examine(Instant::now());
        assert_eq!((wrong(&found), well(&found)), (vec!["programs"], true), "{found:?}");
        assert_eq!(reach("10.96.0.5:80"), "10.244.0.2:8080");
        others_run();
        assert_eq!(wrong(&world.proxy.examine(Instant::now())), [""; 0]);
        assert_eq!(world.proxy.repairs()["programs"], 2);
    });
}

#[test]
fn scenario_40_a_cgroup_that_was_replaced_is_unwell_until_it_is_there_again() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let below = node.cgroup.join("node");
        std::fs::create_dir(&below).unwrap();
        let config = proxy::Config { cgroup: below.clone(), ..node.config() };
        let mut world =
            World { proxy: proxy::Proxy::open(config).unwrap(), cluster: model::testing::listed(web()) };
        world.sync();
        let enter = || std::fs::write(below.join("cgroup.procs"), "0").unwrap();
        enter();
        assert_eq!(wrong(&world.proxy.examine(Instant::now())), [""; 0]);

        std::fs::write(node.cgroup.join("cgroup.procs"), "0").unwrap();
        std::fs::remove_dir(&below).unwrap();
        let found = world.proxy.examine(Instant::now());
        assert!(wrong(&found).contains(&"programs") && !well(&found), "{found:?}");
        std::fs::create_dir(&below).unwrap();
        enter();
        let found = world.proxy.examine(Instant::now());
        assert_eq!((wrong(&found), well(&found)), (vec!["programs"], true), "{found:?}");
        assert_eq!(reach("10.96.0.5:80"), "10.244.0.2:8080");
        std::fs::write(node.cgroup.join("cgroup.procs"), "0").unwrap();
        std::fs::remove_dir(&below).unwrap();
    });
}

#[test]
fn maps_that_somebody_changed_are_put_right() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let mut world = node.serve(web());
        let open = |name: &str| MapData::from_pin(node.bpf_dir.join(LAYOUT).join(name)).unwrap();
        let mut frontends: HashMap<_, [u8; 20], u64> = Map::HashMap(open(FRONTENDS)).try_into().unwrap();
        let keys: Vec<[u8; 20]> = frontends.keys().map(Result::unwrap).collect();
        for key in &keys {
            frontends.remove(key).unwrap();
        }
        let found = world.proxy.examine(Instant::now());
        assert_eq!((wrong(&found), well(&found)), (vec!["maps"], true), "{found:?}");
        assert_eq!(reach("10.96.0.5:80"), "10.244.0.2:8080");

        let mut services: Array<_, u64> = Map::Array(open(SERVICES)).try_into().unwrap();
        for id in 0..8 {
            services.set(id, 0, 0).unwrap();
        }
        let found = world.proxy.examine(Instant::now());
        assert_eq!((wrong(&found), well(&found)), (vec!["maps"], true), "{found:?}");
        assert_eq!(reach("10.96.0.5:80"), "10.244.0.2:8080");
    });
}

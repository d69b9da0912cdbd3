//! Session affinity over real sockets: who the client is, and when it moves. What the decisions are is tested on the
//! host, in `ebpf/tests/balance.rs`.

mod support;

use model::Event;
use model::testing::ip;

use support::*;

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
fn a_pod_of_another_runtime_is_the_client_by_its_address() {
    on_a_node(|node| {
        let backends: Vec<String> = (2..22).map(|last| format!("10.244.0.{last}")).collect();
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        let mut world = node.serve(sticky(10800, &backends));
        let pin = node.bpf_dir.join(ebpf::maps::LAYOUT).join(ebpf::maps::FOUND);
        let known = || {
            let map = aya::maps::Map::HashMap(aya::maps::MapData::from_pin(&pin).unwrap());
            let found: aya::maps::HashMap<_, u64, [u8; 32]> = map.try_into().unwrap();
            found.keys().map(Result::unwrap).collect::<Vec<u64>>()
        };
        // One pod whose sandbox is made anew again and again, by somebody who writes no map of ours.
        let mut reached = Vec::new();
        for round in 0..6 {
            reached.push(in_pod(|| {
                backends.iter().for_each(|ip| backend(ip, 8080));
                add_address("10.244.9.9");
                let pod = model::Pod {
                    name: model::testing::name("x/p"),
                    addresses: vec![ip("10.244.9.9")],
                    labels: std::collections::BTreeMap::from([("round".into(), round.to_string().into())]),
                    node: Some("a".into()),
                    host_network: false,
                };
                world.apply(Event::Apply(model::Object::Pod(pod)));
                let begun = std::time::Instant::now();
                while known() != [proxy::netns_cookie().unwrap()] {
                    assert!(begun.elapsed().as_secs() < 10, "not found: {:?}", known());
                    std::thread::sleep(std::time::Duration::from_millis(5));
                }
                reach("10.96.0.5:80")
            }));
        }
        assert!(reached.iter().all(|backend| *backend == reached[0]), "{reached:?}");
        world.apply(Event::Delete(model::Kind::Pod, model::testing::name("x/p")));
        let begun = std::time::Instant::now();
        while !known().is_empty() {
            assert!(begun.elapsed().as_secs() < 10, "still known: {:?}", known());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    });
}

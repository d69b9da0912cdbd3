//! The CNI plug-in beside the daemon's pins: its map of pods, its heartbeat, its programs. Each test has a folder of
//! pins and a cgroup of its own, gone when dropped.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the helpers of tests are tests too")]

mod cni_node;

use std::fs;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use cni_node::pins::{Map, Pins, bpf, word};
use cni_node::{Answer, Call, Node, Pod, root};
use serde_json::{Value, json};

/// As the daemon does, so long ago.
fn beat(map: &OwnedFd, ago: Duration) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let now = Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap());
    let (key, value) = (0u32, u64::try_from(now.saturating_sub(ago).as_nanos()).unwrap());
    // BPF_MAP_UPDATE_ELEM: map; key, value, flags.
    bpf(2, &[word(map), (&raw const key).addr() as u64, (&raw const value).addr() as u64, 0]).unwrap();
}

#[test]
fn status_tells_whether_the_daemon_and_its_programs_are_alive() {
    if !root() {
        return;
    }
    let Some(pins) = Pins::new("status") else { return };
    let node = Node::new();
    pins.status(&node).fails(51, "the kernel programs are gone");
    let heartbeat = pins.make_heartbeat();
    beat(&heartbeat, Duration::ZERO);
    pins.status(&node).fails(51, "the kernel programs are gone");
    pins.attach_program();
    pins.status(&node).succeeds();
    let stopped = "the daemon does not answer: its heartbeat has stopped";
    beat(&heartbeat, Duration::from_secs(11));
    pins.status(&node).fails(50, stopped);
    beat(&heartbeat, Duration::from_secs(365 * 86400));
    pins.status(&node).fails(50, stopped);
    beat(&heartbeat, Duration::ZERO);
    pins.status(&node).succeeds();

    // The pin of the link stays, its cgroup goes: a little later, on a thread of the kernel.
    fs::remove_dir(&pins.cgroup).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        beat(&heartbeat, Duration::ZERO);
        let answer = pins.status(&node);
        if answer.code != Some(0) {
            answer.fails(51, "the kernel programs are gone");
            break;
        }
        assert!(Instant::now() < deadline, "a detached program is not noticed");
    }
}

/// The key of the host end's index in the map of pods.
fn index_key(index: u32) -> u64 {
    1 << 63 | u64::from(index)
}

#[test]
fn a_pod_is_in_the_map_from_add_to_del() {
    if !root() {
        return;
    }
    let Some(pins) = Pins::new("pods") else { return };
    let (node, pod) = (Node::new(), Pod::new());
    let map = Map::make(&pins, "pods", 8, 32);
    let cookie = pod.namespace.cookie().unwrap().to_ne_bytes();
    let added = node.call(&Call::of("ADD", "c0", &pod.path(), &pins.config()));
    assert_eq!(added.code, Some(0), "{added:?}");
    let index = index_key(node.attachments()[0].index).to_ne_bytes();
    assert!(map.get(&cookie).is_some());
    assert_eq!(map.get(&index), map.get(&cookie));
    let mut input = pins.config();
    input["prevResult"] = added.output;
    let check = || node.call(&Call::of("CHECK", "c0", &pod.path(), &input));
    check().succeeds();
    for key in [&cookie, &index] {
        let value = map.get(key).unwrap();
        map.remove(key);
        check().fails(102, "missing of eth0 of container c0: entry in the map of pods");
        map.put(key, &value);
    }
    node.call(&Call::of("DEL", "c0", &pod.path(), &pins.config())).succeeds();
    assert_eq!((map.get(&cookie), map.get(&index)), (None, None));
    let added = node.call(&Call::of("ADD", "c0", &pod.path(), &pins.config()));
    assert_eq!(added.code, Some(0), "{added:?}");
    assert!(map.get(&cookie).is_some());
    node.call(&Call::of("DEL", "c0", "", &pins.config())).succeeds();
    assert_eq!(map.get(&cookie), None, "DEL takes it out, without the namespace");
}

/// ADD of a pod with these port mappings.
fn add_with_ports(node: &Node, pins: &Pins, id: &str, pod: &Pod, mappings: &Value) -> Answer {
    let mut input = pins.config();
    input["podCidrs"] = json!(["10.1.0.0/24", "fd00:1::/64"]);
    input["runtimeConfig"] = json!({"portMappings": mappings});
    let call = Call::of("ADD", id, &pod.path(), &input);
    node.call(&call.with("CNI_ARGS", &format!("K8S_POD_NAMESPACE=shop;K8S_POD_NAME={id}")))
}

fn port_key(address: &str, port: u16, protocol: u8) -> Vec<u8> {
    let address: std::net::Ipv6Addr = address.parse().unwrap();
    [&address.octets()[..], &port.to_be_bytes(), &[protocol, 0]].concat()
}

#[test]
fn a_host_port_has_one_owner_from_add_to_del() {
    if !root() {
        return;
    }
    let Some(pins) = Pins::new("ports") else { return };
    let node = Node::new();
    let (web, other, third) = (Pod::new(), Pod::new(), Pod::new());
    let (ports, frontends) = (Map::make(&pins, "hostports", 20, 8), Map::make(&pins, "frontends", 20, 8));
    let mappings = json!([
        {"HostPort": 8080, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""},
        {"hostPort": 53, "containerPort": 5353, "protocol": "UDP", "hostIP": "192.0.2.7"},
        {"hostPort": 9, "containerPort": 9, "protocol": "SCTP"},
    ]);
    frontends.put(&port_key("::ffff:192.0.2.7", 53, 17), &[0; 8]);
    let added = add_with_ports(&node, &pins, "web", &web, &mappings);
    assert_eq!(added.code, Some(0), "{added:?}");
    assert!(added.log.contains("a Service answers on this hostPort, and wins"), "{}", added.log);
    assert!(added.log.contains("SCTP"), "{}", added.log);
    let index = node.attachments()[0].index.to_ne_bytes();
    let anywhere = port_key("::ffff:0.0.0.0", 8080, 6);
    let all = [anywhere.clone(), port_key("::", 8080, 6), port_key("::ffff:192.0.2.7", 53, 17)];
    for (key, port) in all.iter().zip([80u16, 80, 5353]) {
        let value = ports.get(key).unwrap();
        assert_eq!((&value[..4], &value[4..6]), (&index[..], &port.to_be_bytes()[..]));
    }

    let taken = json!([{"hostPort": 9090, "containerPort": 80}, {"hostPort": 8080, "containerPort": 80}]);
    let refused = add_with_ports(&node, &pins, "other", &other, &taken);
    refused.fails(103, "hostPort 8080/TCP is taken by pod shop/web");
    assert_eq!(ports.get(&port_key("::ffff:0.0.0.0", 9090, 6)), None, "nothing of it is left");
    assert_eq!(node.attachments().len(), 1);
    let elsewhere = json!([
        {"hostPort": 8080, "containerPort": 80, "protocol": "UDP"},
        {"hostPort": 53, "containerPort": 53, "protocol": "UDP", "hostIP": "127.0.0.1"},
    ]);
    assert_eq!(add_with_ports(&node, &pins, "other", &other, &elsewhere).code, Some(0));
    let wrong = json!([{"hostPort": 1, "containerPort": 1, "hostIP": "eth0"}]);
    assert_eq!(add_with_ports(&node, &pins, "third", &third, &wrong).output["code"], 7);

    node.call(&Call::of("DEL", "web", "", &pins.config())).succeeds();
    assert!(all.iter().all(|key| ports.get(key).is_none()));
    assert!(ports.get(&port_key("::ffff:0.0.0.0", 8080, 17)).is_some(), "the other's stays");
    assert_eq!(add_with_ports(&node, &pins, "third", &third, &taken).code, Some(0), "it is free again");
}

#[test]
fn what_a_vanished_namespace_left_in_the_maps_goes() {
    if !root() {
        return;
    }
    let Some(pins) = Pins::new("vanished") else { return };
    let node = Node::new();
    let (ports, pods) = (Map::make(&pins, "hostports", 20, 8), Map::make(&pins, "pods", 8, 32));
    let mapping = json!([{"hostPort": 8080, "containerPort": 80}]);
    let key = port_key("::ffff:0.0.0.0", 8080, 6);
    let vanish = |id: &str| {
        let pod = Pod::new();
        let added = add_with_ports(&node, &pins, id, &pod, &mapping);
        assert_eq!(added.code, Some(0), "{added:?}");
        let [made] = node.attachments().try_into().unwrap();
        // Its namespace takes the link along, a little later.
        drop(pod);
        let deadline = Instant::now() + Duration::from_secs(10);
        while !node.attachments().is_empty() {
            assert!(Instant::now() < deadline, "the link stays");
            std::thread::yield_now();
        }
        assert!(ports.get(&key).is_some());
        made
    };
    let made = vanish("c0");
    node.call(&Call::of("DEL", "c0", "", &pins.config())).succeeds();
    assert_eq!(ports.get(&key), None);
    assert_eq!(pods.get(&index_key(made.index).to_ne_bytes()), None);
    assert_eq!(pods.get(&made.cookie.to_ne_bytes()), None);

    vanish("c1");
    let pod = Pod::new();
    let added = add_with_ports(&node, &pins, "c2", &pod, &mapping);
    assert_eq!(added.code, Some(0), "a port without its pod is free: {added:?}");
    let index = node.attachments()[0].index.to_ne_bytes();
    assert_eq!(ports.get(&key).unwrap()[..4], index);
    node.call(&Call::of("DEL", "c1", "", &pins.config())).succeeds();
    assert!(ports.get(&key).is_some(), "the new owner keeps it");
}

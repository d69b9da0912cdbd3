//! The CNI plug-in as a container runtime sees it: each line of the specification on the real program, in network
//! namespaces of its own.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the helpers of tests are tests too")]

mod cni_node;

use cni_node::{Call, Node, Pod, config, root};
use sandbox::{
    AttachOptions, End, HostRoute, LINK_GROUP, NetworkNamespace, Veth, attach, link_name, mac_address,
};
use serde_json::{Value, json};
use std::os::fd::AsFd;

const RANGE: [&str; 1] = ["10.1.0.0/24"];
const BOTH: [&str; 2] = ["10.1.0.0/24", "fd00:1::/64"];
const NEEDED: [&str; 4] = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"];

#[test]
fn without_a_command_it_says_what_it_is() {
    if !root() {
        return;
    }
    let answer = Node::new().call(&Call::new("", &Value::Null));
    assert_eq!((answer.code, &answer.output), (Some(0), &Value::Null));
    let about = concat!("fairway-cni ", env!("CARGO_PKG_VERSION"), ": the CNI plug-in of Fairway");
    assert!(answer.log.starts_with(about), "{}", answer.log);
}

#[test]
fn the_environment_is_checked() {
    if !root() {
        return;
    }
    let node = Node::new();
    let good = config("1.1.0", &RANGE);
    node.call(&Call::new("UPDATE", &good)).fails(4, "unknown CNI_COMMAND: UPDATE");
    let needs: [(&str, &[&str]); 5] = [
        ("ADD", &NEEDED),
        ("CHECK", &NEEDED),
        ("DEL", &["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"]),
        ("GC", &["CNI_PATH"]),
        ("STATUS", &["CNI_PATH"]),
    ];
    for (command, needed) in needs {
        let message =
            |names: &[&str]| format!("required environment variables missing: {}", names.join(", "));
        node.call(&Call::new(command, &good)).fails(4, &message(needed));
        for name in NEEDED {
            let answer = node.call(&Call::of(command, "c0", "/nowhere", &good).with(name, ""));
            let complains = answer.output["msg"].as_str() == Some(&message(&[name]));
            assert_eq!(complains, needed.contains(&name), "{command} without {name}: {answer:?}");
        }
    }
    for id in ["../c", "-c", "c d", "\u{e9}"] {
        let answer = node.call(&Call::of("DEL", id, "", &good));
        answer.fails(4, &format!("CNI_CONTAINERID {id:?} is not an id"));
    }
    for name in ["a/b", "..", "eth0eth0eth0eth0", "a b", "a:b"] {
        let answer = node.call(&Call::of("ADD", "c0", "/nowhere", &good).with("CNI_IFNAME", name));
        answer.fails(4, &format!("CNI_IFNAME {name:?} is not a name of a link"));
    }
    let answer = node.call(&Call::of("ADD", "c0", "/nowhere", &good).with("CNI_ARGS", "K8S_POD_NAME"));
    answer.fails(4, "CNI_ARGS: \"K8S_POD_NAME\" is not KEY=VALUE");
}

#[test]
fn versions_are_told() {
    if !root() {
        return;
    }
    let node = Node::new();
    let all = json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]);
    for (input, version) in [
        (Value::Null, "1.1.0"),
        (json!({"cniVersion": "0.3.1"}), "0.3.1"),
        (json!({"cniversion": "1.0.0"}), "1.0.0"),
    ] {
        let answer = node.call(&Call::new("VERSION", &input));
        assert_eq!(answer.output, json!({"cniVersion": version, "supportedVersions": all}), "{input}");
        assert_eq!(answer.code, Some(0));
    }
    for version in ["0.1.0", "0.3.0", "2.0.0"] {
        let answer = node.call(&Call::of("DEL", "c0", "", &config(version, &RANGE)));
        answer.fails(1, &format!("incompatible CNI version: {version}"));
        assert_eq!(answer.output["details"], "supported: 0.3.1, 0.4.0, 1.0.0, 1.1.0");
    }
    let unversioned = json!({"name": "fairway"});
    node.call(&Call::of("DEL", "c0", "", &unversioned)).fails(1, "incompatible CNI version: 0.1.0");
    for (command, version, since) in
        [("CHECK", "0.3.1", "0.4.0"), ("GC", "1.0.0", "1.1.0"), ("STATUS", "0.4.0", "1.1.0")]
    {
        let answer = node.call(&Call::of(command, "c0", "/nowhere", &config(version, &RANGE)));
        answer.fails(1, &format!("version {version} of the specification has no {command}: {since} does"));
        assert_eq!(answer.output["cniVersion"], version);
    }
}

#[test]
fn the_configuration_is_checked() {
    if !root() {
        return;
    }
    let (node, pod) = (Node::new(), Pod::new());
    let broken = node.call(&Call::of("ADD", "c0", &pod.path(), &json!("text")));
    assert_eq!(broken.output["code"], 6, "{broken:?}");
    let add = |key: &str, value: Value| {
        let mut input = config("1.0.0", &RANGE);
        input[key] = value;
        node.call(&Call::of("ADD", "c0", &pod.path(), &input))
    };
    add("podCidrs", Value::Null).fails(7, "no IP addresses available: this node has no pod range");
    add("podCidrs", json!("10.1.0.0/24")).fails(7, "podCidrs: \"10.1.0.0/24\" is not a list");
    add("podCidrs", json!(["10.1"])).fails(7, "podCidrs: \"10.1\" is not ranges such as 10.1.0.0/24");
    add("mtu", json!(-1)).fails(7, "mtu: -1 is not a number of bytes");
    add("bpfDir", json!(1)).fails(7, "bpfDir: 1 is not text");
    let mapping = json!({"containerPort": 80, "hostPort": 8080});
    let message = "hostPort 8080/TCP: there is no map for it yet: the daemon has not started on this node";
    add("runtimeConfig", json!({"portMappings": [mapping]})).fails(11, message);
    assert!(node.is_empty());
    let harmless = add("runtimeConfig", json!({"portMappings": [{"ContainerPort": 80, "HostPort": 0}]}));
    assert_eq!(harmless.code, Some(0), "{harmless:?}");
}

#[test]
fn the_namespace_is_checked() {
    if !root() {
        return;
    }
    let node = Node::new();
    let add = |netns: &str| node.call(&Call::of("ADD", "c0", netns, &config("1.0.0", &RANGE)));
    let gone = add("/nowhere");
    gone.fails(3, "network namespace /nowhere: No such file or directory (os error 2)");
    add("/etc/hosts").fails(4, "/etc/hosts is not a network namespace");
    let own = "/proc/self/ns/net";
    add(own).fails(4, "CNI_NETNS /proc/self/ns/net is the network namespace of the node");
    assert!(node.is_empty());
}

/// The whole result, but for the addresses, which the kernel gives.
#[test]
fn each_version_has_its_result() {
    if !root() {
        return;
    }
    for version in ["0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
        let (node, pod) = (Node::new(), Pod::new());
        let call = Call::of("ADD", "c0", &pod.path(), &config(version, &BOTH));
        let answer =
            node.call(&call.with("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"));
        let [made] = node.attachments().try_into().unwrap();
        assert_eq!(made.pod.unwrap().to_string(), "shop/web");
        let [v4, v6] = [made.addresses[0], made.addresses[1]];
        let mac = |end| mac_address("c0", "eth0", end).to_string();
        let mut expected = json!({
            "cniVersion": version,
            "interfaces": [
                {"name": link_name("c0", "eth0"), "mac": mac(End::Host)},
                {"name": "eth0", "mac": mac(End::Pod), "sandbox": pod.path()},
            ],
            "ips": [
                {"address": format!("{v4}/32"), "gateway": "169.254.1.1", "interface": 1},
                {"address": format!("{v6}/128"), "gateway": "fe80::1", "interface": 1},
            ],
            "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}, {"dst": "::/0", "gw": "fe80::1"}],
            "dns": {},
        });
        if version == "1.1.0" {
            expected["interfaces"][0]["mtu"] = json!(1400);
            expected["interfaces"][1]["mtu"] = json!(1400);
        }
        if version.starts_with('0') {
            expected["ips"][0]["version"] = json!("4");
            expected["ips"][1]["version"] = json!("6");
        }
        assert_eq!(answer.output, expected);
        assert_eq!((answer.code, answer.log.as_str()), (Some(0), ""));
        let link = node.netlink().link(&made.link).unwrap();
        let inside = sandbox::Netlink::open_in(&pod.namespace).unwrap().link("eth0").unwrap();
        let macs = (link.mac.unwrap().to_string(), inside.mac.unwrap().to_string());
        assert_eq!(macs, (mac(End::Host), mac(End::Pod)), "as told");
        assert_eq!((link.mtu, inside.mtu), (1400, 1400));
        node.delete("c0").succeeds();
        assert!(node.is_empty());
    }
}

#[test]
fn a_node_of_one_family_gives_addresses_of_that_family() {
    if !root() {
        return;
    }
    for (range, length, destination, gateway) in
        [("10.1.0.0/24", 32, "0.0.0.0/0", "169.254.1.1"), ("fd00:1::/64", 128, "::/0", "fe80::1")]
    {
        let (node, pod) = (Node::new(), Pod::new());
        let answer = node.add("c0", &pod, &[range]);
        let [made] = node.attachments().try_into().unwrap();
        let [address] = made.addresses[..] else { panic!("{made:?}") };
        let told = json!([{"address": format!("{address}/{length}"), "gateway": gateway, "interface": 1}]);
        assert_eq!(answer.output["ips"], told);
        assert_eq!(answer.output["routes"], json!([{"dst": destination, "gw": gateway}]));
        let mut input = config("1.0.0", &[range]);
        input["prevResult"] = answer.output;
        node.call(&Call::of("CHECK", "c0", &pod.path(), &input)).succeeds();
        node.delete("c0").succeeds();
        assert!(node.is_empty());
    }
}

#[test]
fn keys_are_read_in_any_case_and_without_an_mtu_the_uplink_says() {
    if !root() {
        return;
    }
    let (node, pod) = (Node::new(), Pod::new());
    let input = json!({"CNIVersion": "1.1.0", "PODCIDRS": ["10.1.0.8/30"], "Mtu": null, "BpfDir": ""});
    let answer = node.call(&Call::of("ADD", "c0", &pod.path(), &input));
    assert_eq!(answer.output["interfaces"][1]["mtu"], 1500, "{answer:?}");
    assert!(["10.1.0.9/32", "10.1.0.10/32"].contains(&answer.address().as_str()));
    assert_eq!(node.attachments()[0].pod, None, "CNI_ARGS named none");
}

#[test]
fn the_first_pod_lets_the_node_forward() {
    if !root() {
        return;
    }
    const SETTINGS: [&str; 2] = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];
    let read = || SETTINGS.map(|path| std::fs::read_to_string(path).unwrap().trim().to_owned());
    let (node, pod) = (Node::new(), Pod::new());
    node.run(|| SETTINGS.map(|path| std::fs::write(path, "0").unwrap()));
    assert_eq!(node.run(read), ["0", "0"]);
    node.add("c1", &pod, &BOTH).address();
    assert_eq!(node.run(read), ["1", "1"]);
}

#[test]
fn adding_twice_is_an_error_and_the_first_lives_on() {
    if !root() {
        return;
    }
    let (node, pod) = (Node::new(), Pod::new());
    assert_eq!(node.add("c0", &pod, &RANGE).code, Some(0));
    let first = node.attachments();
    node.add("c0", &pod, &RANGE).fails(101, "eth0 of container c0 is attached already");
    node.add("c0", &Pod::new(), &RANGE).fails(101, "eth0 of container c0 is attached already");
    node.add("c1", &pod, &RANGE).fails(101, "the network namespace has a link eth0 already");
    assert_eq!(node.attachments(), first);
}

#[test]
fn deleting_works_whatever_is_left_of_the_namespace() {
    if !root() {
        return;
    }
    let node = Node::new();
    let input = config("1.0.0", &["10.1.0.4/30"]);
    let again = |netns: &dyn Fn(&Pod) -> Option<String>| {
        // Two addresses are all there is: each round needs both again.
        let pods = [Pod::new(), Pod::new()];
        for (id, pod) in ["c0", "c1"].into_iter().zip(&pods) {
            let added = node.call(&Call::of("ADD", id, &pod.path(), &input));
            assert_eq!(added.code, Some(0), "{added:?}");
        }
        for (id, pod) in ["c0", "c1"].into_iter().zip(pods) {
            let netns = netns(&pod).unwrap_or_else(|| {
                let path = pod.path();
                drop(pod);
                path
            });
            for _ in 0..2 {
                node.call(&Call::of("DEL", id, &netns, &input)).succeeds();
            }
        }
        assert!(node.is_empty());
    };
    again(&|pod| Some(pod.path()));
    again(&|_| Some(String::new()));
    again(&|_| Some("/nowhere".to_owned()));
    again(&|_| Some("/etc/hosts".to_owned()));
    again(&|_| None);
    node.delete("never-seen").succeeds();
    let bare = json!({"cniVersion": "0.3.1"});
    node.call(&Call::of("DEL", "c0", "", &bare)).succeeds();
}

#[test]
fn somebody_elses_link_is_not_deleted() {
    if !root() {
        return;
    }
    let (node, pod) = (Node::new(), Pod::new());
    node.netlink().add_veth(&veth(&link_name("c0", "eth0"), &pod.namespace, 0, 1)).unwrap();
    node.delete("c0").succeeds();
    assert!(node.netlink().link(&link_name("c0", "eth0")).is_ok());
}

fn veth<'a>(name: &'a str, pod: &'a NetworkNamespace, group: u32, born: u32) -> Veth<'a> {
    Veth {
        name,
        mac: mac_address(name, "", End::Host),
        peer_namespace: pod.as_fd(),
        peer_name: name,
        peer_mac: mac_address(name, "", End::Pod),
        mtu: 1400,
        group,
        born,
    }
}

#[test]
fn a_full_range_says_so_and_recovers_by_one() {
    if !root() {
        return;
    }
    let node = Node::new();
    let range = ["10.1.0.8/29"];
    let pods: Vec<_> = (0..8).map(|_| Pod::new()).collect();
    let status = || node.call(&Call::of("STATUS", "", "", &config("1.1.0", &range)));
    for (number, pod) in pods.iter().take(6).enumerate() {
        status().succeeds();
        assert_eq!(node.add(&format!("c{number}"), pod, &range).code, Some(0));
    }
    let full = "no IP addresses available in 10.1.0.8/29";
    status().fails(50, full);
    node.add("c6", &pods[6], &range).fails(11, full);
    node.delete("c3").succeeds();
    status().succeeds();
    assert_eq!(node.add("c6", &pods[6], &range).code, Some(0));
    node.add("c7", &pods[7], &range).fails(11, full);
}

#[test]
fn check_names_what_is_missing() {
    if !root() {
        return;
    }
    let (node, pod) = (Node::new(), Pod::new());
    let result = node.add("c0", &pod, &BOTH).output;
    let check_as = |pod: &Pod, result: &Value| {
        let mut input = config("1.0.0", &BOTH);
        input["prevResult"] = result.clone();
        node.call(&Call::of("CHECK", "c0", &pod.path(), &input))
    };
    let check = || check_as(&pod, &result);
    let names = |missing: &str| check().fails(102, &format!("missing of eth0 of container c0: {missing}"));
    check().succeeds();
    check_as(&pod, &Value::Null).fails(7, "CHECK needs prevResult");
    let other = "network namespace: it is not the one that was attached";
    check_as(&Pod::new(), &result).fails(102, &format!("missing of eth0 of container c0: {other}"));
    let [made] = node.attachments().try_into().unwrap();
    let [v4, v6] = [made.addresses[0], made.addresses[1]];
    let mut shorter = result.clone();
    shorter["ips"].as_array_mut().unwrap().remove(0);
    let untold = format!("missing of eth0 of container c0: address {v4} in prevResult");
    check_as(&pod, &shorter).fails(102, &untold);

    let route = HostRoute { address: v6, link: made.index };
    node.netlink().delete_host_route(route).unwrap();
    names(&format!("route of {v6}"));
    node.netlink().add_host_route(route).unwrap();
    let mut inside = sandbox::Netlink::open_in(&pod.namespace).unwrap();
    let eth0 = inside.link("eth0").unwrap().index;
    // With its last address of a family, a link loses the routes of it.
    inside.remove_address(eth0, v4).unwrap();
    names(&format!("address {v4} on eth0 in the pod, default IPv4 route in the pod"));
    inside.delete_link(eth0).unwrap();
    let link = &made.link;
    names(&format!("link {link}"));

    node.add("c0", &pod, &BOTH);
    let index = node.attachments()[0].index;
    node.netlink().set_alias(index, "").unwrap();
    names(&format!("alias of link {link}"));
}

#[test]
fn garbage_is_collected_and_nothing_else() {
    if !root() {
        return;
    }
    let node = Node::new();
    let pods: Vec<_> = (0..5).map(|_| Pod::new()).collect();
    for (id, pod) in ["keep", "keep2", "old", "older"].into_iter().zip(&pods) {
        assert_eq!(node.add(id, pod, &BOTH).code, Some(0));
    }
    let standalone = link_name("shop_web", "pod");
    let ranges = BOTH.map(|range| range.parse().unwrap());
    let options = AttachOptions {
        namespace: &pods[4].namespace,
        container_id: &standalone,
        ifname: "eth0",
        pod: None,
        ranges: &ranges,
        mtu: 1400,
        bpf_dir: None,
        host_ports: &[],
    };
    node.run(|| attach(&options)).unwrap();
    let now = monotonic_seconds();
    let mut netlink = node.netlink();
    netlink.add_veth(&veth("foreign", &pods[0].namespace, 0, 1)).unwrap();
    netlink.add_veth(&veth("young", &pods[0].namespace, LINK_GROUP, now)).unwrap();
    netlink.add_veth(&veth("abandoned", &pods[0].namespace, LINK_GROUP, now - 62)).unwrap();

    let mut input = config("1.1.0", &BOTH);
    let gc = |input: &Value| node.call(&Call::new("GC", input).with("CNI_PATH", "/opt/cni/bin"));
    gc(&input).fails(7, "cni.dev/valid-attachments is missing");
    input["cni.dev/valid-attachments"] = json!([{"containerID": "keep"}]);
    assert_eq!(gc(&input).output["code"], 7, "an entry without its name");
    assert_eq!(node.attachments().len(), 5);

    input["cni.dev/valid-attachments"] = json!([{"containerID": "keep", "ifname": "eth0"}]);
    input["cni.dev/attachments"] = json!([
        {"ContainerID": "keep2", "IfName": "eth0"},
        {"containerID": "old", "ifname": "eth1"},
    ]);
    let answer = gc(&input);
    let warning = "fairway-cni: removing what an unfinished ADD has left link=\"abandoned\"\n";
    assert_eq!((answer.code, &answer.output, answer.log.as_str()), (Some(0), &Value::Null, warning));
    gc(&input).succeeds();
    let left: Vec<_> = node.attachments().into_iter().map(|attachment| attachment.container_id).collect();
    assert_eq!(left, ["keep", "keep2", &standalone]);
    assert_eq!(node.netlink().host_routes().unwrap().len(), 6);
    assert!(netlink.link("foreign").is_ok() && netlink.link("young").is_ok());
    assert!(netlink.link("abandoned").is_err());

    input["cni.dev/valid-attachments"] = json!([]);
    input["cni.dev/attachments"] = Value::Null;
    gc(&input).succeeds();
    assert_eq!(node.attachments().len(), 1, "an empty list is a list");
}

fn monotonic_seconds() -> u32 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    uptime.split('.').next().unwrap().parse().unwrap()
}

//! The packet engine at a real link, with a client beyond it: by tcx and by clsact, beside programs of others, over
//! an upgrade, and with an affinity that sockets and packets share.

mod support;

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use aya::programs::{SchedClassifier, TcAttachType};
use model::Object;
use model::testing::{ip, listed, service, slice};
use proxy::{Config, LinkPath, Proxy, Surroundings, Uplink};
use support::{NODE4, Node, World, backend, foreign, on_a_node, reach, run};

const CLIENT: &str = "198.51.100.7";
const PATHS: [LinkPath; 2] = [LinkPath::Tcx, LinkPath::Clsact];
/// TCX_NEXT, TCX_DROP; a filter of clsact has the same verdicts.
const NEXT: i32 = -1;
const DROP: i32 = 2;

/// A host at the other end of the node's link `up0`, in no cgroup of the node.
struct Client {
    namespace: OwnedFd,
}

impl Client {
    fn new() -> Self {
        let namespace = std::thread::spawn(|| {
            // SAFETY: a system call without pointers; it changes this thread alone.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "a namespace for the client");
            File::open("/proc/thread-self/ns/net").expect("its namespace").into()
        });
        let client = Self { namespace: namespace.join().expect("a namespace") };
        run("ip link add up0 type veth peer name up1");
        let file = format!("/proc/{}/fd/{}", std::process::id(), client.namespace.as_raw_fd());
        run(&format!("ip link set up1 netns {file}"));
        run("ip address add 198.51.100.6/31 dev up0");
        run("ip link set up0 up");
        for line in [
            "ip address add 198.51.100.7/31 dev up1",
            "ip link set up1 up",
            "ip route add default via 198.51.100.6",
        ] {
            let output = client.command(line);
            assert!(output.status.success(), "{line}: {output:?}");
        }
        client
    }

    fn command(&self, line: &str) -> Output {
        let namespace = self.namespace.as_raw_fd();
        let root = support::cgroup_root().join("cgroup.procs");
        let mut command = Command::new("/bin/bash");
        command.args(["-c", line]);
        let enter = move || {
            std::fs::write(&root, "0")?;
            // SAFETY: a system call on a namespace that is open.
            match unsafe { libc::setns(namespace, libc::CLONE_NEWNET) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec only a file is written and a system call made.
        unsafe { command.pre_exec(enter) };
        command.output().expect("bash")
    }

    /// Who answers at the node port; nobody for half a second is nothing.
    fn ask(&self) -> String {
        let line =
            format!("timeout 0.5 bash -c 'exec 3<>/dev/tcp/{NODE4}/30080; echo who >&3; head -n1 <&3'");
        String::from_utf8_lossy(&self.command(&line).stdout).trim().to_owned()
    }
}

fn node_port(backends: &[&str]) -> Vec<Object> {
    let service = service("shop/web", &["10.96.0.5"]).port("a:80/TCP:30080");
    let slice = slice("web-1", "shop/web").port("a:8080/TCP").ready(backends);
    vec![service.into(), slice.into()]
}

fn open(node: &Node, path: LinkPath, layout: u32) -> Proxy {
    let config = Config { packets: Some(path), layout, ..node.config() };
    Proxy::open(config).expect("the proxy opens")
}

fn at_up0() -> Surroundings {
    // SAFETY: a name that ends with a zero.
    let index = unsafe { libc::if_nametoindex(c"up0".as_ptr()) };
    let uplink =
        Uplink { index, name: "up0".to_owned(), ipv4: NODE4.parse().ok(), ipv6: None, is_ethernet: true };
    Surroundings { uplinks: vec![uplink], ..nowhere() }
}

fn nowhere() -> Surroundings {
    Surroundings {
        uplinks: Vec::new(),
        pods: Vec::new(),
        direct: Vec::new(),
        own: vec![ip(NODE4)],
        host_ports: 32768..=60999,
    }
}

/// The ids of the programs at the ingress of `up0`.
fn attached(path: LinkPath) -> Vec<u32> {
    match path {
        LinkPath::Tcx => {
            let (_, programs) = SchedClassifier::query_tcx("up0", TcAttachType::Ingress).expect("tcx");
            programs.iter().map(aya::programs::ProgramInfo::id).collect()
        }
        LinkPath::Clsact => {
            let shown = Command::new("tc").args(["filter", "show", "dev", "up0", "ingress"]).output();
            let shown = String::from_utf8_lossy(&shown.expect("tc").stdout).into_owned();
            let ids = shown.split_whitespace().skip_while(|word| *word != "id").collect::<Vec<_>>();
            let ids = ids.windows(2).filter(|pair| pair[0] == "id").filter_map(|pair| pair[1].parse().ok());
            ids.collect()
        }
    }
}

#[test]
fn a_client_is_served_by_links_of_tcx_and_by_filters_of_clsact() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let client = Client::new();
        for path in PATHS {
            let mut before = Vec::new();
            // The second process takes over from the first without a gap.
            for _ in 0..2 {
                let proxy = open(node, path, proxy::LAYOUT);
                let mut world = World { proxy, cluster: listed(node_port(&["10.244.0.2"])) };
                world.sync();
                assert!(before.is_empty() || client.ask() == "10.244.0.2:8080", "{path:?}: between");
                world.proxy.surround(&at_up0()).expect("up0 is an uplink");
                assert_eq!(client.ask(), "10.244.0.2:8080", "{path:?}");
                let now = attached(path);
                assert!(now.len() == 1 && now != before, "{path:?}: {before:?}, then {now:?}");
                before = now;
                world.proxy.close();
            }
            let mut last = open(node, path, proxy::LAYOUT);
            last.surround(&nowhere()).expect("no uplinks");
            assert_eq!(attached(path), [0; 0], "{path:?}: up0 is no uplink any more");
            last.surround(&at_up0()).expect("up0 is an uplink again");
            assert_eq!(attached(path).len(), 1);
            last.close();
            proxy::cleanup(&node.bpf_dir).expect("everything goes");
            assert_eq!(attached(path), [0; 0], "{path:?}: cleaned up");
        }
    });
}

#[test]
fn programs_of_others_at_the_link_go_on_beside_ours() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let client = Client::new();
        let (passes, drops) = (foreign::verdict(NEXT), foreign::verdict(DROP));
        let index = at_up0().uplinks[0].index;
        let first = foreign::arrive(&passes, index);
        let mut world = World {
            proxy: open(node, LinkPath::Tcx, proxy::LAYOUT),
            cluster: listed(node_port(&["10.244.0.2"])),
        };
        world.sync();
        world.proxy.surround(&at_up0()).expect("up0 is an uplink");
        assert_eq!(attached(LinkPath::Tcx).len(), 2, "theirs, then ours");
        assert_eq!(client.ask(), "10.244.0.2:8080", "ours runs behind theirs");
        let last = foreign::arrive(&drops, index);
        assert_eq!(client.ask(), "", "theirs runs behind ours");
        drop(last);
        assert_eq!(client.ask(), "10.244.0.2:8080");
        proxy::cleanup(&node.bpf_dir).expect("everything of ours goes");
        assert_eq!(attached(LinkPath::Tcx).len(), 1, "theirs stays");
        drop(first);
    });
}

#[test]
fn filters_of_others_at_the_link_go_on_beside_ours() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let client = Client::new();
        let mut world = World {
            proxy: open(node, LinkPath::Clsact, proxy::LAYOUT),
            cluster: listed(node_port(&["10.244.0.2"])),
        };
        world.sync();
        world.proxy.surround(&at_up0()).expect("up0 is an uplink");
        let pin = node.bpf_dir.join("foreign");
        foreign::pin(&foreign::verdict(DROP), &pin);
        run(&format!(
            "tc filter add dev up0 ingress pref 50 handle 1 bpf da object-pinned {}",
            pin.display()
        ));
        assert_eq!(client.ask(), "", "theirs runs behind ours");
        assert_eq!(attached(LinkPath::Clsact).len(), 2);
        // What is surrounded again stays as it is, and does not touch theirs.
        world.proxy.surround(&at_up0()).expect("up0 is an uplink");
        assert_eq!(attached(LinkPath::Clsact).len(), 2);
        world.proxy.surround(&nowhere()).expect("no uplinks");
        assert_eq!(attached(LinkPath::Clsact).len(), 1, "theirs stays");
        run("tc filter delete dev up0 ingress pref 50");
    });
}

/// An upgrade beside a client; `hinder` comes between the two versions.
fn upgrade(node: &Node, hinder: impl FnOnce()) {
    backend("10.244.0.2", 8080);
    let client = Client::new();
    let cluster = || listed(node_port(&["10.244.0.2"]));
    let mut older = World { proxy: open(node, LinkPath::Tcx, proxy::LAYOUT), cluster: cluster() };
    older.sync();
    older.proxy.surround(&at_up0()).expect("up0 is an uplink");
    assert_eq!(client.ask(), "10.244.0.2:8080");
    let before = attached(LinkPath::Tcx);
    older.proxy.close();
    hinder();
    let mut newer = World { proxy: open(node, LinkPath::Tcx, proxy::LAYOUT + 1), cluster: cluster() };
    newer.proxy.surround(&at_up0()).expect("up0 is an uplink");
    assert_eq!(attached(LinkPath::Tcx), before, "the maps of the new layout are empty");
    assert_eq!(client.ask(), "10.244.0.2:8080");
    newer.sync();
    let after = attached(LinkPath::Tcx);
    assert!(after.len() == 1 && after != before, "{before:?}, then {after:?}");
    assert_eq!(client.ask(), "10.244.0.2:8080");
}

#[test]
fn an_upgrade_takes_the_links_over_once_its_maps_are_filled() {
    on_a_node(|node| {
        upgrade(node, || {});
        assert!(!node.bpf_dir.join(ebpf::maps::LAYOUT).exists());
    });
}

#[test]
fn an_upgrade_takes_the_links_over_where_the_older_maps_cannot_be_removed() {
    on_a_node(|node| {
        let older = node.bpf_dir.join(ebpf::maps::LAYOUT);
        upgrade(node, || hold(&older.join("held")));
        assert!(node.bpf_dir.join("gone-0/held").exists(), "it was held");
        assert!(!older.exists(), "the next start would upgrade from it again");
    });
}

/// Makes a directory that cannot be removed as this thread sees it: something is mounted there.
fn hold(folder: &Path) {
    std::fs::create_dir(folder).expect("a directory among the pins");
    // SAFETY: a system call without pointers; it changes this thread alone.
    assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNS) }, 0, "a mount namespace for this thread");
    run("mount --make-rprivate /");
    run(&format!("mount -t tmpfs none {}", folder.display()));
}

#[test]
fn an_affinity_is_shared_by_sockets_and_packets() {
    on_a_node(|node| {
        let backends: Vec<String> = (2..22).map(|last| format!("10.244.0.{last}")).collect();
        let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
        backends.iter().for_each(|ip| backend(ip, 8080));
        let client = Client::new();
        let mut world = World {
            proxy: open(node, LinkPath::Tcx, proxy::LAYOUT),
            cluster: listed(support::sticky(10800, &backends)),
        };
        world.sync();
        world.proxy.surround(&at_up0()).expect("up0 is an uplink");
        let by_packet = client.ask();
        assert!(by_packet.starts_with("10.244.0."), "{by_packet}");
        assert_eq!([(); 5].map(|()| client.ask()), [(); 5].map(|()| by_packet.clone()));
        // A pod with the client's address: its sockets are hooked, and lead where its packets were led.
        let pin = node.bpf_dir.join(ebpf::maps::LAYOUT).join(ebpf::maps::PODS);
        let by_socket = support::in_pod(|| {
            backends.iter().for_each(|ip| backend(ip, 8080));
            let map = aya::maps::MapData::from_pin(&pin).expect("the map of pods");
            let mut pods: aya::maps::HashMap<_, u64, [u8; 32]> =
                aya::maps::Map::HashMap(map).try_into().expect("a hash");
            let mut value = [0; 32];
            value[..16].copy_from_slice(&ebpf::address::Address::from(ip(CLIENT)).bytes());
            pods.insert(proxy::netns_cookie().expect("a cookie"), value, 0).expect("room");
            [(); 5].map(|()| reach("10.96.0.5:80"))
        });
        assert_eq!(by_socket, [(); 5].map(|()| by_packet.clone()));
    });
}

//! The network of a pod, in network namespaces of the test's own: attach, detach, and what survives what. Nothing
//! to clean up: the namespaces go with the test.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the helpers of tests are tests too")]

use std::collections::BTreeSet;
use std::ffi::CString;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use sandbox::{
    AttachError, AttachOptions, Attachment, NetworkNamespace, PodId, PodValue, add_loopback_addresses,
    attach, attachments, detach, enable_forwarding, local_addresses, pod_value, remove_loopback_addresses,
};

const TIMEOUT: Duration = Duration::from_secs(5);

/// A node: a namespace of its own.
struct Node {
    namespace: NetworkNamespace,
    bpf_dir: Option<PathBuf>,
}

/// Says that a test could not run; with CI=true that is a failure.
fn root() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var("CI").as_deref() != Ok("true"), "needs root");
    println!("SKIP: needs root");
    false
}

impl Node {
    fn new() -> Self {
        Self { namespace: NetworkNamespace::create().unwrap(), bpf_dir: None }
    }

    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        self.namespace.enter(work).unwrap()
    }

    fn attach(&self, id: &str, pod: &NetworkNamespace, ranges: &[&str]) -> Result<Attachment, AttachError> {
        let ranges: Vec<_> = ranges.iter().map(|range| range.parse().unwrap()).collect();
        let name = PodId { namespace: "default".into(), name: id.into() };
        self.run(|| {
            attach(&AttachOptions {
                namespace: pod,
                container_id: id,
                ifname: "eth0",
                pod: Some(&name),
                ranges: &ranges,
                mtu: 1500,
                bpf_dir: self.bpf_dir.as_deref(),
                host_ports: &[],
            })
        })
    }

    fn detach(&self, id: &str) -> bool {
        self.run(|| detach(id, "eth0", self.bpf_dir.as_deref())).unwrap()
    }
}

/// A server in one pod answers a client in another with the client's address.
fn talk(server: &NetworkNamespace, address: IpAddr, client: &NetworkNamespace) -> IpAddr {
    let listener = server.enter(|| TcpListener::bind((address, 0))).unwrap().unwrap();
    let target: SocketAddr = listener.local_addr().unwrap();
    let mut near = client.enter(|| TcpStream::connect_timeout(&target, TIMEOUT)).unwrap().unwrap();
    let (mut far, peer) = listener.accept().unwrap();
    near.write_all(b"x").unwrap();
    let mut byte = [0];
    far.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
    peer.ip()
}

fn pods_talk(ranges: &[&str]) {
    if !root() {
        return;
    }
    let node = Node::new();
    let parsed: Vec<_> = ranges.iter().map(|range| range.parse().unwrap()).collect();
    node.run(|| enable_forwarding(&parsed)).unwrap();
    let [a, b] = [NetworkNamespace::create().unwrap(), NetworkNamespace::create().unwrap()];
    let at_a = node.attach("a", &a, ranges).unwrap();
    let at_b = node.attach("b", &b, ranges).unwrap();
    assert_eq!(at_a.addresses.len(), ranges.len());
    for (of_a, of_b) in at_a.addresses.iter().zip(&at_b.addresses) {
        assert_eq!(talk(&a, *of_a, &b), *of_b);
        assert_eq!(talk(&b, *of_b, &a), *of_a);
        assert_eq!(talk(&a, *of_a, &a), *of_a, "a pod reaches itself");
    }
}

#[test]
fn pods_talk_over_ipv4() {
    pods_talk(&["10.1.0.0/24"]);
}

#[test]
fn pods_talk_over_ipv6() {
    pods_talk(&["fd00:1::/64"]);
}

#[test]
fn pods_talk_over_both_families() {
    pods_talk(&["10.1.0.0/24", "fd00:1::/64"]);
}

#[test]
fn pods_and_the_node_talk_even_if_sources_are_checked_strictly() {
    if !root() {
        return;
    }
    let node = Node::new();
    let ranges = ["10.1.0.0/24", "fd00:1::/64"];
    let parsed: Vec<_> = ranges.iter().map(|range| range.parse().unwrap()).collect();
    let own: Vec<IpAddr> = vec!["10.96.0.10".parse().unwrap(), "fd00:96::a".parse().unwrap()];
    node.run(|| {
        enable_forwarding(&parsed).unwrap();
        std::fs::write("/proc/sys/net/ipv4/conf/all/rp_filter", "1").unwrap();
        add_loopback_addresses(&own).unwrap();
        add_loopback_addresses(&own).expect("twice is fine");
    });
    let pod = NetworkNamespace::create().unwrap();
    let made = node.attach("a", &pod, &ranges).unwrap();
    for (address, own) in made.addresses.iter().zip(&own) {
        assert_eq!(talk(&pod, *address, &node.namespace), *own, "the node reaches the pod");
        assert_eq!(talk(&node.namespace, *own, &pod), *address, "the pod reaches the node");
    }
    node.run(|| remove_loopback_addresses(&own)).unwrap();
    node.run(|| remove_loopback_addresses(&own)).expect("twice is fine");
    assert!(!node.run(local_addresses).unwrap().contains(&own[0]));
}

#[test]
fn the_links_are_the_records() {
    if !root() {
        return;
    }
    let node = Node::new();
    let pod = NetworkNamespace::create().unwrap();
    let made = node.attach("a", &pod, &["10.1.0.0/24", "fd00:1::/64"]).unwrap();
    assert_eq!(made.cookie, pod.cookie().unwrap());
    assert_eq!(node.run(attachments).unwrap(), [made]);
}

#[test]
fn an_identity_is_attached_once() {
    if !root() {
        return;
    }
    let node = Node::new();
    let pod = NetworkNamespace::create().unwrap();
    let made = node.attach("a", &pod, &["10.1.0.0/24"]).unwrap();
    let error = node.attach("a", &pod, &["10.1.0.0/24"]).unwrap_err();
    assert_eq!(error.to_string(), "eth0 of container a is attached already");
    assert_eq!(node.run(attachments).unwrap(), [made], "the first lives on");
}

#[test]
fn detaching_twice_is_fine() {
    if !root() {
        return;
    }
    let node = Node::new();
    let pod = NetworkNamespace::create().unwrap();
    node.attach("a", &pod, &["10.1.0.0/24"]).unwrap();
    assert!(node.detach("a"));
    assert!(!node.detach("a"));
    assert!(!node.detach("never seen"));
    assert_eq!(node.run(attachments).unwrap(), []);
}

#[test]
fn a_failed_attach_leaves_nothing() {
    if !root() {
        return;
    }
    let node = Node::new();
    let pod = NetworkNamespace::create().unwrap();
    let error = node.attach("a", &pod, &["10.1.0.0/24", "fd00::/128"]).unwrap_err();
    assert_eq!(error.to_string(), "no IP addresses available in fd00::/128");
    assert_eq!(node.run(attachments).unwrap(), []);
    let made = node.attach("a", &pod, &["10.1.0.0/24"]);
    made.expect("the name and the link inside the pod are free again");
}

#[test]
fn a_full_range_says_so_and_recovers_by_one() {
    if !root() {
        return;
    }
    let node = Node::new();
    let range = ["10.1.0.8/29"];
    let pods: Vec<_> = (0..7).map(|_| NetworkNamespace::create().unwrap()).collect();
    let given: BTreeSet<IpAddr> =
        (0..6).map(|i| node.attach(&format!("p{i}"), &pods[i], &range).unwrap().addresses[0]).collect();
    let usable: BTreeSet<IpAddr> = (9..15).map(|last| IpAddr::from([10, 1, 0, last])).collect();
    assert_eq!(given, usable);
    let full = node.attach("p6", &pods[6], &range).unwrap_err();
    assert_eq!(full.to_string(), "no IP addresses available in 10.1.0.8/29");
    assert!(node.detach("p2"));
    node.attach("p6", &pods[6], &range).unwrap();
    let full = node.attach("p2", &pods[2], &range).unwrap_err();
    assert_eq!(full.to_string(), "no IP addresses available in 10.1.0.8/29");
}

#[test]
fn sixty_four_at_once_have_sixty_four_addresses() {
    if !root() {
        return;
    }
    let node = Node::new();
    let pods: Vec<_> = (0..64).map(|_| NetworkNamespace::create().unwrap()).collect();
    let given: Vec<IpAddr> = std::thread::scope(|scope| {
        let attach = |(i, pod)| node.attach(&format!("p{i}"), pod, &["10.1.0.0/25"]).unwrap().addresses[0];
        let threads: Vec<_> = pods.iter().enumerate().map(|pod| scope.spawn(move || attach(pod))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 64, "{given:?}");
    assert_eq!(node.run(attachments).unwrap().len(), 64);
}

#[test]
fn the_end_of_a_namespace_frees_its_address() {
    if !root() {
        return;
    }
    let node = Node::new();
    let pod = NetworkNamespace::create().unwrap();
    node.attach("a", &pod, &["10.1.0.0/30", "fd00::/127"]).unwrap();
    drop(pod);
    let gone = || node.run(attachments).unwrap().is_empty();
    await_that("the link to go with its namespace", gone);
    let next = NetworkNamespace::create().unwrap();
    node.attach("a", &next, &["10.1.0.0/30", "fd00::/127"]).unwrap();
}

fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + TIMEOUT;
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "waited in vain for {what}");
        std::thread::yield_now();
    }
}

/// A pinned map as the daemon makes it, gone when dropped.
struct PinnedMap {
    map: OwnedFd,
    folder: PathBuf,
}

fn bpf(command: i64, attribute: &[u64]) -> std::io::Result<i32> {
    // SAFETY: the attribute and what it points to outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_ptr(), size_of_val(attribute)) };
    i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(std::io::Error::last_os_error)
}

impl PinnedMap {
    /// None where no bpffs is mounted.
    fn make() -> Option<Self> {
        let folder = PathBuf::from(format!("/sys/fs/bpf/sandbox-test-{}", std::process::id()));
        if std::fs::create_dir_all(folder.join("v1")).is_err() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "needs bpffs");
            println!("SKIP: needs bpffs at /sys/fs/bpf");
            return None;
        }
        // BPF_MAP_CREATE: hash, key 8; value 32, 16 entries. BPF_OBJ_PIN: path; map.
        let map = bpf(0, &[1 | 8 << 32, 32 | 16 << 32]).unwrap();
        // SAFETY: the kernel has just made it.
        let map = unsafe { OwnedFd::from_raw_fd(map) };
        let pin = CString::new(folder.join("v1/pods").to_str().unwrap()).unwrap();
        bpf(6, &[pin.as_ptr() as u64, u64::try_from(map.as_raw_fd()).unwrap()]).unwrap();
        Some(Self { map, folder })
    }

    /// BPF_MAP_LOOKUP_ELEM: map; key, value, flags.
    fn find(&self, cookie: u64) -> Option<PodValue> {
        let mut value: PodValue = [0; 32];
        let map = u64::try_from(self.map.as_raw_fd()).unwrap();
        bpf(1, &[map, (&raw const cookie) as u64, value.as_mut_ptr() as u64, 0]).ok().map(|_| value)
    }
}

impl Drop for PinnedMap {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.folder.join("v1/pods"));
        let _ = std::fs::remove_dir(self.folder.join("v1"));
        let _ = std::fs::remove_dir(&self.folder);
    }
}

#[test]
fn the_programs_know_a_pod_by_the_cookie_of_its_namespace() {
    if !root() {
        return;
    }
    let Some(map) = PinnedMap::make() else { return };
    let mut node = Node::new();
    node.bpf_dir = Some(map.folder.clone());
    let pod = NetworkNamespace::create().unwrap();
    let made = node.attach("a", &pod, &["10.1.0.0/24", "fd00:1::/64"]).unwrap();
    assert_eq!(map.find(made.cookie), Some(pod_value(&made.addresses)));
    node.detach("a");
    assert_eq!(map.find(made.cookie), None);
}

#[test]
fn a_thread_is_back_in_its_namespace_whatever_happens_inside() {
    if !root() {
        return;
    }
    let pod = NetworkNamespace::create().unwrap();
    let here = || NetworkNamespace::current().unwrap();
    assert!(here().is_current().unwrap() && !pod.is_current().unwrap());
    assert!(pod.enter(|| pod.is_current().unwrap()).unwrap());
    assert!(!pod.is_current().unwrap());
    let panicked = std::panic::catch_unwind(|| pod.enter(|| panic!("inside")));
    assert!(panicked.is_err() && !pod.is_current().unwrap());
}

#[test]
fn an_ordinary_file_is_no_namespace() {
    let error = NetworkNamespace::open(std::path::Path::new("/etc/hosts")).unwrap_err();
    assert_eq!(error.to_string(), "/etc/hosts is not a network namespace");
}

//! The decisions of the hooks, run on the host over a fake kernel that keeps the same bytes and a clock. What
//! only a real socket can show is tested in `proxy/tests/sockets.rs`.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;

use ebpf::address::{Address, Port};
use ebpf::affinity::{AffinityKey, AffinityWord};
use ebpf::backend::{Backend, CLUSTER, LOCAL};
use ebpf::balance::{Verdict, connect, peer, receive, release, send};
use ebpf::block::{Header, Line, ServiceWord};
use ebpf::choice::{ChoiceKey, ChoiceWord};
use ebpf::frontend::{FrontendKey, FrontendWord, TCP, UDP};
use ebpf::hostport::HostPortWord;
use ebpf::kernel::{Kernel, Maps, Recorded};
use ebpf::pod::PodAddresses;
use ebpf::reverse::{Dialled, Record, ReverseKey};
use ebpf::stats::Reason;

const SECOND: u64 = 1_000_000_000;
const NODE: u64 = 1;
/// The node's addresses.
const OWN: [&str; 3] = ["192.0.2.10", "127.0.0.1", "::1"];

#[derive(Default)]
struct Fake {
    frontends: HashMap<FrontendKey, FrontendWord>,
    services: HashMap<u32, ServiceWord>,
    lines: HashMap<u32, Line>,
    backends: HashMap<u32, Backend>,
    pods: Pods,
    affinity: RefCell<HashMap<AffinityKey, AffinityWord>>,
    choice: RefCell<HashMap<ChoiceKey, ChoiceWord>>,
    dialled: RefCell<HashMap<ReverseKey, Dialled>>,
    random: Cell<u32>,
    socket: Socket,
    seen: Seen,
    clock: Clock,
}

/// What is known of pods.
#[derive(Default)]
struct Pods {
    told: HashMap<u64, PodAddresses>,
    found: HashMap<u64, PodAddresses>,
    host_ports: HashMap<FrontendKey, HostPortWord>,
}

/// The socket that calls.
#[derive(Default)]
struct Socket {
    /// Each record stays where it was, as a hook may hold it.
    records: RefCell<Vec<&'static Record>>,
    has_record: Cell<bool>,
    netns: Cell<u64>,
}

/// What the decisions did besides answering.
#[derive(Default)]
struct Seen {
    closed: Cell<Option<u32>>,
    refused: Cell<Option<u32>>,
    /// Calls on maps.
    touched: Cell<u32>,
    counted: Cell<Option<Reason>>,
}

/// Nanoseconds since boot: now, and when the daemon last beat.
#[derive(Default)]
struct Clock {
    now: Cell<u64>,
    heartbeat: u64,
}

impl Maps for Fake {
    fn frontend(&self, key: &FrontendKey) -> Option<FrontendWord> {
        self.touch();
        self.frontends.get(key).copied()
    }
    fn service(&self, id: u32) -> Option<ServiceWord> {
        self.touch();
        self.services.get(&id).copied()
    }
    fn line(&self, index: u32) -> Option<&Line> {
        self.touch();
        self.lines.get(&index)
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.touch();
        self.backends.get(&id)
    }
    fn opened(&self, _: u32) {
        self.touch();
    }
    fn refused(&self, service: u32) {
        self.touch();
        self.seen.refused.set(Some(service));
    }
    fn count(&self, reason: Reason) {
        self.seen.counted.set(Some(reason));
    }
    fn affinity(&self, key: &AffinityKey) -> Option<AffinityWord> {
        self.touch();
        self.affinity.borrow().get(key).copied()
    }
    fn set_affinity(&self, key: &AffinityKey, word: AffinityWord) {
        self.touch();
        self.affinity.borrow_mut().insert(*key, word);
    }
    fn host_port(&self, key: &FrontendKey) -> Option<HostPortWord> {
        self.touch();
        self.pods.host_ports.get(key).copied()
    }
    fn pod(&self, cookie: u64) -> Option<&PodAddresses> {
        self.touch();
        self.pods.told.get(&cookie)
    }
    fn heartbeat_ns(&self) -> u64 {
        self.clock.heartbeat
    }
    fn now_ns(&self) -> u64 {
        self.clock.now.get()
    }
    fn random(&self) -> u32 {
        self.random.get()
    }
}

impl Recorded for Fake {
    fn record(&self) -> Option<&Record> {
        self.touch();
        self.socket.has_record.get().then(|| *self.socket.records.borrow().last().expect("it has one"))
    }
    fn remove_record(&self) {
        self.touch();
        self.socket.has_record.set(false);
    }
    fn recorded_backend(&self, id: u32) -> Option<&Backend> {
        self.touch();
        self.backends.get(&id)
    }
    fn closed(&self, id: u32) {
        self.touch();
        self.seen.closed.set(Some(id));
    }
}

impl Kernel for Fake {
    fn is_own(&self, address: &Address) -> bool {
        self.touch();
        OWN.iter().any(|own| address.is(&self::address(own)))
    }
    fn choice(&self, key: &ChoiceKey) -> Option<ChoiceWord> {
        self.touch();
        self.choice.borrow().get(key).copied()
    }
    fn set_choice(&self, key: &ChoiceKey, word: ChoiceWord) {
        self.touch();
        self.choice.borrow_mut().insert(*key, word);
    }
    fn dialled(&self, key: &ReverseKey) -> Option<Dialled> {
        self.touch();
        self.dialled.borrow().get(key).copied()
    }
    fn set_dialled(&self, key: &ReverseKey, dialled: &Dialled) {
        self.touch();
        self.dialled.borrow_mut().insert(*key, *dialled);
    }
    fn found_pod(&self, cookie: u64) -> Option<&PodAddresses> {
        self.touch();
        self.pods.found.get(&cookie)
    }
    fn foresee_record(&self) {}
    fn add_record(&self, record: &Record) -> bool {
        self.touch();
        let free = !self.socket.has_record.replace(true);
        if free {
            self.socket.records.borrow_mut().push(Box::leak(Box::new(*record)));
        }
        free
    }
    fn socket_cookie(&self) -> u64 {
        77
    }
    fn netns_cookie(&self) -> u64 {
        self.socket.netns.get()
    }
    fn node_netns(&self) -> u64 {
        NODE
    }
}

fn address(text: &str) -> Address {
    Address::from(text.parse::<IpAddr>().expect("an address"))
}

fn key(ip: &str, port: u16, protocol: u8) -> FrontendKey {
    FrontendKey::new(address(ip), Port::new(port), protocol)
}

/// The address of backend `id`.
fn backend_address(id: u32) -> Address {
    address(&format!("10.244.0.{id}"))
}

impl Fake {
    fn touch(&self) {
        self.seen.touched.set(self.seen.touched.get() + 1);
    }

    /// The calls on maps that `run` makes.
    fn calls<T>(&self, run: impl FnOnce(&Self) -> T) -> u32 {
        self.seen.touched.set(0);
        run(self);
        self.seen.touched.get()
    }

    /// A service 3 with the backends 1..=slots in these windows, and one frontend with these flags.
    fn new(header: Header, frontend: FrontendKey, flags: u16) -> Self {
        let mut fake = Self {
            socket: Socket { netns: Cell::new(NODE), ..Socket::default() },
            clock: Clock { now: Cell::new(1000 * SECOND), heartbeat: 0 },
            ..Self::default()
        };
        fake.frontends.insert(frontend, FrontendWord::new(&frontend, 3, flags));
        let header = Header { service: 3, ..header };
        let words: Vec<u32> = header.words().into_iter().chain(1..=header.slots).collect();
        for (line, words) in words.chunks(16).enumerate() {
            let mut full = [0; 16];
            full[..words.len()].copy_from_slice(words);
            fake.lines.insert(40 + u32::try_from(line).expect("few lines"), Line(full));
        }
        fake.services.insert(3, ServiceWord::new(40, ebpf::block::lines_for(header.slots)));
        for slot in 0..header.slots {
            let windows = if slot < header.local_end { LOCAL } else { 0 }
                | if slot >= header.cluster_start { CLUSTER } else { 0 };
            let backend = Backend::new(backend_address(slot + 1), Port::new(8080), frontend.protocol(), 3);
            fake.backends.insert(slot + 1, backend.with_windows(windows));
        }
        fake
    }
}

/// A service whose slots are all in the cluster window.
fn cluster(slots: u32) -> Header {
    Header { slots, ..Header::default() }
}

fn sent_to(id: u32) -> Verdict {
    Verdict::Send(backend_address(id), Port::new(8080))
}

#[test]
fn every_slot_is_reached_also_beyond_the_first_line() {
    let vip = key("10.96.0.5", 80, TCP);
    let fake = Fake::new(cluster(30), vip, 0);
    for slot in 0..30_u32 {
        fake.random.set(u32::try_from((u64::from(slot) << 32) / 30 + 1).expect("below 2^32"));
        assert_eq!(connect(&fake, &vip), sent_to(slot + 1));
    }
}

#[test]
fn the_windows_are_kept_apart() {
    let vip = key("10.96.0.5", 80, TCP);
    let header = Header { local_end: 1, cluster_start: 1, slots: 2, ..Header::default() };
    assert_eq!(connect(&Fake::new(header, vip, FrontendWord::SOCKET_LOCAL), &vip), sent_to(1));
    assert_eq!(connect(&Fake::new(header, vip, FrontendWord::PACKET_LOCAL), &vip), sent_to(2));
}

#[test]
fn an_empty_window_refuses_or_is_unreachable() {
    let vip = key("10.96.0.5", 80, TCP);
    let fake = Fake::new(cluster(0), vip, 0);
    assert_eq!((connect(&fake, &vip), fake.seen.counted.get()), (Verdict::Refuse, Some(Reason::NoEndpoint)));
    assert_eq!(fake.seen.refused.get(), Some(3));
    let fake = Fake::new(cluster(1), vip, FrontendWord::SOCKET_LOCAL);
    assert_eq!(connect(&fake, &vip), Verdict::Unreachable);
}

#[test]
fn what_is_no_frontend_is_left_alone_and_an_earlier_record_is_over() {
    let vip = key("10.96.0.5", 80, TCP);
    let fake = Fake::new(cluster(1), vip, 0);
    assert_eq!(connect(&fake, &vip), sent_to(1));
    assert_eq!(connect(&fake, &key("10.96.0.5", 80, UDP)), Verdict::Leave);
    assert_eq!((peer(&fake), fake.seen.counted.get()), (None, Some(Reason::NoFrontend)));
    assert_eq!(fake.seen.closed.get(), Some(1));
}

#[test]
fn a_closed_socket_counts_for_the_backend_that_it_was_sent_to() {
    let vip = key("10.96.0.5", 80, TCP);
    let mut fake = Fake::new(cluster(1), vip, 0);
    release(&fake);
    assert_eq!(fake.seen.closed.get(), None, "it never dialled a frontend");
    assert_eq!(connect(&fake, &vip), sent_to(1));
    release(&fake);
    assert_eq!((fake.seen.closed.take(), peer(&fake)), (Some(1), None));
    assert_eq!(connect(&fake, &vip), sent_to(1));
    // The id has gone to another endpoint meanwhile.
    let other = Backend::new(address("10.244.9.9"), Port::new(8080), TCP, fake.backends[&1].service());
    fake.backends.insert(1, other);
    release(&fake);
    assert_eq!((fake.seen.closed.get(), peer(&fake)), (None, None));
}

#[test]
fn another_port_of_an_address_refuses() {
    let mut fake = Fake::new(cluster(1), key("10.96.0.5", 80, TCP), 0);
    let any = FrontendKey::any_port(address("10.96.0.5"));
    fake.frontends.insert(any, FrontendWord::new(&any, 0, FrontendWord::REFUSE));
    assert_eq!(connect(&fake, &key("10.96.0.5", 81, TCP)), Verdict::Refuse);
    assert_eq!(connect(&fake, &key("10.96.0.5", 80, TCP)), sent_to(1));
}

#[test]
fn a_word_of_another_key_is_a_miss() {
    let vip = key("10.96.0.5", 80, TCP);
    let mut fake = Fake::new(cluster(1), vip, 0);
    fake.frontends.insert(vip, FrontendWord::new(&key("10.96.0.6", 80, TCP), 3, 0));
    assert_eq!(connect(&fake, &vip), Verdict::Leave);
}

#[test]
fn a_connection_is_recorded_and_shown() {
    let (one, two) = (key("10.96.0.5", 80, TCP), key("10.96.0.6", 80, TCP));
    let mut fake = Fake::new(cluster(1), one, 0);
    fake.frontends.insert(two, FrontendWord::new(&two, 3, 0));
    assert_eq!(connect(&fake, &one), sent_to(1));
    assert_eq!(peer(&fake), Some((address("10.96.0.5"), Port::new(80))));
    assert_eq!(connect(&fake, &two), sent_to(1));
    assert_eq!(peer(&fake), Some((address("10.96.0.6"), Port::new(80))));
}

#[test]
fn a_loopback_frontend_is_for_the_node_alone() {
    let vip = key("127.0.0.1", 30080, TCP);
    let fake = Fake::new(cluster(1), vip, FrontendWord::NODE_ONLY);
    assert_eq!(connect(&fake, &vip), sent_to(1));
    fake.socket.netns.set(2);
    assert_eq!(
        (connect(&fake, &vip), fake.seen.counted.get()),
        (Verdict::Leave, Some(Reason::OtherNamespace))
    );
}

#[test]
fn here_first_follows_the_heartbeat() {
    let vip = key("10.96.0.10", 53, UDP);
    let mut fake = Fake::new(cluster(1), vip, FrontendWord::HERE_FIRST);
    fake.clock.heartbeat = fake.clock.now.get() - SECOND / 4;
    assert_eq!((send(&fake, &vip), fake.seen.counted.get()), (Verdict::Leave, Some(Reason::HereFirst)));
    fake.clock.now.set(fake.clock.now.get() + SECOND / 2);
    assert_eq!(send(&fake, &vip), sent_to(1));
    fake.clock.heartbeat = fake.clock.now.get() + 1;
    assert_eq!(send(&fake, &vip), Verdict::Leave, "it beat after the clock was read");
    let silent = Fake::new(cluster(0), vip, FrontendWord::HERE_FIRST);
    assert_eq!(send(&silent, &vip), Verdict::Leave, "without an endpoint it is tried here all the same");
}

#[test]
fn scenario_26_affinity_is_refreshed_by_each_connection_and_ends_after_the_timeout() {
    let vip = key("10.96.0.5", 80, TCP);
    let fake = Fake::new(Header { affinity_seconds: 10, ..cluster(2) }, vip, 0);
    let at = |second: u64, random: u32| {
        fake.clock.now.set((1000 + second) * SECOND);
        fake.random.set(random);
        connect(&fake, &vip)
    };
    assert_eq!([at(0, 0), at(8, u32::MAX), at(16, u32::MAX)], [sent_to(1); 3]);
    assert_eq!(at(27, u32::MAX), sent_to(2), "after 11 s it may move");
}

#[test]
fn scenario_26_affinity_to_an_endpoint_that_left_is_void_at_once() {
    let vip = key("10.96.0.5", 80, TCP);
    let mut fake = Fake::new(Header { affinity_seconds: 10, ..cluster(2) }, vip, 0);
    assert_eq!(connect(&fake, &vip), sent_to(1));
    fake.random.set(u32::MAX);
    assert_eq!(connect(&fake, &vip), sent_to(1));
    fake.backends.insert(1, fake.backends[&1].with_windows(LOCAL));
    assert_eq!([connect(&fake, &vip), connect(&fake, &vip)], [sent_to(2); 2]);
}

#[test]
fn scenario_25_clients_are_pods_the_node_and_unknown_namespaces() {
    let vip = key("10.96.0.5", 80, TCP);
    let mut fake = Fake::new(Header { affinity_seconds: 10, ..cluster(2) }, vip, 0);
    let pod = PodAddresses { ipv4: address("10.244.0.9"), ipv6: Address::NONE };
    fake.pods.told = HashMap::from([(5, pod)]);
    fake.pods.found = HashMap::from([(6, pod)]);
    for (netns, random) in [(NODE, 0), (5, u32::MAX), (6, 0), (7, 0), (8, u32::MAX)] {
        fake.socket.netns.set(netns);
        fake.random.set(random);
        let expected = if matches!(netns, 5 | 6 | 8) { 2 } else { 1 };
        assert_eq!(connect(&fake, &vip), sent_to(expected), "namespace {netns}");
    }
    assert_eq!(fake.affinity.borrow().len(), 4, "two namespaces of one address are one client");
}

#[test]
fn a_host_port_leads_to_its_pod_where_no_frontend_does() {
    let vip = key("192.0.2.10", 30080, TCP);
    let mut fake = Fake::new(cluster(1), vip, 0);
    let pod = PodAddresses { ipv4: address("10.244.0.9"), ipv6: Address::NONE };
    fake.pods.told.insert(ebpf::hostport::pod_behind(7), pod);
    let led = Verdict::Send(address("10.244.0.9"), Port::new(8080));
    for taken in
        [key("0.0.0.0", 80, TCP), key("0.0.0.0", 30080, TCP), key("192.0.2.10", 53, UDP), key("::", 80, TCP)]
    {
        fake.pods.host_ports.insert(taken, HostPortWord::new(&taken, 7, Port::new(8080)));
    }
    assert_eq!(connect(&fake, &vip), sent_to(1), "a service wins");
    assert_eq!(connect(&fake, &key("192.0.2.10", 80, TCP)), led);
    assert_eq!(fake.seen.closed.take(), Some(1), "what it dialled before is over");
    assert_eq!(peer(&fake), Some((address("192.0.2.10"), Port::new(80))));
    assert!(fake.record().is_some_and(|record| record.is_of_host_port()));
    assert_eq!(connect(&fake, &key("127.0.0.1", 80, TCP)), led);
    assert_eq!(connect(&fake, &key("192.0.2.11", 80, TCP)), Verdict::Leave, "another node's address");
    assert_eq!((peer(&fake), fake.seen.closed.get()), (None, None), "no backend counts it");
    assert_eq!(connect(&fake, &key("::1", 80, TCP)), Verdict::Leave, "the pod has no IPv6");
    assert_eq!(send(&fake, &key("192.0.2.10", 53, UDP)), led);
    let shown = receive(&fake, address("10.244.0.9"), Port::new(8080), false);
    assert_eq!(shown, Some((address("192.0.2.10"), Port::new(53))));
    fake.socket.netns.set(5);
    assert_eq!(connect(&fake, &key("192.0.2.10", 80, TCP)), led, "pods reach it too");
    assert_eq!(connect(&fake, &key("127.0.0.1", 80, TCP)), Verdict::Leave, "a pod talks to itself");
}

#[test]
fn a_datagram_keeps_its_backend_while_that_serves() {
    let vip = key("10.96.0.5", 53, UDP);
    let mut fake = Fake::new(cluster(2), vip, 0);
    assert_eq!(send(&fake, &vip), sent_to(1));
    fake.random.set(u32::MAX);
    assert_eq!(send(&fake, &vip), sent_to(1));
    assert_eq!(
        receive(&fake, backend_address(1), Port::new(8080), false),
        Some((address("10.96.0.5"), Port::new(53)))
    );
    assert_eq!(receive(&fake, backend_address(2), Port::new(8080), false), None);
    fake.backends.insert(1, fake.backends[&1].with_windows(0));
    assert_eq!(send(&fake, &vip), sent_to(2));
}

#[test]
fn scenario_14_a_second_frontend_takes_another_slot() {
    let (one, two) = (key("10.96.0.5", 53, UDP), key("10.96.0.6", 53, UDP));
    let mut fake = Fake::new(cluster(2), one, 0);
    assert_eq!(send(&fake, &one), sent_to(1));
    // Another service with backends of its own ids at the same addresses.
    fake.frontends.insert(two, FrontendWord::new(&two, 4, 0));
    let words: Vec<u32> = Header { service: 4, ..cluster(2) }.words().into_iter().chain([11, 12]).collect();
    let mut line = [0; 16];
    line[..10].copy_from_slice(&words);
    fake.lines.insert(50, Line(line));
    fake.services.insert(4, ServiceWord::new(50, 1));
    for id in [1, 2] {
        let backend = Backend::new(backend_address(id), Port::new(8080), UDP, 4).with_windows(CLUSTER);
        fake.backends.insert(10 + id, backend);
    }
    assert_eq!(send(&fake, &two), sent_to(2), "the first is the other frontend's");
}

/// What a connection and a datagram cost, by count: a figure that no busy machine blurs.
#[test]
fn the_calls_on_maps_of_a_connection_and_of_a_datagram_are_few() {
    let (tcp, udp) = (key("10.96.0.5", 80, TCP), key("10.96.0.5", 80, UDP));
    let fake = Fake::new(cluster(30), tcp, 0);
    // Frontend, service, header, slot, backend, its counter, the record.
    assert_eq!(fake.calls(|fake| connect(fake, &tcp)), 7);
    assert_eq!(fake.calls(peer), 1);
    // The record, its backend, the counter, and its removal.
    assert_eq!(fake.calls(release), 4);
    assert_eq!(fake.calls(release), 1, "a socket that went through no frontend");
    // Not a frontend, neither the port nor the address; no earlier record; no hostPort, of the address or of any.
    assert_eq!(fake.calls(|fake| connect(fake, &udp)), 5);

    let fake = Fake::new(cluster(30), udp, 0);
    // As above without a record, but for: a choice before and after, is the backend taken, and the reply's entry.
    assert_eq!(fake.calls(|fake| send(fake, &udp)), 12);
    // Frontend, service, header, choice, its backend, the reply's entry; and that entry for the answer.
    assert_eq!(fake.calls(|fake| send(fake, &udp)), 6);
    assert_eq!(fake.calls(|fake| receive(fake, backend_address(1), Port::new(8080), false)), 1);
}

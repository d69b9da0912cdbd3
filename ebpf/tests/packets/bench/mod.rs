//! The bench of the packet path: the maps of a node in memory, and a hook over one packet at a time.
//! Everything a test did not say is as on a quiet node.

mod packet;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;

use ebpf::address::{Address, Port};
use ebpf::affinity::{AffinityKey, AffinityWord};
use ebpf::backend::{Backend, CLUSTER};
use ebpf::block::{Header, Line, ServiceWord};
use ebpf::frontend::{FrontendKey, FrontendWord};
use ebpf::hostport::{HostPortWord, pod_behind};
use ebpf::kernel::Maps;
use ebpf::packet::checksum;
use ebpf::packet::engine::{self, Action};
use ebpf::packet::flow::{Flow, FlowKey, Side};
use ebpf::packet::fragment::{FragmentKey, FragmentWord};
use ebpf::packet::headers::Headers;
use ebpf::packet::hook::{Buffer, Hook, Table};
use ebpf::packet::run::Run;
use ebpf::packet::uplink::Uplink;
use ebpf::pod::PodAddresses;
use ebpf::stats::Reason;

pub(crate) use packet::{Packet, client_port};

/// What every service here is.
const SERVICE: u32 = 3;

/// The pods that have ports of the node.
#[derive(Default)]
struct Published {
    ports: HashMap<FrontendKey, HostPortWord>,
    pods: HashMap<u64, PodAddresses>,
}

#[derive(Default)]
pub(crate) struct Bench {
    frontends: HashMap<FrontendKey, FrontendWord>,
    line: Option<Line>,
    backends: HashMap<u32, Backend>,
    published: Published,
    ranges: HashMap<Address, u32>,
    allowed: Vec<Address>,
    flows: Flows,
    fragments: Fragments,
    /// Counts of the backends' connections.
    pub(crate) connections: Connections,
    counts: RefCell<HashMap<u32, u64>>,
    host: Host,
}

#[derive(Default)]
struct Host {
    random: Cell<u32>,
    /// Nanoseconds since the bench was made.
    passed: Cell<u64>,
    /// What arrives goes on past the stack.
    redirects: Cell<bool>,
}

#[derive(Default)]
struct Flows {
    kept: RefCell<HashMap<FlowKey, Flow>>,
    fleeting: RefCell<HashMap<FlowKey, Flow>>,
    /// Of `kept`.
    limit: Cell<Option<usize>>,
    half_open: Cell<i64>,
    fleeting_seen: Cell<u32>,
}

#[derive(Default)]
struct Fragments {
    ports: RefCell<HashMap<FragmentKey, FragmentWord>>,
    held: RefCell<Vec<(FragmentKey, Packet)>>,
    /// What was let arrive once more.
    again: RefCell<Vec<Packet>>,
}

#[derive(Default)]
pub(crate) struct Connections {
    pub(crate) opened: Cell<u64>,
    pub(crate) closed: Cell<u64>,
}

pub(crate) fn address(text: &str) -> Address {
    Address::from(text.parse::<IpAddr>().expect("an address"))
}

impl Bench {
    /// A service with these backends on port 8080 behind port 80 of `frontend`.
    pub(crate) fn serving(frontend: &str, protocol: u8, flags: u16, backends: &[&str]) -> Self {
        let mut bench = Self::default();
        bench.also_serve(frontend, 80, protocol, flags);
        bench.replace_backends(backends);
        bench
    }

    /// The same service behind another frontend.
    pub(crate) fn also_serve(&mut self, frontend: &str, port: u16, protocol: u8, flags: u16) {
        let key = FrontendKey::new(address(frontend), Port::new(port), protocol);
        self.frontends.insert(key, FrontendWord::new(&key, SERVICE, flags));
    }

    /// Other backends; those that were there serve no more.
    pub(crate) fn replace_backends(&mut self, addresses: &[&str]) {
        for backend in self.backends.values_mut() {
            *backend = backend.with_windows(0);
        }
        let first = u32::try_from(self.backends.len()).expect("few") + 1;
        let count = u32::try_from(addresses.len()).expect("few");
        let header = Header { service: SERVICE, slots: count, ..Header::default() };
        let mut line = Line([0; 16]);
        line.0[..8].copy_from_slice(&header.words());
        for (slot, (id, text)) in (first..).zip(addresses).enumerate() {
            line.0[8 + slot] = id;
            let backend = Backend::new(address(text), Port::new(8080), 0, SERVICE).with_windows(CLUSTER);
            self.backends.insert(id, backend);
        }
        self.line = Some(line);
    }

    /// A port of the node leads to port 8080 of a pod; each pod has a host end of its own.
    pub(crate) fn publish(&mut self, node: &str, port: u16, protocol: u8, pod: &str) {
        let key = FrontendKey::new(address(node), Port::new(port), protocol);
        let host_end = u32::try_from(self.published.pods.len()).expect("few") + 1;
        let (mut addresses, pod) = (PodAddresses { ipv4: Address::NONE, ipv6: Address::NONE }, address(pod));
        *if pod.is_ipv4() { &mut addresses.ipv4 } else { &mut addresses.ipv6 } = pod;
        self.published.pods.insert(pod_behind(host_end), addresses);
        self.published.ports.insert(key, HostPortWord::new(&key, host_end, Port::new(8080)));
    }

    /// Nobody has the node's ports any more.
    pub(crate) fn unpublish(&mut self) {
        self.published.ports.clear();
    }

    pub(crate) fn range(&mut self, ip: &str, flags: u32) {
        self.ranges.insert(address(ip), flags);
    }

    pub(crate) fn allow(&mut self, client: &str) {
        self.allowed.push(address(client));
    }

    /// The map of flows takes no more than so many entries.
    pub(crate) fn limit_kept(&self, entries: usize) {
        self.flows.limit.set(Some(entries));
    }

    /// What arrives goes on past the stack.
    pub(crate) fn redirect(&self) {
        self.host.redirects.set(true);
    }

    pub(crate) fn pass(&self, seconds: u64) {
        self.host.passed.set(self.host.passed.get() + seconds * 1_000_000_000);
    }

    /// So many flows more are half open.
    pub(crate) fn crowd(&self, flows: i64) {
        self.flows.half_open.set(self.flows.half_open.get() + flows);
    }

    pub(crate) fn half_open(&self) -> i64 {
        self.flows.half_open.get()
    }

    /// Takes the entries of one side out.
    pub(crate) fn drive_out(&self, side: Side) {
        for entries in [&self.flows.kept, &self.flows.fleeting] {
            entries.borrow_mut().retain(|key, _| key.side() != side);
        }
    }

    /// Takes the entries for what comes in from a backend out.
    pub(crate) fn drive_out_translation(&self, backend: &str) {
        let comes_from = |key: &FlowKey| key.side() == Side::Arrive && key.source.is(&address(backend));
        self.flows.fleeting.borrow_mut().retain(|key, _| !comes_from(key));
    }

    pub(crate) fn entries(&self, table: Table) -> usize {
        self.table(table).borrow().len()
    }

    pub(crate) fn counted(&self, reason: Reason) -> u64 {
        self.counts.borrow().get(&(reason as u32)).copied().unwrap_or(0)
    }

    pub(crate) fn arrive(&self, packet: &mut Packet) -> Action {
        engine::arrive(&View { bench: self, packet }, &uplink(), &mut Run::EMPTY.clone())
    }

    pub(crate) fn leave(&self, packet: &mut Packet) -> Action {
        engine::leave(&View { bench: self, packet }, &uplink(), &mut Run::EMPTY.clone())
    }

    /// What the hook let arrive once more.
    pub(crate) fn again(&self) -> Vec<Packet> {
        self.fragments.again.take()
    }

    fn table(&self, table: Table) -> &RefCell<HashMap<FlowKey, Flow>> {
        match table {
            Table::Kept => &self.flows.kept,
            Table::Fleeting => &self.flows.fleeting,
        }
    }
}

fn uplink() -> Uplink {
    Uplink::new(address("192.0.2.10"), address("2001:db8:2::10"), 14, 32768, 60999)
}

struct View<'a> {
    bench: &'a Bench,
    packet: &'a Packet,
}

impl Maps for View<'_> {
    fn frontend(&self, key: &FrontendKey) -> Option<FrontendWord> {
        self.bench.frontends.get(key).copied()
    }
    fn service(&self, id: u32) -> Option<ServiceWord> {
        (id == SERVICE).then(|| ServiceWord::new(0, 1))
    }
    fn line(&self, _: u32) -> Option<&Line> {
        self.bench.line.as_ref()
    }
    fn backend(&self, id: u32) -> Option<&Backend> {
        self.bench.backends.get(&id)
    }
    fn opened(&self, _: u32) {
        self.bench.connections.opened.set(self.bench.connections.opened.get() + 1);
    }
    fn refused(&self, _: u32) {}
    fn count(&self, reason: Reason) {
        *self.bench.counts.borrow_mut().entry(reason as u32).or_default() += 1;
    }
    fn affinity(&self, _: &AffinityKey) -> Option<AffinityWord> {
        None
    }
    fn set_affinity(&self, _: &AffinityKey, _: AffinityWord) {}
    fn host_port(&self, key: &FrontendKey) -> Option<HostPortWord> {
        self.bench.published.ports.get(key).copied()
    }
    fn pod(&self, key: u64) -> Option<&PodAddresses> {
        self.bench.published.pods.get(&key)
    }
    fn heartbeat_ns(&self) -> u64 {
        0
    }
    fn now_ns(&self) -> u64 {
        1_000_000_000_000 + self.bench.host.passed.get()
    }
    fn random(&self) -> u32 {
        // Steps far apart, so that the same port does not come twice.
        self.bench.host.random.set(self.bench.host.random.get().wrapping_add(0x9e37_79b1));
        self.bench.host.random.get()
    }
}

impl Buffer for View<'_> {
    fn size(&self) -> u32 {
        u32::try_from(self.packet.0.borrow().len()).expect("a packet is short")
    }
    fn load<const N: usize>(&self, offset: u32) -> Option<[u32; N]> {
        let bytes = self.packet.0.borrow();
        let bytes = bytes.get(offset as usize..offset as usize + N * 4)?;
        Some(std::array::from_fn(|word| {
            u32::from_ne_bytes(bytes[word * 4..][..4].try_into().expect("four bytes"))
        }))
    }
    fn store<const N: usize>(&self, offset: u32, words: &[u32; N], _: bool) {
        let mut bytes = self.packet.0.borrow_mut();
        for (word, value) in words.iter().enumerate() {
            bytes[offset as usize + word * 4..][..4].copy_from_slice(&value.to_ne_bytes());
        }
    }
    fn fix_header(&self, offset: u32, difference: u32) {
        self.fix(offset, difference, false, false);
    }
    fn fix(&self, offset: u32, difference: u32, _: bool, optional: bool) {
        let mut bytes = self.packet.0.borrow_mut();
        let field = &mut bytes[offset as usize..][..2];
        let old = u16::from_ne_bytes([field[0], field[1]]);
        if optional && old == 0 {
            return;
        }
        let new = checksum::apply(old, difference);
        field.copy_from_slice(&if optional && new == 0 { 0xffff } else { new }.to_ne_bytes());
    }
}

impl Hook for View<'_> {
    fn tick(&self) -> u64 {
        1
    }
    fn touch(&self, table: Table, key: &FlowKey, seconds: u32, flags: u32) -> Option<Flow> {
        let mut entries = self.bench.table(table).borrow_mut();
        let flow = entries.get_mut(key)?;
        let found = *flow;
        assert!(found.is_of(key), "an entry carries the check of its key");
        flow.seen = flow.seen.max(seconds);
        flow.state |= flags;
        Some(found)
    }
    fn insert(&self, table: Table, key: &FlowKey, flow: &Flow) -> bool {
        let mut entries = self.bench.table(table).borrow_mut();
        let full =
            table == Table::Kept && self.bench.flows.limit.get().is_some_and(|limit| entries.len() >= limit);
        if full || entries.contains_key(key) {
            return false;
        }
        entries.insert(*key, *flow);
        true
    }
    fn put(&self, table: Table, key: &FlowKey, flow: &Flow) -> bool {
        self.remove(table, key);
        self.insert(table, key, flow)
    }
    fn remove(&self, table: Table, key: &FlowKey) -> bool {
        self.bench.table(table).borrow_mut().remove(key).is_some()
    }
    fn confirm(&self, key: &FlowKey) -> bool {
        let found = self.touch(Table::Kept, key, 0, Flow::CONFIRMED);
        found.is_some_and(|flow| !flow.has(Flow::CONFIRMED))
    }
    fn half_open(&self) -> i64 {
        self.bench.flows.half_open.get()
    }
    fn add_half_open(&self, difference: i64) {
        self.bench.crowd(difference);
    }
    fn fleeting(&self) -> u32 {
        self.bench.flows.fleeting_seen.get()
    }
    fn note_fleeting(&self, now: u32) {
        self.bench.flows.fleeting_seen.set(now);
    }
    fn closed(&self, _: u32) {
        self.bench.connections.closed.set(self.bench.connections.closed.get() + 1);
    }
    fn fragment(&self, key: &FragmentKey) -> Option<FragmentWord> {
        self.bench.fragments.ports.borrow().get(key).copied()
    }
    fn set_fragment(&self, key: &FragmentKey, word: FragmentWord) {
        self.bench.fragments.ports.borrow_mut().insert(*key, word);
    }
    fn hold(&self, key: &FragmentKey, _: u32) -> bool {
        self.bench.fragments.held.borrow_mut().push((*key, self.packet.clone()));
        true
    }
    fn release(&self, key: &FragmentKey, _: u32) -> bool {
        let (released, kept): (Vec<_>, Vec<_>) =
            self.bench.fragments.held.take().into_iter().partition(|(of, _)| of == key);
        self.bench.fragments.held.replace(kept);
        let some = !released.is_empty();
        let first = some.then(|| self.packet.clone());
        let held = released.into_iter().map(|(_, packet)| packet);
        self.bench.fragments.again.borrow_mut().extend(first.into_iter().chain(held));
        some
    }
    fn range(&self, address: &Address) -> u32 {
        self.bench.ranges.get(address).copied().unwrap_or(0)
    }
    fn send_on(&self, _: &Headers, _: &Flow) -> bool {
        self.bench.host.redirects.get()
    }
    fn may_use(&self, _: u32, client: &Address) -> bool {
        self.bench.allowed.contains(client)
    }
}

//! The zone: every name of the cluster, as a persistent structure of which a changed copy costs what
//! changed. It says where a name stands; `answer` says what that means. Pure; written by `names` alone.
//!
//! Empty non-terminals need no bookkeeping: a service is one entry under the wire form of its two labels,
//! and whatever exists above or below it follows from that entry.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::{HashMap, OrdMap};
use ipnet::IpNet;
use model::{Name, ObjectName, Protocol};

use crate::bundle::{Bundle, Shape};
use crate::name::{DomainName, Folded, push_label};
use crate::record::{Data, Record, Soa};
use crate::reverse;

/// The longest a negative answer may be kept, whatever the TTL of the rest: a service that has just been
/// made must be found soon.
const MAX_NEGATIVE_TTL: u32 = 5;

/// What does not change while the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneConfig {
    /// The cluster domain, such as `cluster.local`.
    pub domain: DomainName,
    /// Seconds that records may be kept.
    pub ttl: u32,
    /// The ranges of services and pods, whose reverse names are ours.
    pub reverse: Vec<IpNet>,
    /// The addresses of `ns.dns` in the cluster domain: those the server answers on.
    pub servers: Vec<IpAddr>,
    /// Which names of pods exist.
    pub pods: PodNames,
}

/// Which names like `10-244-0-5.shop.pod` exist, in the words of CoreDNS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PodNames {
    /// None.
    #[default]
    Disabled,
    /// All in a namespace that exists, whether there is such a pod or not.
    Insecure,
    /// Those of the pods that are watched.
    Verified,
}

/// Every name of the cluster at one moment. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    fixed: Arc<Fixed>,
    services: HashMap<Box<[u8]>, Arc<Bundle>>,
    namespaces: HashMap<Box<[u8]>, Namespace>,
    /// Whose names an address leads back to.
    owners: Owners,
    /// Whose address an address is, where names of pods are verified.
    pods: Owners,
    serial: u32,
    ready: bool,
}

/// To whom addresses belong, in order.
type Owners = OrdMap<IpAddr, Vec<ObjectName>>;

/// The configuration and the names made of it, which every lookup or negative answer needs.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fixed {
    config: ZoneConfig,
    domain: Folded,
    server: DomainName,
    mailbox: DomainName,
}

/// Why a namespace's name exists: it is there, or services are in it (an order of arrival that happens).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Namespace {
    listed: bool,
    services: usize,
}

/// Where a name stands.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Place<'a> {
    /// In none of our zones.
    Outside,
    /// In our zone at a depth of `cut` labels.
    Inside(Node<'a>, Cut),
}

/// How many labels of a name stand above the zone it is in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cut(pub(crate) usize);

/// What is at a name inside our zones.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Node<'a> {
    /// Depends on lists that are not complete.
    NotYet,
    /// Nothing.
    Missing,
    /// Only names below it.
    Empty,
    /// The head of the zone.
    Apex,
    /// `dns-version`.
    Version,
    /// `ns.dns`.
    Server,
    /// A service.
    Service(&'a Bundle),
    /// A named port of a service.
    Port(&'a Bundle, usize),
    /// The endpoints with one label of a headless service: position of the first, and how many.
    Host(&'a Bundle, usize, usize),
    /// A pod, by its address.
    Pod(IpAddr),
    /// An address with its owners.
    Address(IpAddr, &'a [ObjectName]),
}

impl ZoneConfig {
    /// The usual one for a cluster domain: TTL 5, no reverse zones, no addresses of its own, no names of pods.
    pub fn new(domain: DomainName) -> Self {
        Self { domain, ttl: 5, reverse: Vec::new(), servers: Vec::new(), pods: PodNames::Disabled }
    }

    /// `service.namespace.svc` in the cluster domain; None where the two are no labels or too long.
    pub(crate) fn service_name(&self, service: &ObjectName) -> Option<DomainName> {
        let (name, namespace) = (service.name.as_bytes(), service.namespace.as_bytes());
        DomainName::from_labels([name, namespace, b"svc"].into_iter().chain(self.domain.labels()))
    }

    fn below(&self, labels: &[&[u8]]) -> DomainName {
        DomainName::from_labels(labels.iter().copied().chain(self.domain.labels()))
            .unwrap_or_else(|| self.domain.clone())
    }

    /// Seconds that "there is nothing" may be kept.
    pub(crate) fn negative_ttl(&self) -> u32 {
        self.ttl.min(MAX_NEGATIVE_TTL)
    }
}

impl Zone {
    /// A zone of which nothing is known yet.
    pub fn new(config: ZoneConfig) -> Self {
        let fixed = Fixed {
            domain: config.domain.fold(),
            server: config.below(&[b"ns", b"dns"]),
            mailbox: config.below(&[b"hostmaster"]),
            config,
        };
        Self {
            fixed: Arc::new(fixed),
            services: HashMap::new(),
            namespaces: HashMap::new(),
            owners: OrdMap::new(),
            pods: OrdMap::new(),
            serial: 0,
            ready: false,
        }
    }

    /// What it was made with.
    pub fn config(&self) -> &ZoneConfig {
        &self.fixed.config
    }

    /// `ns.dns` in the cluster domain.
    pub(crate) fn server_name(&self) -> &DomainName {
        &self.fixed.server
    }

    /// The cluster domain, ready for comparison.
    pub(crate) fn domain(&self) -> &Folded {
        &self.fixed.domain
    }

    /// What stands before the cluster domain in the names of its SOA: server and mailbox, in wire form.
    pub(crate) fn soa_names(&self) -> (&[u8], &[u8]) {
        let Fixed { domain, server, mailbox, .. } = &*self.fixed;
        let before = |name: &'_ DomainName| name.wire().len() - domain.wire_length();
        (&server.wire()[..before(server)], &mailbox.wire()[..before(mailbox)])
    }

    /// The serial of the SOA.
    pub(crate) fn serial(&self) -> u32 {
        self.serial
    }

    /// Whether the lists behind it are complete; before that, absence means nothing.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// What one service says.
    pub fn service(&self, name: &ObjectName) -> Option<&Arc<Bundle>> {
        self.services.get(&*key(name)?)
    }

    /// Every service in order of namespace and name. For dumps: it sorts.
    pub fn services(&self) -> Vec<&Arc<Bundle>> {
        let mut all: Vec<&Arc<Bundle>> = self.services.values().collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// The namespaces whose names exist, in order.
    pub fn namespaces(&self) -> Vec<String> {
        let text = |label: &[u8]| String::from_utf8_lossy(label).into_owned();
        let mut all: Vec<String> = self.namespaces.keys().map(|label| text(label)).collect();
        all.sort_unstable();
        all
    }

    /// The addresses that lead back to a name, in order.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.owners.keys().copied()
    }

    /// Sets what a service says, or that it says nothing. The cost is that of this one service.
    pub(crate) fn set(&mut self, name: &ObjectName, bundle: Option<Arc<Bundle>>) {
        let Some(key) = key(name) else { return };
        let exists = bundle.is_some();
        let added = bundle.as_ref().map(|bundle| bundle.addresses()).unwrap_or_default();
        let old = match bundle {
            Some(bundle) => self.services.insert(key, bundle),
            None => self.services.remove(&*key),
        };
        let removed = old.as_ref().map(|bundle| bundle.addresses()).unwrap_or_default();
        reown(&mut self.owners, name, removed, added);
        match (old.is_some(), exists) {
            (false, true) => self.change_namespace(&name.namespace, |namespace| namespace.services += 1),
            (true, false) => self.change_namespace(&name.namespace, |namespace| namespace.services -= 1),
            (true, true) | (false, false) => {}
        }
    }

    /// Sets the addresses of a pod, which had others before.
    pub(crate) fn set_pod(&mut self, name: &ObjectName, before: &[IpAddr], addresses: &[IpAddr]) {
        if self.config().pods == PodNames::Verified {
            reown(&mut self.pods, name, before.to_vec(), addresses.to_vec());
        }
    }

    /// Sets whether a namespace is listed.
    pub(crate) fn set_namespace(&mut self, name: &Name, listed: bool) {
        self.change_namespace(name, |namespace| namespace.listed = listed);
    }

    /// Sets the serial of the SOA and, once, that the lists are complete.
    pub(crate) fn advance(&mut self, serial: u32, ready: bool) {
        self.serial = serial;
        self.ready |= ready;
    }

    fn change_namespace(&mut self, name: &Name, change: impl FnOnce(&mut Namespace)) {
        let label = name.to_ascii_lowercase().into_bytes().into_boxed_slice();
        let mut namespace = self.namespaces.get(&label).copied().unwrap_or_default();
        change(&mut namespace);
        if namespace == Namespace::default() {
            self.namespaces.remove(&label);
        } else {
            self.namespaces.insert(label, namespace);
        }
    }

    /// Where `name` stands.
    pub(crate) fn locate(&self, name: &DomainName) -> Place<'_> {
        let name = name.fold();
        if let Some(above) = name.labels_above(&self.fixed.domain) {
            return Place::Inside(self.in_cluster(&name, above), Cut(above));
        }
        let Some(last) = name.count().checked_sub(1) else { return Place::Outside };
        match name.label(last) {
            // Asked without the cluster domain, from the same data: what a plain `dig web.shop.svc` asks.
            b"svc" if last == 0 => Place::Inside(Node::Apex, Cut(0)),
            b"svc" => Place::Inside(self.in_services(&name, last), Cut(last)),
            b"arpa" => self.in_reverse(&name),
            _ => Place::Outside,
        }
    }

    /// What stands `above` labels above the cluster domain.
    pub(crate) fn in_cluster(&self, name: &Folded, above: usize) -> Node<'_> {
        let Some(last) = above.checked_sub(1) else { return Node::Apex };
        match name.label(last) {
            b"svc" => self.in_services(name, last),
            // Both are words of the schema, and exist whatever is below them.
            b"pod" | b"dns" if last == 0 => Node::Empty,
            b"pod" => self.in_pods(name, last),
            b"dns" if last == 1 && name.label(0) == b"ns" => Node::Server,
            b"dns-version" if last == 0 => Node::Version,
            _ => Node::Missing,
        }
    }

    /// `above` labels stand left of `svc`.
    fn in_services(&self, name: &Folded, above: usize) -> Node<'_> {
        if above == 0 {
            return Node::Empty;
        }
        if !self.ready {
            return Node::NotYet;
        }
        if above == 1 {
            let exists = self.namespaces.contains_key(name.label(0));
            return if exists { Node::Empty } else { Node::Missing };
        }
        let Some(bundle) = self.services.get(name.wires(above - 2, above)) else { return Node::Missing };
        match above {
            2 => Node::Service(bundle),
            3 => below_service(bundle, name.label(0)),
            4 => port_of(bundle, name.label(0), name.label(1)),
            _ => Node::Missing,
        }
    }

    /// `above` labels stand left of `pod`.
    fn in_pods(&self, name: &Folded, above: usize) -> Node<'_> {
        if self.config().pods == PodNames::Disabled {
            return Node::Missing;
        }
        if !self.ready {
            return Node::NotYet;
        }
        let namespace = name.label(above - 1);
        if !self.namespaces.contains_key(namespace) {
            return Node::Missing;
        }
        let address = match above {
            1 => return Node::Empty,
            2 => dashed(name.label(0)),
            _ => None,
        };
        let lives = |address: &IpAddr| {
            let owners = self.pods.get(address).into_iter().flatten();
            owners.into_iter().any(|pod| pod.namespace.as_bytes().eq_ignore_ascii_case(namespace))
        };
        match address {
            Some(address) if self.config().pods == PodNames::Insecure || lives(&address) => {
                Node::Pod(address)
            }
            Some(_) | None => Node::Missing,
        }
    }

    fn in_reverse(&self, name: &Folded) -> Place<'_> {
        let Some(range) = reverse::parse(name) else { return Place::Outside };
        let Some(cut) = reverse::cut(&range, &self.fixed.config.reverse) else { return Place::Outside };
        let apex_or = |node| if cut.0 == 0 { Node::Apex } else { node };
        let node = match range.address() {
            _ if range.extra > 0 => Node::Missing,
            _ if !self.ready => apex_or(Node::NotYet),
            Some(address) => match self.owners.get(&address) {
                Some(owners) => Node::Address(address, owners),
                None => apex_or(Node::Missing),
            },
            None => match self.owners.range(range.first..=range.last).next() {
                Some(_) => apex_or(Node::Empty),
                None => apex_or(Node::Missing),
            },
        };
        Place::Inside(node, cut)
    }

    /// The SOA of the zone that `name` is in, with the TTL it may be kept for as part of a positive answer
    /// (`negative` false) or a negative one.
    pub(crate) fn soa(&self, name: &DomainName, cut: Cut, negative: bool) -> Record {
        let Fixed { config, server, mailbox, .. } = &*self.fixed;
        let soa = Soa {
            server: server.clone(),
            mailbox: mailbox.clone(),
            serial: self.serial,
            minimum: config.negative_ttl(),
        };
        let ttl = if negative { config.negative_ttl() } else { config.ttl };
        Record { owner: name.parent(cut.0), ttl, data: Data::Soa(soa) }
    }
}

/// Takes addresses from an owner and gives it others.
fn reown(owners: &mut Owners, name: &ObjectName, mut removed: Vec<IpAddr>, mut added: Vec<IpAddr>) {
    for list in [&mut removed, &mut added] {
        list.sort_unstable();
        list.dedup();
    }
    for address in removed.iter().filter(|address| added.binary_search(address).is_err()) {
        let Some(names) = owners.get_mut(address) else { continue };
        names.retain(|owner| owner != name);
        if names.is_empty() {
            owners.remove(address);
        }
    }
    for address in added.iter().filter(|address| removed.binary_search(address).is_err()) {
        let names = owners.entry(*address).or_default();
        if let Err(at) = names.binary_search(name) {
            // Nearly every address has one owner for as long as it is there.
            names.reserve_exact(1);
            names.insert(at, name.clone());
        }
    }
}

/// The address of a label such as `10-244-0-5` or `fd00--5`.
fn dashed(label: &[u8]) -> Option<IpAddr> {
    let label = std::str::from_utf8(label).ok()?;
    let v4 = || label.replace('-', ".").parse().ok().map(IpAddr::V4);
    v4().or_else(|| label.replace('-', ":").parse().ok().map(IpAddr::V6))
}

fn below_service<'a>(bundle: &'a Bundle, label: &[u8]) -> Node<'a> {
    if let Some(protocol) = protocol(label) {
        return if bundle.has_protocol(protocol) { Node::Empty } else { Node::Missing };
    }
    let Shape::Headless(names) = &bundle.shape else { return Node::Missing };
    match names.host(label) {
        (_, 0) => Node::Missing,
        (first, count) => Node::Host(bundle, first, count),
    }
}

fn port_of<'a>(bundle: &'a Bundle, port: &[u8], proto: &[u8]) -> Node<'a> {
    let position = || bundle.port(port.strip_prefix(b"_")?, protocol(proto)?);
    position().map_or(Node::Missing, |position| Node::Port(bundle, position))
}

fn protocol(label: &[u8]) -> Option<Protocol> {
    match label {
        b"_tcp" => Some(Protocol::Tcp),
        b"_udp" => Some(Protocol::Udp),
        b"_sctp" => Some(Protocol::Sctp),
        _ => None,
    }
}

/// The wire form of the two labels of a service in lower case; None where they are no labels.
fn key(name: &ObjectName) -> Option<Box<[u8]>> {
    let mut wire = Vec::with_capacity(name.name.len() + name.namespace.len() + 2);
    push_label(&mut wire, name.name.as_bytes())?;
    push_label(&mut wire, name.namespace.as_bytes())?;
    wire.make_ascii_lowercase();
    Some(wire.into_boxed_slice())
}

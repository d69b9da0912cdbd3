//! What a name means: the only place that knows. Pure: the rotation of endpoints comes in as a seed, and
//! nothing here knows of messages, sockets or upstreams. Every way of serving derives from `answer`.

use std::net::IpAddr;

use model::ObjectName;

use crate::bundle::{Bundle, ClusterNames, HeadlessNames, Shape};
use crate::name::DomainName;
use crate::record::{CLASS_ANY, CLASS_IN, Data, Question, Record, RecordType};
use crate::reverse;
use crate::zone::{Cut, Node, Place, Zone};

/// The version of the Kubernetes DNS specification that the names follow.
const SCHEMA_VERSION: &str = "1.1.0";

/// The most aliases followed inside the zone. A longer chain is a loop.
const MAX_CHAIN: usize = 8;

/// What is to be said to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The name has records of the type.
    Found(Found),
    /// The name exists, its records of the type do not. RFC 2308: the SOA goes into the authority section.
    NoData {
        /// The aliases that led here.
        chain: Vec<Record>,
        /// The head of the zone.
        soa: Record,
    },
    /// The name does not exist, nor any below it.
    NoName {
        /// The aliases that led here.
        chain: Vec<Record>,
        /// The head of the zone.
        soa: Record,
    },
    /// The name exists and cannot be answered for: this node's data plane did not take the service, or an
    /// alias is broken.
    ServFail,
    /// The lists behind the name are not complete.
    NotYet,
    /// Not ours: upstream knows.
    Forward {
        /// The aliases that led out of the zone; empty where the question itself is not ours.
        chain: Vec<Record>,
        /// The name to ask for.
        name: DomainName,
    },
}

/// Records that answer a question.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The answer section.
    pub records: Vec<Record>,
    /// The additional section: addresses of the targets in the answer.
    pub additional: Vec<Record>,
}

/// What to say. The same zone, question and seed give the same answer.
pub fn answer(zone: &Zone, question: &Question, seed: u64) -> Answer {
    let mut chain = Vec::new();
    let mut name = question.name.clone();
    loop {
        let (node, cut) = match zone.locate(&name) {
            Place::Outside => return Answer::Forward { chain, name },
            Place::Inside(node, cut) => (node, cut),
        };
        let asked = Asked { zone, name: &name, rtype: question.rtype, seed };
        let found = match asked.step(node, cut) {
            Step::Say(answer) => return answer,
            Step::Nothing => return Answer::NoName { chain, soa: zone.soa(&name, cut, true) },
            Step::Alias(target) => {
                chain.push(asked.record(Data::Cname(target.clone())));
                if asked.rtype.covers(RecordType::CNAME) {
                    return Answer::Found(Found { records: chain, additional: Vec::new() });
                }
                if chain.len() > MAX_CHAIN {
                    return Answer::ServFail;
                }
                name = target;
                continue;
            }
            Step::Here(found) => found,
        };
        if found.records.is_empty() || ![CLASS_IN, CLASS_ANY].contains(&question.class) {
            return Answer::NoData { chain, soa: zone.soa(&name, cut, true) };
        }
        chain.extend(found.records);
        return Answer::Found(Found { records: chain, additional: found.additional });
    }
}

/// One name of the chain, and what is wanted of it.
struct Asked<'a> {
    zone: &'a Zone,
    name: &'a DomainName,
    rtype: RecordType,
    seed: u64,
}

/// What one name of the chain comes to.
enum Step {
    Say(Answer),
    /// The name does not exist.
    Nothing,
    /// The name exists and has these records of the type, perhaps none.
    Here(Found),
    Alias(DomainName),
}

impl Asked<'_> {
    fn step(&self, node: Node<'_>, cut: Cut) -> Step {
        match node {
            Node::NotYet => Step::Say(Answer::NotYet),
            Node::Missing => Step::Nothing,
            Node::Empty => Step::Here(Found::default()),
            Node::Apex => Step::Here(self.apex(cut)),
            Node::Version => Step::Here(self.covered([Data::Txt(SCHEMA_VERSION)])),
            Node::Server => {
                let servers = self.zone.config().servers.iter();
                Step::Here(self.covered(servers.map(|ip| Data::of_address(*ip))))
            }
            Node::Service(bundle) => self.service(bundle),
            Node::Port(bundle, position) => self.port(bundle, position),
            Node::Host(bundle, first, count) => self.host(bundle, first, count),
            Node::Pod(address) => Step::Here(self.covered([Data::of_address(address)])),
            Node::Address(address, owners) => self.pointer(address, owners),
        }
    }

    fn apex(&self, cut: Cut) -> Found {
        let mut found = Found::default();
        if self.rtype.covers(RecordType::SOA) {
            found.records.push(self.zone.soa(self.name, cut, false));
        }
        if self.rtype.covers(RecordType::NS) {
            let server = self.zone.server_name();
            found.records.push(self.record(Data::Ns(server.clone())));
            found.additional = self.addresses_of(server, &self.zone.config().servers);
        }
        found
    }

    fn service(&self, bundle: &Bundle) -> Step {
        match &bundle.shape {
            Shape::External(Some(target)) => Step::Alias(target.clone()),
            Shape::External(None) => Step::Say(Answer::ServFail),
            Shape::Cluster(names) if !names.programmed => Step::Say(Answer::ServFail),
            Shape::Cluster(names) => {
                let mut found = self.covered(names.addresses.iter().map(|ip| Data::of_address(*ip)));
                // UDP and TCP at one port are one record: a set has none twice (RFC 2181 section 5).
                let mut every: Vec<u16> = Vec::new();
                for port in &names.ports {
                    if !every.contains(&port.number) {
                        every.push(port.number);
                    }
                }
                found.extend(self.cluster_srv(bundle, names, &every));
                Step::Here(found)
            }
            Shape::Headless(names) => {
                let mut found = self.covered(names.hosts.iter().map(|host| Data::of_address(host.address)));
                let mut every: Vec<_> = names.ports.iter().flat_map(|port| port.targets.iter()).collect();
                every.sort_unstable();
                every.dedup();
                found.extend(self.headless_srv(bundle, names, &every));
                Step::Here(found)
            }
        }
    }

    fn port(&self, bundle: &Bundle, position: usize) -> Step {
        match &bundle.shape {
            Shape::Cluster(names) if !names.programmed => Step::Say(Answer::ServFail),
            Shape::Cluster(names) => {
                Step::Here(self.cluster_srv(bundle, names, &[names.ports[position].number]))
            }
            Shape::Headless(names) => {
                let targets: Vec<_> = names.ports[position].targets.iter().collect();
                Step::Here(self.headless_srv(bundle, names, &targets))
            }
            Shape::External(_) => Step::Nothing,
        }
    }

    fn host(&self, bundle: &Bundle, first: usize, count: usize) -> Step {
        let Shape::Headless(names) = &bundle.shape else { return Step::Nothing };
        let hosts = &names.hosts[first..first + count];
        Step::Here(self.covered(hosts.iter().map(|host| Data::of_address(host.address))))
    }

    fn cluster_srv(&self, bundle: &Bundle, names: &ClusterNames, ports: &[u16]) -> Found {
        let target = self.zone.config().service_name(&bundle.name);
        let Some(target) = target.filter(|_| self.rtype.covers(RecordType::SRV)) else {
            return Found::default();
        };
        let weight = weight(ports.len());
        let srv = |port: &u16| self.record(Data::Srv { weight, port: *port, target: target.clone() });
        let records = ports.iter().map(srv).collect();
        Found { records, additional: self.addresses_of(&target, &names.addresses) }
    }

    fn headless_srv(&self, bundle: &Bundle, names: &HeadlessNames, ports: &[&(model::Name, u16)]) -> Found {
        let service = self.zone.config().service_name(&bundle.name);
        let Some(service) = service.filter(|_| self.rtype.covers(RecordType::SRV)) else {
            return Found::default();
        };
        let weight = weight(ports.len());
        let mut found = Found::default();
        for (label, port) in ports {
            let Some(target) = service.child(label.as_bytes()) else { continue };
            let (first, count) = names.host(label.as_bytes());
            let addresses: Vec<IpAddr> =
                names.hosts[first..first + count].iter().map(|host| host.address).collect();
            found.additional.extend(self.addresses_of(&target, &addresses));
            found.records.push(self.record(Data::Srv { weight, port: *port, target }));
        }
        // A host that serves several ports is several targets and one host.
        found.additional.sort_unstable();
        found.additional.dedup();
        self.rotate(&mut found.records);
        found
    }

    fn pointer(&self, address: IpAddr, owners: &[ObjectName]) -> Step {
        let bundles: Vec<_> = owners.iter().filter_map(|owner| self.zone.service(owner)).collect();
        let names: Vec<DomainName> =
            bundles.iter().flat_map(|bundle| self.names_of(address, bundle)).collect();
        if names.is_empty() {
            // Its only owners are services that this node could not program.
            return Step::Say(Answer::ServFail);
        }
        Step::Here(self.covered(names.into_iter().map(Data::Ptr)))
    }

    fn names_of(&self, address: IpAddr, bundle: &Bundle) -> Vec<DomainName> {
        let Some(service) = self.zone.config().service_name(&bundle.name) else { return Vec::new() };
        match &bundle.shape {
            Shape::Cluster(names) if !names.programmed => Vec::new(),
            Shape::Cluster(_) => vec![service],
            Shape::Headless(names) => {
                let hosts = names.hosts.iter().filter(|host| host.address == address);
                hosts.filter_map(|host| service.child(host.label.as_bytes())).collect()
            }
            Shape::External(_) => Vec::new(),
        }
    }

    /// The records of the name itself that the type covers, rotated.
    fn covered(&self, all: impl IntoIterator<Item = Data>) -> Found {
        let wanted = all.into_iter().filter(|data| self.rtype.covers(data.rtype()));
        let mut records: Vec<Record> = wanted.map(|data| self.record(data)).collect();
        self.rotate(&mut records);
        Found { records, additional: Vec::new() }
    }

    fn addresses_of(&self, owner: &DomainName, addresses: &[IpAddr]) -> Vec<Record> {
        let ttl = self.zone.config().ttl;
        let record = |ip: &IpAddr| Record { owner: owner.clone(), ttl, data: Data::of_address(*ip) };
        addresses.iter().map(record).collect()
    }

    fn record(&self, data: Data) -> Record {
        Record { owner: self.name.clone(), ttl: self.zone.config().ttl, data }
    }

    fn rotate(&self, records: &mut [Record]) {
        if let Some(start) = self.seed.checked_rem(records.len() as u64) {
            records.rotate_left(usize::try_from(start).unwrap_or_default());
        }
    }
}

impl Found {
    fn extend(&mut self, more: Self) {
        self.records.extend(more.records);
        self.additional.extend(more.additional);
    }
}

/// 100 shared out over the records of one name, as CoreDNS does; RFC 2782 keeps 0 for "no selection".
fn weight(records: usize) -> u16 {
    u16::try_from(100 / records.max(1)).unwrap_or(100).max(1)
}

/// The reverse name of an address, to ask for its owner.
pub fn reverse_question(address: IpAddr) -> Question {
    Question::new(reverse::name_of(address), RecordType::PTR)
}

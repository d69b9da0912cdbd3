//! The zone as text, for people and golden tests: every name with its records, in a stable order, as
//! `answer` gives them. And names as a pod's resolver tries them. Pure; used by the command line.

use std::fmt;

use model::{ObjectName, Protocol};

use crate::answer::{Answer, Found, answer};
use crate::bundle::{Bundle, Shape};
use crate::name::DomainName;
use crate::record::{Question, Record, RecordType};
use crate::reverse;
use crate::zone::{Node, Place, Zone};

/// A name with fewer dots is tried below the search domains first: `options ndots:5`, as kubelet writes it.
const NDOTS: usize = 5;

impl Zone {
    /// Every record, one a line as in a zone file. A name that cannot be answered for is a comment.
    pub fn dump(&self) -> String {
        self.names().iter().map(|name| self.lines(name)).collect()
    }

    /// Every record that can be answered, in the order of the dump.
    pub fn records(&self) -> Vec<Record> {
        let all = self.names().into_iter().map(|name| Question::new(name, RecordType::ANY));
        all.flat_map(|question| match answer(self, &question, 0) {
            Answer::Found(found) => found.records,
            Answer::NoData { .. }
            | Answer::NoName { .. }
            | Answer::ServFail
            | Answer::NotYet
            | Answer::Forward { .. } => Vec::new(),
        })
        .collect()
    }

    /// The service whose name this is.
    pub fn service_at(&self, name: &DomainName) -> Option<&ObjectName> {
        match self.locate(name) {
            Place::Inside(Node::Service(bundle), _) => Some(&bundle.name),
            Place::Inside(..) | Place::Outside => None,
        }
    }

    fn lines(&self, name: &DomainName) -> String {
        match answer(self, &Question::new(name.clone(), RecordType::ANY), 0) {
            Answer::Found(found) => found.records.iter().map(|record| format!("{record}\n")).collect(),
            Answer::ServFail => format!("; {name} SERVFAIL\n"),
            Answer::NotYet => format!("; {name} not listed yet\n"),
            Answer::NoData { .. } | Answer::NoName { .. } | Answer::Forward { .. } => String::new(),
        }
    }

    fn names(&self) -> Vec<DomainName> {
        let domain = &self.config().domain;
        let mut names = vec![domain.clone(), self.server_name().clone()];
        names.extend(domain.child(b"dns-version"));
        for bundle in self.services() {
            let Some(service) = self.config().service_name(&bundle.name) else { continue };
            names.push(service.clone());
            names.extend(below(bundle, &service));
        }
        names.extend(self.addresses().map(reverse::name_of));
        names
    }
}

/// What a pod of a namespace gets for a host: each name its resolver tries, up to the first that leads
/// somewhere.
pub fn lookup(zone: &Zone, host: &str, namespace: &str, rtype: RecordType) -> Vec<(DomainName, Answer)> {
    let domain = zone.config().domain.to_string();
    let search = [format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain];
    let below = search.iter().filter_map(|suffix| DomainName::parse(&format!("{host}.{suffix}")));
    let itself = DomainName::parse(host);
    let tried: Vec<DomainName> = match host {
        host if host.ends_with('.') => itself.into_iter().collect(),
        host if host.split('.').count() > NDOTS => itself.into_iter().chain(below).collect(),
        _ => below.chain(itself).collect(),
    };
    let mut answers = Vec::new();
    for name in tried {
        let said = answer(zone, &Question::new(name.clone(), rtype), 0);
        let goes_on = matches!(said, Answer::NoName { .. } | Answer::NoData { .. });
        answers.push((name, said));
        if !goes_on {
            break;
        }
    }
    answers
}

/// The names below a service that have records.
fn below(bundle: &Bundle, service: &DomainName) -> Vec<DomainName> {
    let port = |name: &str, protocol: Protocol| {
        let protocol = protocol.as_str().to_ascii_lowercase();
        service.child(format!("_{protocol}").as_bytes())?.child(format!("_{name}").as_bytes())
    };
    let mut names: Vec<DomainName> = match &bundle.shape {
        Shape::Cluster(names) => named(names.ports.iter().map(|p| (&*p.name, p.protocol)), port),
        Shape::Headless(names) => {
            let hosts = names.hosts.iter().filter_map(|host| service.child(host.label.as_bytes()));
            let ports = named(names.ports.iter().map(|p| (&*p.name, p.protocol)), port);
            ports.into_iter().chain(hosts).collect()
        }
        Shape::External(_) => Vec::new(),
    };
    // The two addresses of a dual-stack endpoint stand at one name.
    names.dedup();
    names
}

fn named<'a>(
    ports: impl Iterator<Item = (&'a str, Protocol)>,
    name: impl Fn(&str, Protocol) -> Option<DomainName>,
) -> Vec<DomainName> {
    ports.filter(|(port, _)| !port.is_empty()).filter_map(|(port, protocol)| name(port, protocol)).collect()
}

impl fmt::Display for Answer {
    /// The outcome, then the records, one a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = |f: &mut fmt::Formatter<'_>, section: &str, records: &[Record]| {
            records.iter().try_for_each(|record| writeln!(f, "{section}{record}"))
        };
        let outcome = match self {
            Self::Found(_) => "NOERROR",
            Self::NoData { .. } => "NODATA",
            Self::NoName { .. } => "NXDOMAIN",
            Self::ServFail => "SERVFAIL",
            Self::NotYet => "not listed yet",
            Self::Forward { .. } => "forward",
        };
        writeln!(f, "{outcome}")?;
        match self {
            Self::Found(Found { records, additional }) => {
                lines(f, "", records)?;
                lines(f, "additional ", additional)
            }
            Self::NoData { chain, soa } | Self::NoName { chain, soa } => {
                lines(f, "", chain)?;
                writeln!(f, "authority {soa}")
            }
            Self::Forward { chain, name } => {
                lines(f, "", chain)?;
                writeln!(f, "to upstream: {name}")
            }
            Self::ServFail | Self::NotYet => Ok(()),
        }
    }
}

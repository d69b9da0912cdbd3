//! `fairway explain`: what a client's name becomes, which frontend it dials, where every endpoint of it stands
//! and why, and how the choice is made. It asks the same functions that answer and plan, so it cannot
//! tell another story than they do. Pure.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail};
use dns::{Answer, Data, DomainName, Question, RecordType, Zone};
use ebpf::frontend::FrontendWord;
use model::{Affinity, Member, Protocol};
use proxy::{Client, Decision, Explained, Explanation as Said, Frontend, Source, decide};
use sandbox::Record;
use serde::{Deserialize, Serialize};

use super::standing;
use crate::step::Progress;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The name or address dialled.
    pub host: String,
    /// The port dialled; None for every port that the address has.
    pub port: Option<u16>,
    /// The client, as written.
    pub from: Option<String>,
}

/// Where a target leads.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// The client, in words.
    pub from: String,
    /// The names that are asked, in order, with what comes back; empty for an address.
    pub names: Vec<Asked>,
    /// What the client dials.
    pub frontends: Vec<Dialled>,
    /// The outcome in one sentence.
    pub verdict: String,
}

/// One name asked.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    /// The name.
    pub name: String,
    /// Its answer.
    pub answer: String,
}

/// One frontend.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Dialled {
    /// Address, port and protocol.
    pub frontend: String,
    /// The service port it leads to; None if it is refused.
    pub service: Option<String>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointStanding>,
    /// The kind of the address, and the policy and ranges that hold for it.
    pub rule: String,
    /// How one is chosen.
    pub choice: String,
}

/// One endpoint and where it stands.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointStanding {
    /// Address and port.
    pub address: SocketAddr,
    /// Its node.
    pub node: Option<String>,
    /// Its pod.
    pub pod: Option<String>,
    /// Conditions, zone and hints, in words.
    pub facts: String,
    /// `in: ...` or `out: ...`, with the reason.
    pub standing: String,
    /// Whether it may be chosen.
    pub is_used: bool,
}

impl Request {
    /// Reads `HOST[:PORT]`; an IPv6 address with a port stands in brackets.
    ///
    /// # Errors
    /// One sentence about what was typed.
    pub fn parse(target: &str, from: Option<&str>) -> Result<Self> {
        let from = from.map(str::to_owned);
        if target.parse::<IpAddr>().is_ok() {
            return Ok(Self { host: target.to_owned(), port: None, from });
        }
        let (host, port) = match target.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (target, None),
        };
        let port = port.map(|port| port.parse().ok().filter(|&port| port != 0));
        let port = match port {
            Some(None) => bail!("{target:?} is not HOST or HOST:PORT"),
            Some(port) => port,
            None => None,
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self { host, port, from })
    }
}

/// Explains a request against what is programmed and answered now.
///
/// # Errors
/// One sentence: the client is no pod of this node, or the host is no name.
pub fn explain(
    progress: &Progress,
    zone: &Zone,
    records: &[Record],
    request: &Request,
) -> Result<Explanation> {
    let (from, namespace, client) = client(progress, records, request.from.as_deref())?;
    let mut explanation = Explanation { from, ..Explanation::default() };
    let addresses = match request.host.parse::<IpAddr>() {
        Ok(ip) => vec![ip],
        Err(_) => resolve(zone, &request.host, &namespace, &mut explanation)?,
    };
    for ip in &addresses {
        let frontends = frontends(progress, *ip, request.port);
        explanation.frontends.extend(frontends.iter().map(|frontend| dialled(progress, frontend, client)));
    }
    explanation.verdict = verdict(&explanation, &addresses);
    Ok(explanation)
}

/// The client in words, the namespace whose search path it has, and what it is to this node.
fn client(progress: &Progress, records: &[Record], from: Option<&str>) -> Result<(String, String, Client)> {
    let default = "default".to_owned();
    let Some(from) = from else { return Ok(("this node".to_owned(), default, Client::Node)) };
    let pod = |record: &Record| {
        let words = format!("pod {}/{}", record.pod.namespace, record.pod.name);
        let client = if record.host_network { Client::Node } else { Client::Pod };
        (words, record.pod.namespace.clone(), client)
    };
    if let Ok(ip) = from.parse::<IpAddr>() {
        let found = records.iter().find(|record| record.addresses.contains(&ip) && !record.host_network);
        let own = progress.facts.iter().any(|facts| facts.addresses.contains(&ip));
        return Ok(match found {
            Some(record) => pod(record),
            None if own || ip.is_loopback() => ("this node".to_owned(), default, Client::Node),
            None => (format!("{ip}, outside of this node"), default, Client::Outside),
        });
    }
    let name = from.strip_prefix("pod/").unwrap_or(from);
    let (namespace, name) = name.split_once('/').unwrap_or(("default", name));
    let known = records.iter().find(|record| record.pod.namespace == namespace && record.pod.name == name);
    match known {
        Some(record) => Ok(pod(record)),
        None => {
            bail!("no pod {namespace}/{name} runs on this node; `fairway get sandboxes` lists those that do")
        }
    }
}

/// Walks the search path as a pod's resolver does: the first name with an address of either family ends it.
fn resolve(zone: &Zone, host: &str, namespace: &str, explanation: &mut Explanation) -> Result<Vec<IpAddr>> {
    if DomainName::parse(host).is_none() {
        bail!("{host:?} is not a domain name");
    }
    let mut tried = dns::lookup(zone, host, namespace, RecordType::A);
    let (mut addresses, mut other) = (found(&tried), RecordType::AAAA);
    if addresses.is_empty() {
        tried = dns::lookup(zone, host, namespace, RecordType::AAAA);
        (addresses, other) = (found(&tried), RecordType::A);
    }
    let asked =
        |(name, answer): &(DomainName, Answer)| Asked { name: name.to_string(), answer: describe(answer) };
    explanation.names.extend(tried.iter().map(asked));
    if let Some((name, _)) = tried.last().filter(|_| !addresses.is_empty())
        && let answer @ Answer::Found(_) = dns::answer(zone, &Question::new(name.clone(), other), 0)
    {
        let both = [(name.clone(), answer)];
        explanation.names.extend(both.iter().map(asked));
        addresses.extend(found(&both));
    }
    Ok(addresses)
}

fn found(tried: &[(DomainName, Answer)]) -> Vec<IpAddr> {
    let records = tried.iter().filter_map(|(_, answer)| match answer {
        Answer::Found(found) => Some(&found.records),
        Answer::NoData { .. }
        | Answer::NoName { .. }
        | Answer::ServFail
        | Answer::NotYet
        | Answer::Forward { .. } => None,
    });
    records.flatten().filter_map(|record| address(&record.data)).collect()
}

fn describe(answer: &Answer) -> String {
    match answer {
        Answer::Found(found) => {
            let text = |record: &dns::Record| format!("{} {}", record.data.rtype(), record.data);
            found.records.iter().map(text).collect::<Vec<_>>().join(", ")
        }
        Answer::NoData { .. } => "exists, without such addresses".to_owned(),
        Answer::NoName { .. } => "does not exist".to_owned(),
        Answer::ServFail => "SERVFAIL: this node could not program the service".to_owned(),
        Answer::NotYet => "held: the first lists are not complete".to_owned(),
        Answer::Forward { name, .. } => format!("asked upstream as {name}"),
    }
}

const fn address(data: &Data) -> Option<IpAddr> {
    match data {
        Data::A(ip) => Some(IpAddr::V4(*ip)),
        Data::Aaaa(ip) => Some(IpAddr::V6(*ip)),
        Data::Cname(_) | Data::Ns(_) | Data::Ptr(_) | Data::Srv { .. } | Data::Txt(_) | Data::Soa(_) => None,
        Data::Other { .. } => None,
    }
}

/// What the address and port are in the tables: for one port whatever it meets, else every port there is.
fn frontends(progress: &Progress, ip: IpAddr, port: Option<u16>) -> Vec<Frontend> {
    let tables = &progress.tables.frontends;
    let Some(port) = port else {
        let first = Frontend { ip, port: 0, protocol: None };
        let all = tables.range(first..).map(|(frontend, _)| *frontend);
        return all.take_while(|frontend| frontend.ip == ip).filter(|frontend| frontend.port != 0).collect();
    };
    let exact = [Protocol::Tcp, Protocol::Udp].map(|protocol| Frontend::new(ip, port, protocol));
    let known: Vec<Frontend> = exact.into_iter().filter(|frontend| tables.contains_key(frontend)).collect();
    if !known.is_empty() {
        return known;
    }
    let any = Frontend::any_port(ip);
    tables.contains_key(&any).then_some(any).into_iter().collect()
}

fn dialled(progress: &Progress, frontend: &Frontend, client: Client) -> Dialled {
    let dialled = |choice: &str| Dialled {
        frontend: frontend.to_string(),
        service: None,
        endpoints: Vec::new(),
        rule: String::new(),
        choice: choice.to_owned(),
    };
    let Some(facts) = &progress.facts else { return dialled("the first lists are not complete") };
    let (key, flags, endpoints) = match proxy::explain(&progress.tables, &progress.snapshot, facts, frontend)
    {
        Said::Service(key, flags, endpoints) => (key, flags, endpoints),
        Said::NoPort => return dialled("refused at once: the service at this address has no such port"),
        Said::NoFrontend => return dialled("nobody's: the connection goes there as it is"),
    };
    let Some(member) = progress.snapshot.services.get(&key.name) else {
        return dialled("going: the service is gone, its address follows");
    };
    let local_flag = match client {
        Client::Pod | Client::Node => FrontendWord::SOCKET_LOCAL,
        Client::Outside => FrontendWord::PACKET_LOCAL,
    };
    let is_local = flags & local_flag != 0;
    Dialled {
        frontend: frontend.to_string(),
        service: Some(key.to_string()),
        endpoints: endpoints.iter().map(|endpoint| standing(endpoint, is_local)).collect(),
        rule: standing::rule(&member.service, frontend.ip),
        choice: choice(member, &decide(&progress.tables, frontend, client), client),
    }
}

fn standing(endpoint: &Explained, is_local: bool) -> EndpointStanding {
    let standing = if is_local { endpoint.local } else { endpoint.cluster };
    EndpointStanding {
        address: SocketAddr::new(endpoint.ip, endpoint.port),
        node: endpoint.node.as_deref().map(str::to_owned),
        pod: endpoint.pod.as_ref().map(ToString::to_string),
        facts: standing::facts(endpoint),
        standing: if endpoint.other_family { "out: of the other family" } else { standing.as_str() }
            .to_owned(),
        is_used: standing.is_in() && !endpoint.other_family,
    }
}

fn choice(member: &Member, decision: &Decision, client: Client) -> String {
    let (slots, source) = match decision {
        Decision::Untouched => return "not for this client: the connection goes there as it is".to_owned(),
        Decision::Here => {
            return "answered by the daemon of this node; by those of other nodes while it does not run"
                .to_owned();
        }
        Decision::Refused => return "refused at once: there is no usable endpoint".to_owned(),
        Decision::Unreachable if client == Client::Outside => {
            return "dropped, so that the client tries another node: none here, and the policy is Local"
                .to_owned();
        }
        Decision::Unreachable => {
            return "fails at once with EHOSTUNREACH: none on this node, and the policy is Local".to_owned();
        }
        Decision::Balanced(slots, source) => (slots.len(), *source),
    };
    let seen = match source {
        Source::Kept => "it sees the client's own address",
        Source::Node => "it sees this node's address",
    };
    let how = match (slots, member.service.traffic.affinity) {
        (1, _) => "the one endpoint".to_owned(),
        (_, Affinity::None) => format!("one of {slots}, at random for each connection"),
        (_, Affinity::ClientIp { timeout_seconds }) => {
            format!("one of {slots}, kept for a client until {timeout_seconds} s after its last connection")
        }
    };
    format!("{how}; {seen}")
}

fn verdict(explanation: &Explanation, addresses: &[IpAddr]) -> String {
    if addresses.is_empty() {
        return "the name has no address".to_owned();
    }
    if explanation.frontends.is_empty() {
        let list: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        return format!("{} is no address of a service: the connection goes there as it is", list.join(", "));
    }
    let used = explanation.frontends.iter().flat_map(|frontend| &frontend.endpoints);
    let used = used.filter(|endpoint| endpoint.is_used).count();
    let plural = |count: usize| if count == 1 { "" } else { "s" };
    let frontends = explanation.frontends.len();
    format!("{frontends} frontend{}, {used} usable endpoint{}", plural(frontends), plural(used))
}

/// The explanation for a person.
pub fn text(explanation: &Explanation) -> String {
    let mut lines = vec![format!("from {}", explanation.from)];
    for asked in &explanation.names {
        lines.push(format!("name {}", asked.name));
        lines.push(format!("  {}", asked.answer));
    }
    for dialled in &explanation.frontends {
        let service = dialled.service.as_deref().unwrap_or("nothing");
        lines.push(format!("frontend {} -> {service}", dialled.frontend));
        if !dialled.rule.is_empty() {
            lines.push(format!("  {}", dialled.rule));
        }
        for endpoint in &dialled.endpoints {
            let whom = [
                endpoint.pod.as_deref().map(|pod| format!(" pod {pod}")),
                endpoint.node.as_deref().map(|node| format!(" on {node}")),
            ];
            let whom: String = whom.into_iter().flatten().collect();
            lines.push(format!("  {}{whom} ({}): {}", endpoint.address, endpoint.facts, endpoint.standing));
        }
        lines.push(format!("  {}", dialled.choice));
    }
    lines.push(explanation.verdict.clone());
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_with_or_without_a_port() {
        let check = |text: &str, host: &str, port: Option<u16>| {
            let request = Request::parse(text, None).unwrap();
            assert_eq!((request.host.as_str(), request.port), (host, port));
        };
        check("web.shop:80", "web.shop", Some(80));
        check("web", "web", None);
        check("10.96.0.1", "10.96.0.1", None);
        check("fd00::1", "fd00::1", None);
        check("[fd00::1]:443", "fd00::1", Some(443));
        assert!(Request::parse("web:http", None).is_err() && Request::parse("web:0", None).is_err());
    }
}

//! Tables as text: stable, readable, read back by [`Tables::parse`]; printed by `fairway plan`, compared by tests.
//!
//! ```text
//! frontend 10.96.0.5:80/TCP shop/web:http/TCP/v4 packet-local
//! service shop/web:http/TCP/v4 affinity=10800
//!   10.244.0.2:8080 local cluster
//! ```

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;

use ebpf::backend::{CLUSTER, LOCAL};
use ebpf::frontend::FrontendWord;
use model::{ObjectName, Protocol};

use crate::tables::{Block, Family, Frontend, ServiceKey, Slot, Tables, Target};

const FLAGS: [(u16, &str); 5] = [
    (FrontendWord::SOCKET_LOCAL, "socket-local"),
    (FrontendWord::PACKET_LOCAL, "packet-local"),
    (FrontendWord::HERE_FIRST, "here-first"),
    (FrontendWord::NODE_ONLY, "node-only"),
    (FrontendWord::GUARDED, "guarded"),
];
const WINDOWS: [(u8, &str); 2] = [(LOCAL, "local"), (CLUSTER, "cluster")];

/// A line of a dump that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {text:?} is no frontend, service or slot")]
pub struct ParseError {
    /// Its number, from 1.
    pub line: usize,
    /// What stands there.
    pub text: String,
}

impl Tables {
    /// The text: frontends, then services with their slots.
    pub fn dump(&self) -> String {
        let mut text = String::new();
        for (frontend, target) in &self.frontends {
            let written = match target {
                Target::Refuse => writeln!(text, "frontend {frontend} refuse"),
                Target::Service(key, flags) => {
                    writeln!(text, "frontend {frontend} {key}{}", words(*flags, &FLAGS))
                }
            };
            written.expect("writing to a string cannot fail");
        }
        for (key, block) in &self.services {
            block.dump(key, &mut text).expect("writing to a string cannot fail");
        }
        text
    }

    /// The tables that a text says.
    ///
    /// # Errors
    ///
    /// The first line that cannot be read.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        let mut tables = Self::default();
        let mut open: Option<(ServiceKey, Block)> = None;
        for (index, line) in text.lines().enumerate() {
            let wrong = || ParseError { line: index + 1, text: line.to_owned() };
            let mut words = line.split_whitespace();
            match words.next().ok_or_else(wrong)? {
                "frontend" => {
                    let (frontend, target) = parse_frontend(words).ok_or_else(wrong)?;
                    tables.frontends.insert(frontend, target);
                }
                "service" => {
                    tables.close(open.take());
                    open = Some(parse_service(words).ok_or_else(wrong)?);
                }
                address => {
                    let slot = parse_slot(address, words).ok_or_else(wrong)?;
                    open.as_mut().ok_or_else(wrong)?.1.slots.push(slot);
                }
            }
        }
        tables.close(open);
        Ok(tables)
    }

    fn close(&mut self, service: Option<(ServiceKey, Block)>) {
        self.services.extend(service.map(|(key, block)| (key, Arc::new(block))));
    }
}

impl Block {
    fn dump(&self, key: &ServiceKey, text: &mut String) -> std::fmt::Result {
        write!(text, "service {key}")?;
        if self.affinity_seconds != 0 {
            write!(text, " affinity={}", self.affinity_seconds)?;
        }
        writeln!(text)?;
        for slot in &self.slots {
            writeln!(text, "  {}{}", SocketAddr::new(slot.ip, slot.port), words(slot.windows, &WINDOWS))?;
        }
        Ok(())
    }
}

/// The names of the bits that are set, each with a blank before it.
fn words<T: Copy + std::ops::BitAnd<Output = T> + PartialEq>(bits: T, names: &[(T, &str)]) -> String {
    names
        .iter()
        .filter(|(bit, _)| bits & *bit == *bit)
        .fold(String::new(), |text, (_, name)| text + " " + name)
}

fn parse_frontend<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<(Frontend, Target)> {
    let address = words.next()?;
    let frontend = match address.split_once('/') {
        None => Frontend::any_port(address.parse().ok()?),
        Some((address, protocol)) => {
            let address: SocketAddr = address.parse().ok()?;
            Frontend::new(address.ip(), address.port(), parse_protocol(protocol)?)
        }
    };
    let target = match words.next()? {
        "refuse" => Target::Refuse,
        key => Target::Service(parse_key(key)?, parse_bits(words, &FLAGS)?),
    };
    Some((frontend, target))
}

fn parse_service<'a>(mut words: impl Iterator<Item = &'a str>) -> Option<(ServiceKey, Block)> {
    let key = parse_key(words.next()?)?;
    let affinity_seconds = match words.next() {
        None => 0,
        Some(word) => word.strip_prefix("affinity=")?.parse().ok()?,
    };
    Some((key, Block { affinity_seconds, slots: Vec::new() }))
}

fn parse_slot<'a>(address: &str, words: impl Iterator<Item = &'a str>) -> Option<Slot> {
    let address: SocketAddr = address.parse().ok()?;
    Some(Slot { ip: address.ip(), port: address.port(), windows: parse_bits(words, &WINDOWS)? })
}

fn parse_bits<'a, T: Copy + Default + std::ops::BitOr<Output = T>>(
    words: impl Iterator<Item = &'a str>,
    names: &[(T, &str)],
) -> Option<T> {
    let bit = |word: &str| names.iter().find(|(_, name)| *name == word).map(|(bit, _)| *bit);
    words.map(bit).try_fold(T::default(), |bits, bit| Some(bits | bit?))
}

fn parse_key(text: &str) -> Option<ServiceKey> {
    let (rest, family) = text.rsplit_once('/')?;
    let (rest, protocol) = rest.rsplit_once('/')?;
    let (name, port) = rest.rsplit_once(':')?;
    let name = match name.split_once('/') {
        Some((namespace, name)) => ObjectName::new(namespace, name),
        None => ObjectName::cluster_scoped(name),
    };
    let family = match family {
        "v4" => Family::V4,
        "v6" => Family::V6,
        _ => return None,
    };
    Some(ServiceKey::new(name, port.into(), parse_protocol(protocol)?, family))
}

fn parse_protocol(text: &str) -> Option<Protocol> {
    match text {
        "TCP" => Some(Protocol::Tcp),
        "UDP" => Some(Protocol::Udp),
        _ => None,
    }
}

//! Dialogues: golden files in `tests/dialogues` in which a cluster changes and is asked; `Stage::act` has the
//! words. Indented lines are what came of the line before them. `UPDATE_EXPECT=1` writes them anew.
//!
//! Questions go through octets: a request is written, answered, and read back by another implementation.

#![allow(clippy::unwrap_used, reason = "a test that is wrong must fail at once")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use dns::{DomainName, Names, PodNames, RecordType, Reply, Transport, Wait, ZoneConfig, lookup, respond};
use hickory_proto::op::Message;
use hickory_proto::rr::Record;
use model::Cluster;
use model::testing::name;
use support::{config, event};

#[test]
fn dialogues() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 5, "the dialogues are there");
    for file in files {
        println!("{}", file.display());
        expect_test::expect_file![&file].assert_eq(&play(&std::fs::read_to_string(&file).unwrap()));
    }
}

/// The text with every indented line made anew.
fn play(text: &str) -> String {
    let mut stage = Stage { cluster: model::testing::listed([]), names: Names::new(config()) };
    let mut played = String::new();
    for line in text.lines().filter(|line| !line.starts_with("  ")) {
        writeln!(played, "{line}").unwrap();
        for said in stage.act(line).lines() {
            writeln!(played, "  {said}").unwrap();
        }
    }
    played
}

struct Stage {
    cluster: Cluster,
    names: Names,
}

impl Stage {
    /// `+` and `-` change the cluster; `learn` and `forget` are the phases, with the services that could not
    /// be programmed; `pods` sets which names of pods exist; `?` asks for a name and type, perhaps with a seed; `lookup` tries as a pod does.
    fn act(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            [] | ["#", ..] => String::new(),
            ["+" | "-", ..] => {
                self.cluster.apply(event(line));
                String::new()
            }
            ["forget"] => {
                self.names.forget(&self.cluster.snapshot());
                String::new()
            }
            ["learn", ref unprogrammed @ ..] => {
                let unprogrammed: BTreeSet<_> = unprogrammed.iter().map(|text| name(text)).collect();
                self.names.learn(&self.cluster.snapshot(), &unprogrammed);
                String::new()
            }
            ["restart"] => {
                *self = Self { cluster: Cluster::new(), names: Names::new(config()) };
                String::new()
            }
            ["pods", which] => {
                let pods = match which {
                    "disabled" => PodNames::Disabled,
                    "insecure" => PodNames::Insecure,
                    "verified" => PodNames::Verified,
                    _ => panic!("no such names of pods: {which}"),
                };
                self.names = Names::new(ZoneConfig { pods, ..config() });
                self.names.learn(&self.cluster.snapshot(), &BTreeSet::new());
                String::new()
            }
            ["dump"] => self.names.reader().zone().dump(),
            ["lookup", host, "from", namespace] => self.lookup(host, namespace),
            ["?", host, rtype] => self.ask(host, rtype, 0),
            ["?", host, rtype, seed] => self.ask(host, rtype, seed.parse().unwrap()),
            _ => panic!("no such line: {line}"),
        }
    }

    fn lookup(&self, host: &str, namespace: &str) -> String {
        let tried = lookup(&self.names.reader().zone(), host, namespace, RecordType::A);
        tried.iter().map(|(name, answer)| format!("{name} {answer}")).collect()
    }

    fn ask(&self, host: &str, rtype: &str, seed: u64) -> String {
        let name = DomainName::parse(host).unwrap();
        let mut request = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        request.extend_from_slice(name.wire());
        request.extend_from_slice(&RecordType::parse(rtype).unwrap().0.to_be_bytes());
        request.extend_from_slice(&dns::CLASS_IN.to_be_bytes());
        match respond(&self.names.reader().zone(), &request, Transport::Tcp, seed) {
            Reply::Send(answer) => show(&Message::from_vec(&answer).unwrap(), host),
            Reply::Wait(_, Wait::Lists) => "held".into(),
            Reply::Wait(_, Wait::Upstream) => "relayed".into(),
            Reply::Wait(_, Wait::Alias(chain, name)) => {
                let chain: String = chain.iter().map(|record| format!("{record}\n")).collect();
                format!("{chain}chased: {name}\n")
            }
            Reply::Drop => "dropped".into(),
        }
    }
}

/// The outcome, then the records of each section. What every answer of ours has is checked and not shown.
fn show(message: &Message, asked: &str) -> String {
    let head = &message.metadata;
    assert_eq!((head.id, head.recursion_available, head.recursion_desired), (0x1234, true, true));
    let question = message.queries[0].name().to_string();
    assert_eq!(question.trim_end_matches('.'), asked.trim_end_matches('.'), "the case is kept");
    let authoritative = if head.authoritative { " aa" } else { "" };
    let truncated = if head.truncation { " tc" } else { "" };
    let mut text = format!("{:?}{authoritative}{truncated}\n", head.response_code);
    let mut section = |name: &str, records: &[Record]| {
        for record in records {
            writeln!(text, "{name}{record}").unwrap();
        }
    };
    section("", &message.answers);
    section("authority ", &message.authorities);
    section("additional ", &message.additionals);
    text
}

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
use hickory_proto::op::{Message, ResponseCode};
use hickory_proto::rr::Record;
use model::Cluster;
use model::testing::name;
use support::{config, event};

#[test]
fn dialogues() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    // Those with upstreams and time are played beside the cache.
    files.retain(|file| file.is_file());
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
    /// be programmed; `pods` sets which names of pods exist; `?` asks for a name and type, `How::read` says how;
    /// `lookup` tries as a pod does.
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
            ["?", host, rtype, ref how @ ..] => self.ask(host, rtype, &How::read(how)),
            _ => panic!("no such line: {line}"),
        }
    }

    fn lookup(&self, host: &str, namespace: &str) -> String {
        let tried = lookup(&self.names.reader().zone(), host, namespace, RecordType::A);
        tried.iter().map(|(name, answer)| format!("{name} {answer}")).collect()
    }

    fn ask(&self, host: &str, rtype: &str, how: &How) -> String {
        let request = how.write(host, rtype);
        match respond(&self.names.reader().zone(), &request, how.transport, how.seed) {
            Reply::Send(answer) => show(&answer, host, how),
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

/// How a question is asked, where that is not as a plain question over TCP.
struct How {
    seed: u64,
    transport: Transport,
    flags: u16,
    class: u16,
    questions: u16,
    /// Payload, version and flags.
    opt: Option<(u16, u8, u16)>,
    /// Octets that are missing at the end.
    cut: usize,
}

impl How {
    /// A number is the seed; `udp`; flags by name or `opcode=`; `class=`; `edns` and what is in it; and what is
    /// wrong: `questions=` that the header counts, and octets that are `cut=` off.
    fn read(words: &[&str]) -> Self {
        const RD: u16 = 0x100;
        let (transport, class) = (Transport::Tcp, dns::CLASS_IN);
        let mut how = Self { seed: 0, transport, flags: RD, class, questions: 1, opt: None, cut: 0 };
        for word in words {
            let (key, value) = word.split_once('=').unwrap_or((word, "0"));
            let number: u16 = value.parse().unwrap();
            let opt = how.opt.unwrap_or((1232, 0, 0));
            match key {
                "udp" => how.transport = Transport::Udp,
                "response" => how.flags |= 0x8000,
                "norec" => how.flags &= !RD,
                "ad" => how.flags |= 0x20,
                "cd" => how.flags |= 0x10,
                "opcode" => how.flags |= number << 11,
                "class" => how.class = number,
                "questions" => how.questions = number,
                "cut" => how.cut = number.into(),
                "edns" => how.opt = Some(opt),
                "version" => how.opt = Some((opt.0, u8::try_from(number).unwrap(), opt.2)),
                "payload" => how.opt = Some((number, opt.1, opt.2)),
                "do" => how.opt = Some((opt.0, opt.1, 0x8000)),
                seed => how.seed = seed.parse().unwrap(),
            }
        }
        how
    }

    fn write(&self, host: &str, rtype: &str) -> Vec<u8> {
        let mut request = vec![0x12, 0x34];
        for word in [self.flags, self.questions, 0, 0, self.opt.is_some().into()] {
            request.extend_from_slice(&word.to_be_bytes());
        }
        request.extend_from_slice(DomainName::parse(host).unwrap().wire());
        request.extend_from_slice(&RecordType::parse(rtype).unwrap().0.to_be_bytes());
        request.extend_from_slice(&self.class.to_be_bytes());
        if let Some((payload, version, flags)) = self.opt {
            request.extend_from_slice(&[0, 0, 41]);
            request.extend_from_slice(&payload.to_be_bytes());
            request.extend_from_slice(&[0, version]);
            request.extend_from_slice(&flags.to_be_bytes());
            request.extend_from_slice(&[0, 0]);
        }
        request.truncate(request.len() - self.cut);
        request
    }
}

/// The outcome, then the records of each section; of an answer that was cut how many there are. What every answer
/// of ours has is checked and not shown.
fn show(answer: &[u8], asked: &str, how: &How) -> String {
    let message = Message::from_vec(answer).unwrap();
    let head = &message.metadata;
    assert_eq!((head.id, head.recursion_desired), (0x1234, how.flags & 0x100 != 0));
    assert!(!head.authentic_data, "nothing was verified");
    // The numbers are the same; the other is of signed messages.
    let is_version = head.response_code == ResponseCode::BADSIG;
    let code = if is_version { "BADVERS".to_owned() } else { format!("{:?}", head.response_code) };
    let mut text = code;
    for (flag, name) in [
        (head.authoritative, " aa"),
        (head.truncation, " tc"),
        (head.checking_disabled, " cd"),
        (!head.recursion_available, " no-ra"),
        (message.queries.is_empty(), " no-question"),
    ] {
        text.push_str(if flag { name } else { "" });
    }
    if let Some(query) = message.queries.first() {
        assert_eq!(query.name().to_string().trim_end_matches('.'), asked.trim_end_matches('.'), "the case");
    }
    if let Some(edns) = &message.edns {
        let dnssec = if edns.flags().dnssec_ok { " do" } else { "" };
        write!(text, " edns version={} payload={}{dnssec}", edns.version(), edns.max_payload()).unwrap();
        let options = edns.options().as_ref().iter();
        options.for_each(|(code, _)| write!(text, " option={}", u16::from(*code)).unwrap());
    }
    text.push('\n');
    if head.truncation {
        writeln!(text, "{} records in {} octets", message.answers.len(), answer.len()).unwrap();
        return text;
    }
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

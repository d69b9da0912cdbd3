//! Plays the files of `tests/dialogues/cache`: what upstreams say, what clients are told of it, and time that passes
//! in between. `Stage::act` has the words; indented lines are what came of the line before them, and
//! `UPDATE_EXPECT=1` writes them anew.

use std::fmt::Write as _;
use std::path::Path;

use hickory_proto::op::Message;

use crate::cache::*;
use crate::wire::{Rcode, Transport};

#[test]
fn dialogues() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dialogues/cache");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "the dialogues are there");
    for file in files {
        expect_test::expect_file![&file].assert_eq(&play(&std::fs::read_to_string(&file).unwrap()));
    }
}

fn play(text: &str) -> String {
    let mut stage = Stage { cache: Cache::new(Limits::default()), now: Instant::now() };
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
    cache: Cache,
    now: Instant,
}

impl Stage {
    /// `wait` lets seconds pass; `? NAME` asks for its A records, perhaps with `edns` or `do`; an upstream says
    /// addresses with a TTL each (`192.0.2.1/300`), that there are none or no such name (with the TTL and the
    /// minimum of an SOA), a code, or nothing.
    fn act(&mut self, line: &str) -> String {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words[..] {
            [] | ["#", ..] => String::new(),
            ["wait", seconds] => {
                self.now += Duration::from_secs(seconds.parse().unwrap());
                String::new()
            }
            ["?", name, ref how @ ..] => self.ask(&request(name, how)),
            ["upstream", name, "silent"] => {
                self.cache.fail(&Key::of(&request(name, &[])), self.now);
                String::new()
            }
            ["upstream", name, ref said @ ..] => {
                let request = request(name, &[]);
                let stored = Arc::new(Stored::read(&answer(&request, said)).unwrap());
                self.cache.keep(&Key::of(&request), &stored, self.now);
                format!("kept for {} s", stored.life().as_secs())
            }
            _ => panic!("no such line: {line}"),
        }
    }

    fn ask(&mut self, request: &Request) -> String {
        let (kind, stored, age) = match self.cache.look(&Key::of(request), self.now) {
            Known::Nothing => return "upstream is asked".to_owned(),
            Known::Failure => return "SERVFAIL, and no upstream is asked".to_owned(),
            Known::Answer(stored, age) => ("", stored, age),
            Known::Expiring(stored, age) => ("upstream is asked meanwhile\n", stored, age),
            Known::Expired(stored) => ("upstream is asked; if it fails:\n", stored, Age::Stale),
        };
        let message = Message::from_vec(&stored.answer(request, age)).unwrap();
        let mut text = format!("{kind}{:?}\n", message.metadata.response_code);
        for record in message.answers.iter().chain(&message.authorities) {
            writeln!(text, "{record}").unwrap();
        }
        if let Some(edns) = &message.edns {
            let options = edns.options().as_ref().iter();
            options.for_each(|(code, _)| writeln!(text, "option {}", u16::from(*code)).unwrap());
        }
        text
    }
}

fn request(name: &str, how: &[&str]) -> Request {
    let question = Question::new(DomainName::parse(name).unwrap(), RecordType::A);
    let mut octets = crate::wire::write_question(&question, how.contains(&"do"), false);
    if how.is_empty() {
        octets.truncate(octets.len() - 11);
        octets[11] = 0;
    }
    Request::read(&octets, Transport::Udp).unwrap()
}

/// A message in which an upstream says this.
fn answer(request: &Request, said: &[&str]) -> Vec<u8> {
    let number = |text: &str| text.parse::<u32>().unwrap();
    let (rcode, addresses, soa) = match said {
        ["nodata", soa] => (Rcode::NO_ERROR, &[][..], Some(soa)),
        ["nxdomain", soa] => (Rcode::NX_DOMAIN, &[][..], Some(soa)),
        ["servfail"] => (Rcode::SERV_FAIL, &[][..], None),
        ["refused"] => (Rcode::REFUSED, &[][..], None),
        addresses => (Rcode::NO_ERROR, addresses, None),
    };
    let counts = [1, addresses.len(), soa.iter().len(), 0].map(|count| u16::try_from(count).unwrap());
    let mut octets = vec![0, 0, 0x81, 0x80 | u8::try_from(rcode.0).unwrap()];
    counts.iter().for_each(|count| octets.extend_from_slice(&count.to_be_bytes()));
    octets.extend_from_slice(request.question.name.wire());
    octets.extend_from_slice(&[0, 1, 0, 1]);
    for address in addresses {
        let (address, ttl) = address.split_once('/').unwrap();
        octets.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        octets.extend_from_slice(&number(ttl).to_be_bytes());
        octets.extend_from_slice(&[0, 4]);
        octets.extend_from_slice(&address.parse::<std::net::Ipv4Addr>().unwrap().octets());
    }
    if let Some(soa) = soa {
        let (ttl, minimum) = soa.split_once('/').unwrap();
        octets.extend_from_slice(&[0xc0, 12, 0, 6, 0, 1]);
        octets.extend_from_slice(&number(ttl).to_be_bytes());
        octets.extend_from_slice(&[0, 24, 0xc0, 12, 0xc0, 12]);
        octets.extend_from_slice(&[0; 16]);
        octets.extend_from_slice(&number(minimum).to_be_bytes());
    }
    octets
}

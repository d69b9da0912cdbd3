//! Odd requests, played again: those of `tests/corpus/requests.txt`, and each of them with every octet changed
//! and cut at every length. Nothing panics, nothing grows, and every answer can be read.

#![allow(clippy::unwrap_used, reason = "a test that is wrong must fail at once")]

mod support;

use std::collections::BTreeSet;

use dns::{Names, PodNames, Reply, Transport, Zone, ZoneConfig, respond};
use hickory_proto::op::Message;
use proptest::prelude::*;
use support::{cluster, config};

/// The messages of the corpus with what is odd about them.
fn corpus() -> Vec<(&'static str, Vec<u8>)> {
    let mut why = "";
    let mut messages = Vec::new();
    for line in include_str!("corpus/requests.txt").lines() {
        match line.strip_prefix("# ") {
            Some(text) => why = text,
            None if line.is_empty() => {}
            None => messages.push((why, octets(line))),
        }
    }
    messages
}

fn octets(digits: &str) -> Vec<u8> {
    assert!(digits.len().is_multiple_of(2), "{digits}");
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

fn zone() -> std::sync::Arc<Zone> {
    let at: Vec<String> = (1..=200).map(|last| format!("10.244.0.{last}")).collect();
    let text = format!(
        "+ service shop/web headless ports=http:80/TCP
         + service shop/out external=web.shop.svc.cluster.local
         + slice shop/web-1 of=web ports=http:80/TCP at={}",
        at.join(",")
    );
    let mut names = Names::new(ZoneConfig { pods: PodNames::Insecure, ..config() });
    names.learn(&cluster(&text).snapshot(), &BTreeSet::new());
    names.reader().zone()
}

/// What comes of a message can be read, is an answer to it, and is no longer than a datagram of ours may be.
fn play(zone: &Zone, message: &[u8], why: &str) {
    for (transport, limit) in [(Transport::Udp, 4096), (Transport::Tcp, 65535)] {
        let Reply::Send(answer) = respond(zone, message, transport, 1) else { continue };
        assert!(answer.len() <= limit, "{why}: {} octets", answer.len());
        assert_eq!((answer[..2] == message[..2], answer[2] >> 7), (true, 1), "{why}: the id, and a response");
        Message::from_vec(&answer).unwrap_or_else(|error| panic!("{why}: {error}"));
    }
}

#[test]
fn the_corpus_is_survived() {
    let (zone, corpus) = (zone(), corpus());
    assert!(corpus.len() > 40, "{} messages", corpus.len());
    for (why, message) in &corpus {
        play(&zone, message, why);
    }
}

#[test]
fn the_corpus_with_an_octet_changed_is_survived() {
    let zone = zone();
    for (why, message) in &corpus() {
        // The rest of a long message is more of the same.
        for at in 0..message.len().min(80) {
            for value in [0, 1, 0x3f, 0x40, 0x80, 0xc0, 0xff] {
                let mut changed = message.clone();
                changed[at] = value;
                play(&zone, &changed, why);
            }
        }
    }
}

#[test]
fn the_corpus_cut_short_is_survived() {
    let zone = zone();
    for (why, message) in &corpus() {
        for length in 0..message.len().min(300) {
            play(&zone, &message[..length], why);
        }
    }
}

/// A message of the corpus with some octets changed, a part of another put in, and its end cut.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let messages: Vec<Vec<u8>> = corpus().into_iter().map(|(_, message)| message).collect();
    let message = prop::sample::select(messages);
    let change = (any::<prop::sample::Index>(), any::<u8>());
    let part = (any::<prop::sample::Index>(), any::<prop::sample::Index>(), 0_usize..64);
    (message.clone(), message, prop::collection::vec(change, 0..6), part, 0_usize..24).prop_map(
        |(mut message, other, changes, (at, from, length), cut)| {
            let from = from.index(other.len() + 1);
            let piece = other[from..other.len().min(from + length)].to_vec();
            let at = at.index(message.len() + 1);
            message.splice(at..at, piece);
            for (at, octet) in changes {
                if let Some(changed) = (!message.is_empty()).then(|| at.index(message.len())) {
                    message[changed] = octet;
                }
            }
            message.truncate(message.len().saturating_sub(cut));
            message
        },
    )
}

proptest! {
    // PROPTEST_CASES lets it run for as long as one likes; what it finds belongs into the corpus.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_comes_of_the_corpus_is_survived(message in mutated()) {
        static ZONE: std::sync::LazyLock<std::sync::Arc<Zone>> = std::sync::LazyLock::new(zone);
        play(&ZONE, &message, "mutated");
    }
}

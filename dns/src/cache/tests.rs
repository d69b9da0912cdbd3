//! The cache without a clock: times are offsets from a start. What the server does with a hit or a miss is tested
//! over sockets, in `tests/forward.rs`.

mod dialogues;

use super::*;
use crate::wire::{Rcode, Transport};

const NAME: &[u8] = b"\x03WWW\x07example\x03com\0";
const SECOND: Duration = Duration::from_secs(1);
const NO_DATA: u8 = 0;
const NO_NAME: u8 = 3;

/// A request for the A records of `NAME`; with an OPT record where a payload is given.
fn request(payload: Option<u16>) -> Request {
    let mut octets = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(payload.is_some())];
    octets.extend_from_slice(NAME);
    octets.extend_from_slice(&[0, 1, 0, 1]);
    if let Some(payload) = payload {
        octets.extend_from_slice(&[0, 0, 41]);
        octets.extend_from_slice(&payload.to_be_bytes());
        octets.extend_from_slice(&[0; 6]);
    }
    Request::read(&octets, Transport::Udp).unwrap()
}

fn key() -> Key {
    Key::of(&request(None))
}

fn other(number: u32) -> Key {
    Key { name: DomainName::parse(&format!("n{number}.example.com")).unwrap(), ..key() }
}

/// A message with these A records by TTL, compressed, and an OPT record at its end.
fn message(flags: [u8; 2], ttls: &[u32]) -> Vec<u8> {
    let mut octets =
        [&[0, 0], &flags[..], &[0, 1, 0, u8::try_from(ttls.len()).unwrap(), 0, 0, 0, 1]].concat();
    octets.extend_from_slice(&NAME.to_ascii_lowercase());
    octets.extend_from_slice(&[0, 1, 0, 1]);
    for ttl in ttls {
        octets.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        octets.extend_from_slice(&ttl.to_be_bytes());
        octets.extend_from_slice(&[0, 4, 192, 0, 2, 1]);
    }
    octets.extend_from_slice(&[0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    octets
}

fn found(ttl: u32) -> Arc<Stored> {
    Arc::new(Stored::read(&message([0x81, 0x80], &[ttl])).unwrap())
}

/// A message that says there is nothing, with an SOA of this TTL and minimum.
fn nothing(rcode: u8, soa: Option<(u32, u32)>) -> Arc<Stored> {
    let mut octets = message([0x81, 0x80 | rcode], &[]);
    octets.truncate(octets.len() - 11);
    octets[11] = 0;
    if let Some((ttl, minimum)) = soa {
        octets[9] = 1;
        octets.extend_from_slice(&[0xc0, 16, 0, 6, 0, 1]);
        octets.extend_from_slice(&ttl.to_be_bytes());
        octets.extend_from_slice(&[0, 22, 0, 0]);
        octets.extend_from_slice(&[0; 16]);
        octets.extend_from_slice(&minimum.to_be_bytes());
    }
    Arc::new(Stored::read(&octets).unwrap())
}

fn cache() -> (Cache, Instant) {
    (Cache::new(Limits::default()), Instant::now())
}

/// How many seconds an answer is kept.
fn check_life(stored: &Stored, expect: u64) {
    assert_eq!(stored.life().as_secs(), expect, "{stored:?}");
}

#[test]
fn answers_live_as_long_as_their_shortest_record() {
    check_life(&found(300), 300);
    check_life(&Stored::read(&message([0x81, 0x80], &[300, 20, 40])).unwrap(), 20);
    check_life(&found(0), 0);
    check_life(&found(100_000), 3600);
    check_life(&found(0x8000_0001), 0);
}

#[test]
fn denials_live_as_long_as_their_soa_says_within_a_bound() {
    for rcode in [NO_DATA, NO_NAME] {
        assert_eq!(nothing(rcode, Some((9, 9))).kind(), Kind::Denial);
        check_life(&nothing(rcode, Some((20, 10))), 10);
        check_life(&nothing(rcode, Some((7, 10))), 7);
        check_life(&nothing(rcode, Some((900, 900))), 30);
        check_life(&nothing(rcode, None), 0);
    }
}

#[test]
fn what_is_cut_or_a_failure_is_not_kept() {
    check_life(&Stored::read(&message([0x83, 0x80], &[300])).unwrap(), 0);
    check_life(&Stored::read(&message([0x81, 0x82], &[])).unwrap(), 0);
    let mut extended = message([0x81, 0x80], &[300]);
    let at = extended.len() - 6;
    extended[at] = 1;
    let stored = Stored::read(&extended).unwrap();
    assert_eq!(stored.rcode(), Rcode::BAD_VERS);
    check_life(&stored, 0);
}

#[test]
fn an_answer_ages_and_ends() {
    let (mut cache, start) = cache();
    assert_eq!(cache.look(&key(), start), Known::Nothing);
    let stored = found(20);
    cache.keep(&key(), &stored, start);
    assert_eq!(cache.look(&key(), start), Known::Answer(Arc::clone(&stored), Age::Fresh(0)));
    assert_eq!(cache.look(&key(), start + 7 * SECOND), Known::Answer(Arc::clone(&stored), Age::Fresh(7)));
    assert_eq!(cache.look(&key(), start + 20 * SECOND), Known::Expired(stored));
    assert_eq!(cache.look(&key(), start + 20 * SECOND + MAX_STALE), Known::Nothing);
}

#[test]
fn names_asked_for_again_are_fetched_before_their_time() {
    let (mut cache, start) = cache();
    let stored = found(100);
    cache.keep(&key(), &stored, start);
    let late = start + 90 * SECOND;
    assert_eq!(cache.look(&key(), late), Known::Answer(Arc::clone(&stored), Age::Fresh(90)), "only once");
    assert_eq!(cache.look(&key(), late), Known::Expiring(Arc::clone(&stored), Age::Fresh(90)));
    cache.fail(&key(), late);
    assert_eq!(cache.look(&key(), late), Known::Answer(stored, Age::Fresh(90)), "not again at once");
}

#[test]
fn an_old_answer_is_better_than_none() {
    let (mut cache, start) = cache();
    let (stored, late) = (found(20), start + 60 * SECOND);
    cache.keep(&key(), &stored, start);
    assert_eq!(cache.look(&key(), late), Known::Expired(Arc::clone(&stored)));
    cache.fail(&key(), late);
    assert_eq!(cache.look(&key(), late), Known::Answer(Arc::clone(&stored), Age::Stale));
    assert_eq!(cache.look(&key(), late + RECHECK), Known::Expired(Arc::clone(&stored)), "ask anew");
    let new = found(30);
    cache.keep(&key(), &new, late + RECHECK);
    assert_eq!(cache.look(&key(), late + RECHECK), Known::Answer(new, Age::Fresh(0)));
}

#[test]
fn no_answer_is_remembered_for_a_second() {
    let (mut cache, start) = cache();
    cache.fail(&key(), start);
    assert_eq!(cache.look(&key(), start + SECOND / 2), Known::Failure);
    assert_eq!(cache.look(&key(), start + SECOND), Known::Nothing);
}

#[test]
fn an_answer_that_may_not_be_kept_ends_the_one_before() {
    let (mut cache, start) = cache();
    cache.keep(&key(), &found(20), start);
    cache.keep(&key(), &found(0), start);
    assert_eq!(cache.look(&key(), start), Known::Nothing);
    assert_eq!(cache.totals().successes, 0);
}

#[test]
fn the_key_has_what_changes_an_answer_and_no_case() {
    let plain = request(None);
    let mut shouted = plain.clone();
    shouted.question.name = DomainName::from_wire(&NAME.to_ascii_uppercase()).unwrap();
    assert_eq!(Key::of(&plain), Key::of(&shouted));
    assert_eq!(Key::of(&plain), Key::of(&request(Some(4096))));
    let mut others = [plain.clone(), plain.clone(), plain.clone(), request(Some(512))];
    others[0].question.rtype = RecordType::AAAA;
    others[1].question.class = 255;
    others[2].head.flags |= Head::CHECKING_DISABLED;
    others[3].edns.as_mut().unwrap().dnssec = true;
    for other in &others {
        assert_ne!(Key::of(&plain), Key::of(other), "{other:?}");
    }
}

#[test]
fn entries_are_bounded_and_those_in_use_stay() {
    let (_, start) = cache();
    let mut cache = Cache::new(Limits { entries: 10, octets: MAX_OCTETS });
    for number in 0..10 {
        assert_eq!(cache.keep(&other(number), &found(300), start), 0);
    }
    for number in 10..100 {
        assert!(matches!(cache.look(&other(3), start), Known::Answer(..)), "before {number}");
        assert_eq!(cache.keep(&other(number), &found(300), start), 1);
        assert_eq!((cache.entries.len(), cache.turns.len(), cache.totals().successes), (10, 10, 10));
    }
}

#[test]
fn octets_are_bounded_and_counted_right() {
    let (_, start) = cache();
    let mut cache = Cache::new(Limits { entries: MAX_ENTRIES, octets: 5000 });
    for number in 0..1000_u32 {
        let key = other(number % 40);
        match number % 3 {
            0 => _ = cache.fail(&key, start),
            1 => _ = cache.keep(&key, &nothing(NO_NAME, Some((9, 9))), start),
            _ => _ = cache.keep(&key, &found(number % 2), start),
        }
        let octets: usize = cache.entries.iter().map(|(key, entry)| entry.size(key)).sum();
        assert_eq!(cache.totals().octets, octets);
        assert!(octets <= 5000 && cache.turns.len() == cache.entries.len());
    }
    assert!(cache.entries.len() > 3, "{}", cache.entries.len());
    let large = Arc::new(Stored::read(&message([0x81, 0x80], &[300; 250])).unwrap());
    cache.limits.octets = large.size();
    cache.keep(&key(), &large, start);
    assert_eq!(cache.look(&key(), start), Known::Nothing, "larger than everything");
}

/// The TTLs, in order.
fn ttls(answer: &[u8]) -> Vec<u32> {
    let message = hickory_proto::op::Message::from_vec(answer).unwrap();
    let records = message.answers.iter().chain(&message.authorities);
    records.map(|record| record.ttl).collect()
}

#[test]
fn an_answer_is_written_for_the_client_that_asks() {
    let stored = Stored::read(&message([0x85, 0xa0], &[300, 20])).unwrap();
    let plain = stored.answer(&request(None), Age::Fresh(7));
    assert_eq!(ttls(&plain), [293, 13]);
    assert_eq!(plain[..4], [0xab, 0xcd, 0x81, 0x80], "the client's id, no AA, no AD");
    assert_eq!(plain[12..12 + NAME.len()], *NAME, "the client's case");
    assert_eq!(plain[10..12], [0, 0], "no OPT for a client without EDNS");
    let edns = stored.answer(&request(Some(1232)), Age::Stale);
    assert_eq!((ttls(&edns), edns[11]), (vec![30, 30], 1));
    let mut asks_ad = request(None);
    asks_ad.head.flags |= Head::AUTHENTIC | Head::CHECKING_DISABLED;
    assert_eq!(stored.answer(&asks_ad, Age::Fresh(0))[3], 0xb0, "AD and CD");
    let denied = nothing(NO_NAME, Some((900, 900)));
    assert_eq!(ttls(&denied.answer(&request(None), Age::Fresh(4))), [26]);
}

#[test]
fn what_is_too_long_is_cut_at_a_record() {
    let stored = Stored::read(&message([0x81, 0x80], &[300; 200])).unwrap();
    for (payload, limit) in [(None, 512), (Some(1232), 1232), (Some(4096), 4096)] {
        let answer = stored.answer(&request(payload), Age::Fresh(0));
        let read = hickory_proto::op::Message::from_vec(&answer).unwrap();
        assert_eq!((read.metadata.truncation, read.edns.is_some()), (limit < 3300, payload.is_some()));
        assert!(answer.len() <= limit, "{} octets", answer.len());
        assert!(answer.len() + 16 > limit || read.answers.len() == 200, "one more would have fitted");
    }
}

proptest::proptest! {
    /// No answer of an upstream makes it panic, and what is made of it can be read by the same rules.
    #[test]
    fn any_answer_is_survived(cut in 0_usize..120, octets in proptest::collection::vec(0_u8.., 0..80)) {
        let mut mixed = message([0x81, 0x80], &[300; 5]);
        mixed.truncate(cut);
        mixed.extend_from_slice(&octets);
        for message in [&octets, &mixed] {
            let Some(stored) = Stored::read(message) else { continue };
            if !message[12..].to_ascii_lowercase().starts_with(&NAME.to_ascii_lowercase()) {
                continue;
            }
            for request in [request(None), request(Some(1232))] {
                let answer = stored.answer(&request, Age::Fresh(1));
                proptest::prop_assert!(answer.len() <= request.limit());
                proptest::prop_assert!(Stored::read(&answer).is_some());
            }
        }
    }
}

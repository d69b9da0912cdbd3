//! Answers of upstreams that are broken in some way: whatever they are, nothing panics, and what is passed on is an
//! answer to the client's own question, no longer than it takes.

use proptest::prelude::*;

use super::*;
use crate::name::DomainName;
use crate::record::Question;
use crate::wire::{Edns, Transport};

/// An answer with a record in every section, aliases, pointers, and an OPT record.
fn whole() -> Vec<u8> {
    let mut octets = vec![0, 0, 0x81, 0x80, 0, 1, 0, 2, 0, 1, 0, 2];
    octets.extend_from_slice(b"\x03www\x07example\x03com\0\0\x01\0\x01");
    octets.extend_from_slice(b"\xc0\x0c\0\x05\0\x01\0\0\x01\x2c\0\x04\x01a\xc0\x10");
    octets.extend_from_slice(b"\xc0\x2d\0\x01\0\x01\0\0\x01\x2c\0\x04\xc0\0\x02\x01");
    octets.extend_from_slice(b"\xc0\x10\0\x06\0\x01\0\0\x01\x2c\0\x18\xc0\x2d\xc0\x2d\0\0\0\x01\0\0\0\x02\0\0\0\x03\0\0\0\x04\0\0\0\x05");
    octets.extend_from_slice(
        b"\xc0\x2d\0\x1c\0\x01\0\0\x01\x2c\0\x10\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01",
    );
    octets.extend_from_slice(b"\0\0\x29\x04\xd0\0\0\0\0\0\0");
    octets
}

fn request(payload: Option<u16>) -> Request {
    Request {
        head: Head { id: 7, flags: 0x0100 },
        question: Question::new(DomainName::parse("WWW.example.com").unwrap(), RecordType::A),
        edns: payload.map(|payload| Edns { payload, version: 0, dnssec: false }),
        transport: Transport::Udp,
    }
}

#[test]
fn the_whole_answer_is_read() {
    let stored = Stored::read(&whole()).unwrap();
    assert_eq!((stored.counts, stored.kind, stored.life), ([2, 1, 1], Kind::Success, 300));
    assert!(stored.answer(&request(Some(1232)), Age::Fresh(1)).ends_with(&whole()[whole().len() - 11..]));
}

proptest! {
    // PROPTEST_CASES lets it run for as long as one likes.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn broken_answers_are_survived(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..5),
        cut in 0_usize..60,
        payload in prop::option::of(any::<u16>()),
        seconds in any::<u32>(),
        stale in any::<bool>(),
    ) {
        let mut message = whole();
        for (at, octet) in changes {
            let at = at.index(message.len());
            message[at] = octet;
        }
        message.truncate(message.len() - cut);
        // Only answers to the question are read; `exchange` sees to that.
        message.splice(12..29.min(message.len()), whole()[12..29].iter().copied());
        if let Some(stored) = Stored::read(&message) {
            let request = request(payload);
            let age = if stale { Age::Stale } else { Age::Fresh(seconds) };
            let answer = stored.answer(&request, age);
            prop_assert!(answer.len() <= request.limit());
            prop_assert_eq!(&answer[12..29], request.question.name.wire());
            prop_assert!(stored.size() < 2 * message.len() + 512);
            let _ = crate::splice::contents(Vec::new(), &stored.aged(age));
        }
    }
}

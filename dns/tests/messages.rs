//! Requests as octets: what is refused and how, EDNS, truncation, and the case of names.
//! No sockets; answers are read back by another implementation.

#![allow(clippy::unwrap_used, reason = "a test that is wrong must fail at once")]

mod support;

use std::collections::BTreeSet;
use std::fmt::Write;

use dns::{DomainName, Names, RecordType, Reply, Transport, Zone, respond};
use hickory_proto::op::Message;
use support::{cluster, config};

fn zone(text: &str) -> std::sync::Arc<Zone> {
    let mut names = Names::new(config());
    names.learn(&cluster(text).snapshot(), &BTreeSet::new());
    names.reader().zone()
}

/// A request for the A records of `web.shop.svc.cluster.local` with these flags and counts, and a tail.
fn request(flags: u16, counts: [u16; 4], tail: &[u8]) -> Vec<u8> {
    question("web.shop.svc.cluster.local", RecordType::A, flags, counts, tail)
}

fn question(name: &str, rtype: RecordType, flags: u16, counts: [u16; 4], tail: &[u8]) -> Vec<u8> {
    let mut octets = vec![0x12, 0x34];
    for word in [flags].into_iter().chain(counts) {
        octets.extend_from_slice(&word.to_be_bytes());
    }
    octets.extend_from_slice(DomainName::parse(name).unwrap().wire());
    octets.extend_from_slice(&rtype.0.to_be_bytes());
    octets.extend_from_slice(&1_u16.to_be_bytes());
    octets.extend_from_slice(tail);
    octets
}

/// An OPT record: payload, version, flags.
fn opt(payload: u16, version: u8, flags: u16) -> Vec<u8> {
    let mut octets = vec![0, 0, 41];
    octets.extend_from_slice(&payload.to_be_bytes());
    octets.extend_from_slice(&[0, version]);
    octets.extend_from_slice(&flags.to_be_bytes());
    octets.extend_from_slice(&[0, 0]);
    octets
}

fn answer(zone: &Zone, request: &[u8], transport: Transport) -> Option<Vec<u8>> {
    match respond(zone, request, transport, 0) {
        Reply::Send(answer) => Some(answer),
        Reply::Drop => None,
        other => panic!("not from the zone: {other:?}"),
    }
}

/// Code, counts and EDNS of the answer to a request over UDP.
fn check(request: &[u8], expect: &str) {
    let zone = zone("+ service shop/web ip=10.96.0.20");
    let Some(answer) = answer(&zone, request, Transport::Udp) else {
        assert_eq!("dropped", expect);
        return;
    };
    let message = Message::from_vec(&answer).unwrap();
    assert_eq!(message.metadata.id, 0x1234);
    let code = message.metadata.response_code;
    let mut text = format!("{code:?} {} questions {} answers", message.queries.len(), message.answers.len());
    if let Some(edns) = &message.edns {
        write!(text, " edns {} {} {}", edns.version(), edns.max_payload(), edns.flags().dnssec_ok).unwrap();
    }
    assert_eq!(text, expect);
}

const RD: u16 = 0x0100;

#[test]
fn requests_that_are_none() {
    let whole = request(RD, [1, 0, 0, 0], &[]);
    check(&whole, "NoError 1 questions 1 answers");
    check(&whole[..11], "dropped");
    check(&request(0x8000, [1, 0, 0, 0], &[]), "dropped");
    check(&whole[..whole.len() - 1], "FormErr 0 questions 0 answers");
    check(&whole[..13], "FormErr 0 questions 0 answers");
    check(&request(RD, [0, 0, 0, 0], &[]), "FormErr 0 questions 0 answers");
    check(&request(RD, [2, 0, 0, 0], &[]), "FormErr 0 questions 0 answers");
    check(&request(0x2000, [1, 0, 0, 0], &[]), "NotImp 0 questions 0 answers");
    check(&request(0x2800, [1, 0, 0, 0], &[]), "NotImp 0 questions 0 answers");
    check(&request(RD, [1, 0, 0, 1], &[]), "FormErr 0 questions 0 answers");
    let mut pointing = whole;
    pointing[12] = 0xc0;
    check(&pointing, "FormErr 0 questions 0 answers");
}

#[test]
fn edns_is_answered_with_edns() {
    let with = |tail: &[u8], count| request(RD, [1, 0, 0, count], tail);
    check(&with(&opt(4096, 0, 0), 1), "NoError 1 questions 1 answers edns 0 1232 false");
    check(&with(&opt(100, 0, 0x8000), 1), "NoError 1 questions 1 answers edns 0 1232 true");
    // BADVERS; the number is that of TSIG's BADSIG, which is how it is printed.
    check(&with(&opt(4096, 1, 0), 1), "BADSIG 1 questions 0 answers edns 0 1232 false");
    check(&with(&[opt(4096, 0, 0), opt(4096, 0, 0)].concat(), 2), "FormErr 0 questions 0 answers");
    let mut options = opt(1232, 0, 0);
    let at = options.len() - 1;
    options[at] = 18;
    // A cookie and an option that nobody knows.
    options.extend_from_slice(&[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0xfd, 0xe9, 0, 2, 1, 2]);
    check(&with(&options, 1), "NoError 1 questions 1 answers edns 0 1232 false");
    check(&with(&opt(4096, 0, 0)[..9], 1), "FormErr 0 questions 0 answers");
}

/// Not even upstream's: nothing of another class is sent there.
#[test]
fn versions_are_hidden() {
    let zone = zone("");
    for name in ["version.bind", "hostname.bind", "id.server", "version.server", "web.shop.svc.cluster.local"]
    {
        let mut request = question(name, RecordType::TXT, RD, [1, 0, 0, 0], &[]);
        *request.last_mut().unwrap() = 3;
        let answer = answer(&zone, &request, Transport::Udp).unwrap();
        assert_eq!((answer[3] & 15, answer.len()), (0, request.len()), "{name}: the question alone");
    }
}

#[test]
fn transfers_are_refused_over_tcp_alone() {
    let zone = zone("");
    for rtype in [RecordType::AXFR, RecordType::IXFR] {
        let request = question("cluster.local", rtype, RD, [1, 0, 0, 0], &[]);
        let code = |transport| answer(&zone, &request, transport).unwrap()[3] & 15;
        assert_eq!((code(Transport::Tcp), code(Transport::Udp)), (5, 1));
    }
}

/// 300 endpoints do not fit: as many as fit are there, whole, with TC, and the OPT record stays.
#[test]
fn what_is_too_long_is_cut_at_a_record() {
    let at: Vec<String> = (0..300).map(|i| format!("10.244.{}.{}", i / 200, i % 200 + 1)).collect();
    let zone = zone(&format!("+ service shop/web headless\n+ slice shop/web-1 of=web at={}", at.join(",")));
    let cases = [
        (Transport::Udp, None, 512),
        (Transport::Udp, Some(opt(1232, 0, 0)), 1232),
        (Transport::Udp, Some(opt(65535, 0, 0)), 4096),
        (Transport::Tcp, Some(opt(1232, 0, 0)), 65535),
    ];
    for (transport, edns, limit) in cases {
        let request = request(RD, [1, 0, 0, edns.is_some().into()], &edns.clone().unwrap_or_default());
        let octets = answer(&zone, &request, transport).unwrap();
        let message = Message::from_vec(&octets).unwrap();
        assert_eq!(message.metadata.truncation, transport == Transport::Udp);
        assert_eq!(message.edns.is_some(), edns.is_some());
        assert!(octets.len() <= limit, "{} octets", octets.len());
        assert!(octets.len() + 16 > limit || message.answers.len() == 300, "one more would have fitted");
    }
}

/// An additional section that does not fit is left out without TC (RFC 2181, section 9).
#[test]
fn addresses_that_do_not_fit_are_no_truncation() {
    let at: Vec<String> = (1..=7).map(|i| format!("10.244.0.{i}=host-number-{i}")).collect();
    let zone = zone(&format!(
        "+ service shop/web headless ports=http:80/TCP
         + slice shop/web-1 of=web ports=http:80/TCP at={}",
        at.join(",")
    ));
    let name = "_http._tcp.web.shop.svc.cluster.local";
    let request = question(name, RecordType::SRV, RD, [1, 0, 0, 0], &[]);
    let message = Message::from_vec(&answer(&zone, &request, Transport::Udp).unwrap()).unwrap();
    assert_eq!((message.answers.len(), message.metadata.truncation), (7, false));
    assert!(message.additionals.len() < 7, "{} addresses", message.additionals.len());
}

/// The octets of the question come back bit for bit.
#[test]
fn the_question_comes_back_as_it_came() {
    let zone = zone("+ service shop/web ip=10.96.0.20");
    let request = question("wEb.SHOP.svc.Cluster.LOCAL", RecordType::A, RD, [1, 0, 0, 0], &[]);
    let answer = answer(&zone, &request, Transport::Udp).unwrap();
    assert_eq!(answer[12..request.len()], request[12..]);
    assert_eq!(answer[request.len()..request.len() + 2], [0xc0, 12], "the owner points at it");
}

proptest::proptest! {
    /// No request makes it panic, and every answer can be read.
    #[test]
    fn any_octets_are_survived(octets in proptest::collection::vec(0_u8.., 0..80), cut in 0_usize..60) {
        let zone = zone("+ service shop/web headless\n+ slice shop/web-1 of=web at=10.244.0.1=a");
        let mut mixed = request(RD, [1, 0, 0, 1], &opt(1232, 0, 0));
        mixed.truncate(cut);
        mixed.extend_from_slice(&octets);
        for message in [&octets, &mixed] {
            if let Reply::Send(answer) = respond(&zone, message, Transport::Udp, 1) {
                proptest::prop_assert!(Message::from_vec(&answer).is_ok());
            }
        }
    }
}

//! Both ways of answering a datagram compared: whatever the fast one says, the slow one says octet for octet.
//! Questions are drawn around the names of a small cluster, and broken in one place.

use std::collections::BTreeSet;
use std::sync::{Arc, LazyLock};

use model::testing;
use proptest::prelude::*;

use super::*;
use crate::name::DomainName;
use crate::names::Names;
use crate::respond::{Reply, respond as slow};
use crate::wire::Transport;
use crate::zone::{PodNames, ZoneConfig};

static ZONE: LazyLock<Arc<Zone>> = LazyLock::new(zone);

fn zone() -> Arc<Zone> {
    let mut cluster = testing::listed([]);
    let many = (1..=90).fold(testing::slice("many-1", "shop/many"), |slice, last| {
        slice.with(testing::endpoint(&format!("10.244.1.{last}")))
    });
    let db = testing::slice("db-1", "shop/db")
        .with(testing::endpoint("10.244.0.5").hostname("db-0"))
        .with(testing::endpoint("10.244.0.6"))
        .with(testing::endpoint("fd00::5").hostname("db-0"));
    for service in [
        testing::service("shop/web", &["10.96.0.20", "fd00::20"]).port("http:80/TCP"),
        testing::service("shop/four", &["10.96.0.21"]),
        testing::service("shop/unprogrammed", &["10.96.0.22"]),
        testing::headless("shop/db"),
        testing::headless("shop/many"),
        testing::external_name("shop/out", "www.example.com"),
        testing::external_name("shop/in", "web.shop.svc.cluster.local"),
    ] {
        cluster.apply(model::Event::Apply(service.into()));
    }
    cluster.apply(model::Event::Apply(many.into()));
    cluster.apply(model::Event::Apply(db.into()));
    let domain = DomainName::parse("cluster.local").unwrap();
    let reverse = vec!["10.96.0.0/16".parse().unwrap()];
    let config = ZoneConfig { pods: PodNames::Insecure, reverse, ..ZoneConfig::new(domain) };
    let mut names = Names::new(config);
    names.learn(&cluster.snapshot(), &BTreeSet::from([testing::name("shop/unprogrammed")]));
    names.reader().zone()
}

fn question(name: &str, rtype: u16, flags: u16) -> Vec<u8> {
    let mut octets = vec![0x12, 0x34];
    for word in [flags, 1, 0, 0, 0] {
        octets.extend_from_slice(&word.to_be_bytes());
    }
    octets.extend_from_slice(DomainName::parse(name).unwrap().wire());
    octets.extend_from_slice(&rtype.to_be_bytes());
    octets.extend_from_slice(&CLASS_IN.to_be_bytes());
    octets
}

fn with_opt(mut octets: Vec<u8>, payload: u16, version: u8, flags: u16, options: &[u8]) -> Vec<u8> {
    octets[11] += 1;
    octets.extend_from_slice(&[0, 0, 41]);
    octets.extend_from_slice(&payload.to_be_bytes());
    octets.extend_from_slice(&[0, version]);
    octets.extend_from_slice(&flags.to_be_bytes());
    octets.extend_from_slice(&u16::try_from(options.len()).unwrap().to_be_bytes());
    octets.extend_from_slice(options);
    octets
}

/// Whether the fast way took it; then it said what the slow way says.
fn compare(zone: &Zone, message: &[u8], seed: u64) -> bool {
    let before = b"what stands before".to_vec();
    let mut out = before.clone();
    let Some(said) = respond(zone, message, seed, &mut out) else {
        assert_eq!(out, before, "nothing is appended");
        return false;
    };
    let Reply::Send(expected) = slow(zone, message, Transport::Udp, seed) else {
        panic!("the slow way does not answer {message:02x?}");
    };
    assert_eq!(out[before.len()..], expected, "{message:02x?}");
    assert_eq!(said.rcode.0, u16::from(expected[3] & 15));
    true
}

#[test]
fn the_common_questions_are_taken() {
    let zone = &*ZONE;
    for (name, rtype, taken) in [
        ("web.shop.svc.cluster.local", 1, true),
        ("WEB.Shop.svc.Cluster.LOCAL", 28, true),
        ("four.shop.svc.cluster.local", 28, true),
        ("four.shop.svc.cluster.local", 65, true),
        ("db.shop.svc.cluster.local", 1, true),
        ("db.shop.svc.cluster.local", 28, true),
        ("db-0.db.shop.svc.cluster.local", 1, true),
        ("10-244-0-6.db.shop.svc.cluster.local", 1, true),
        ("10-1-2-3.shop.pod.cluster.local", 1, true),
        ("nope.shop.svc.cluster.local", 1, true),
        ("www.example.com.shop.svc.cluster.local", 28, true),
        ("www.example.com.cluster.local", 1, true),
        ("shop.svc.cluster.local", 1, true),
        ("many.shop.svc.cluster.local", 1, false),
        ("web.shop.svc.cluster.local", 33, false),
        ("out.shop.svc.cluster.local", 1, false),
        ("in.shop.svc.cluster.local", 1, false),
        ("unprogrammed.shop.svc.cluster.local", 1, false),
        ("nope.dns.cluster.local", 1, false),
        ("web.shop.svc.cluster.local", 255, false),
        ("web.shop.svc", 1, false),
        ("cluster.local", 6, false),
        ("www.example.com", 1, false),
    ] {
        let plain = question(name, rtype, 0x0100);
        assert_eq!(compare(zone, &plain, 7), taken, "{name} {rtype}");
        assert_eq!(compare(zone, &with_opt(plain, 1232, 0, 0x8000, &[0, 10, 0, 1, 9]), 8), taken, "{name}");
    }
    let many = question("many.shop.svc.cluster.local", 1, 0x0100);
    assert!(
        compare(zone, &with_opt(many.clone(), 4096, 0, 0, &[]), 1),
        "it fits into what this client takes"
    );
    assert!(!compare(zone, &with_opt(many, 4096, 1, 0, &[]), 1), "EDNS of another version");
}

fn name() -> impl Strategy<Value = String> {
    let label = prop::sample::select(vec![
        "web",
        "WEB",
        "four",
        "db",
        "db-0",
        "many",
        "out",
        "shop",
        "Shop",
        "svc",
        "pod",
        "dns",
        "ns",
        "hostmaster",
        "_http",
        "_tcp",
        "10-244-0-6",
        "nope",
        "www",
        "example",
        "com",
    ]);
    let domain = prop::sample::select(vec!["cluster.local", "Cluster.LOCAL", "svc", "local", "in-addr.arpa"]);
    (prop::collection::vec(label, 0..6), domain)
        .prop_map(|(labels, domain)| labels.into_iter().chain([domain]).collect::<Vec<_>>().join("."))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_said_fast_is_said_slowly(
        name in name(),
        rtype in prop::sample::select(vec![1_u16, 28, 33, 5, 6, 12, 16, 41, 65, 127, 128, 251, 252, 255]),
        flags in any::<u16>(),
        edns in prop::option::of((any::<u16>(), 0_u8..2, any::<u16>(), prop::collection::vec(any::<u8>(), 0..9))),
        change in prop::option::of((0_usize..64, any::<u8>())),
        seed in any::<u64>(),
    ) {
        let mut message = question(&name, rtype, flags);
        if let Some((payload, version, flags, options)) = edns {
            message = with_opt(message, payload, version, flags, &options);
        }
        if let Some((at, octet)) = change {
            let length = message.len();
            message[at % length] = octet;
        }
        compare(&ZONE, &message, seed);
    }
}

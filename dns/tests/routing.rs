//! Which upstream is asked: those that fail, refuse, lead back to us, or have a domain of their own.
//! No test needs an upstream beyond loopback, and none sleeps.

#![allow(clippy::unwrap_used, reason = "a test that is wrong must fail at once")]

mod support;

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dns::DomainName;
use support::upstream::{ask, ask_stream, code, counting, query, reply, serve, serve_stubs, upstream};
use tokio::net::UdpSocket;

#[tokio::test]
async fn a_dead_upstream_costs_a_moment() {
    let silent = upstream(|_, _| Vec::new()).await;
    let closed = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap();
    let good = upstream(|query, _| vec![reply(query, [0x81, 0x80], 1)]).await;
    let server = serve("", vec![silent, closed, good]);
    assert_eq!(code(&ask(&server, &query("www.example.com", None)).await), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn upstreams_that_are_all_silent_are_a_servfail() {
    let server = serve("", vec![upstream(|_, _| Vec::new()).await]);
    let begun = tokio::time::Instant::now();
    let answer = ask_stream(&server, &query("www.example.com", Some(1232))).await;
    assert_eq!(code(&answer), (2, 0));
    assert!(begun.elapsed().as_millis() <= 4001, "{:?}", begun.elapsed());
    assert!(answer.windows(4).any(|octets| octets == [0, 23, b'n', b'o']), "an extended error says why");
    assert_eq!(code(&ask_stream(&serve("", Vec::new()), &query("www.example.com", None)).await), (2, 0));
}

#[tokio::test]
async fn a_refusal_is_never_passed_on() {
    let refusing = upstream(|query, _| vec![reply(query, [0x81, 0x85], 0)]).await;
    let good = upstream(|query, _| vec![reply(query, [0x81, 0x80], 1)]).await;
    let name = query("www.example.com", None);
    assert_eq!(code(&ask(&serve("", vec![refusing]), &name).await), (2, 0));
    assert_eq!(code(&ask(&serve("", vec![refusing, good]), &name).await), (0, 1));
}

#[tokio::test]
async fn an_upstream_that_does_not_understand_is_a_failed_one() {
    let bare = |query: &[u8], _| vec![[&query[..2], &[0x81, 0x81], &[0; 8][..]].concat()];
    let good = upstream(|query, _| vec![reply(query, [0x81, 0x80], 1)]).await;
    let server = serve("", vec![upstream(bare).await, good]);
    assert_eq!(code(&ask(&server, &query("www.example.com", None)).await), (0, 1));
    let alone = serve("", vec![upstream(bare).await]);
    assert_eq!(code(&ask(&alone, &query("www.example.com", None)).await), (2, 0));
}

#[tokio::test]
async fn upstreams_can_be_replaced() {
    let server = serve("", Vec::new());
    assert_eq!(code(&ask(&server, &query("www.example.com", None)).await), (2, 0));
    server.forwarder.replace(vec![upstream(|query, _| vec![reply(query, [0x81, 0x80], 1)]).await]);
    assert_eq!(code(&ask(&server, &query("www.example.com", None)).await), (0, 1));
}

#[tokio::test]
async fn a_domain_can_have_upstreams_of_its_own() {
    let with = |records| upstream(move |query: &[u8], _| vec![reply(query, [0x81, 0x80], records)]);
    let domain = |text| DomainName::parse(text).unwrap();
    let stubs = BTreeMap::from([
        (domain("corp.example"), vec![with(2).await]),
        (domain("lab.corp.example"), vec![with(3).await]),
        (domain("cluster.local"), vec![with(4).await]),
        (domain("dead.example"), Vec::new()),
    ]);
    let server = serve_stubs("", vec![with(1).await], stubs);
    let cases = [
        ("www.example.com", (0, 1)),
        ("www.Corp.Example", (0, 2)),
        ("corp.example", (0, 2)),
        ("xcorp.example", (0, 1)),
        ("a.b.LAB.corp.example", (0, 3)),
        ("nope.cluster.local", (3, 0)),
        ("www.dead.example", (2, 0)),
    ];
    for (name, expect) in cases {
        assert_eq!(code(&ask(&server, &query(name, None)).await), expect, "{name}");
    }
}

/// An upstream that asks `server` whatever it is asked, and counts.
fn lead_back(upstream: UdpSocket, server: SocketAddr) -> Arc<Mutex<usize>> {
    let seen = Arc::new(Mutex::new(0));
    let count = Arc::clone(&seen);
    tokio::spawn(async move {
        let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        back.connect(server).await.unwrap();
        let (mut asked, mut answered) = ([0; 4096], [0; 4096]);
        let mut clients = HashMap::new();
        loop {
            tokio::select! {
                received = upstream.recv_from(&mut asked) => {
                    let (length, client) = received.unwrap();
                    *count.lock().unwrap() += 1;
                    clients.insert([asked[0], asked[1]], client);
                    back.send(&asked[..length]).await.unwrap();
                }
                received = back.recv(&mut answered) => {
                    let length = received.unwrap();
                    let client = clients[&[answered[0], answered[1]]];
                    upstream.send_to(&answered[..length], client).await.unwrap();
                }
            }
        }
    });
    seen
}

#[tokio::test]
async fn a_loop_is_found_and_routed_around() {
    let looping = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = looping.local_addr().unwrap();
    let (good, _) = counting().await;
    let server = serve("", vec![address, good]);
    let seen = lead_back(looping, server.addresses[0]);
    let found = async {
        while server.forwarder.loops().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), found).await.unwrap();
    assert_eq!(server.forwarder.loops(), [address], "and not the good one");
    let before = *seen.lock().unwrap();
    for number in 0..5 {
        let name = format!("n{number}.example.com");
        assert_eq!(code(&ask(&server, &query(&name, None)).await), (0, 1));
    }
    assert_eq!(*seen.lock().unwrap(), before, "it is not asked any more");
    server.forwarder.replace(vec![address]);
    assert_eq!(code(&ask(&server, &query("alone.example.com", None)).await), (2, 0), "a loop alone is none");
}

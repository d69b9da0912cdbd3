//! What upstreams said, kept and said again: the cache as clients see it.
//! No test needs an upstream beyond loopback, and none sleeps.

#![allow(clippy::unwrap_used, reason = "a test that is wrong must fail at once")]

mod support;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use dns::Metrics;
use hickory_proto::op::Message;
use support::upstream::{
    ask, ask_stream, code, counting, is_probe, query, reply, serve, serve_counted, upstream,
};
use tokio::net::UdpSocket;

#[tokio::test]
async fn a_question_is_asked_once() {
    let (address, seen) = counting().await;
    let server = serve("+ service shop/out external=www.example.com", vec![address]);
    assert_eq!(code(&ask(&server, &query("www.example.com", None)).await), (0, 1));
    assert_eq!(code(&ask(&server, &query("WWW.Example.com", Some(1232))).await), (0, 1));
    assert_eq!(code(&ask(&server, &query("out.shop.svc.cluster.local", None)).await), (0, 2));
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn questions_under_way_are_joined() {
    let (metrics, mut registry) = (Metrics::default(), prometheus_client::registry::Registry::default());
    metrics.register(&mut registry);
    let joined = move || {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text.lines().any(|line| line == "fairway_dns_joined_total 19")
    };
    let upstream = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let server = serve_counted("", vec![upstream.local_addr().unwrap()], BTreeMap::new(), &metrics);
    // It keeps its answer until all the others wait for it.
    let playing = std::thread::spawn(move || {
        let mut buffer = [0; 512];
        loop {
            let (length, client) = upstream.recv_from(&mut buffer).unwrap();
            if is_probe(&buffer[..length]) {
                continue;
            }
            while !joined() {
                std::thread::yield_now();
            }
            return upstream.send_to(&reply(&buffer[..length], [0x81, 0x80], 1), client).unwrap();
        }
    });
    let mut clients = Vec::new();
    for number in 0..20 {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(server.addresses[0]).await.unwrap();
        let mut query = query("www.example.com", None);
        query[0] = number;
        socket.send(&query).await.unwrap();
        clients.push((socket, query));
    }
    for (socket, query) in clients {
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).await.unwrap();
        assert_eq!((code(&answer[..length]), &answer[..2]), ((0, 1), &query[..2]));
    }
    playing.join().unwrap();
}

#[tokio::test]
async fn an_old_answer_is_given_when_upstreams_fail() {
    let short = |query: &[u8], _| {
        let mut octets = reply(query, [0x81, 0x80], 1);
        let at = octets.len() - 7;
        octets[at - 3..=at].copy_from_slice(&[0, 0, 0, 1]);
        vec![octets]
    };
    let server = serve("", vec![upstream(short).await]);
    let name = query("www.example.com", Some(1232));
    assert_eq!(code(&ask_stream(&server, &name).await), (0, 1));
    let failing = |query: &[u8], _| vec![reply(query, [0x81, 0x82], 0)];
    server.forwarder.replace(vec![upstream(failing).await]);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    let answer = Message::from_vec(&ask_stream(&server, &name).await).unwrap();
    assert_eq!((answer.answers.len(), answer.answers[0].ttl), (1, 30));
    assert_eq!(code(&ask_stream(&server, &query("other.example.com", None)).await), (2, 0));
}

#[tokio::test]
async fn what_the_cache_does_is_counted_under_the_names_of_coredns() {
    let (metrics, mut registry) = (Metrics::default(), prometheus_client::registry::Registry::default());
    metrics.register(&mut registry);
    let (address, _) = counting().await;
    let server = serve_counted("", vec![address], BTreeMap::new(), &metrics);
    for name in ["www.example.com", "WWW.example.com", "other.example.com", "www.example.com"] {
        ask(&server, &query(name, None)).await;
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let expect = [
        "coredns_cache_requests_total 4",
        "coredns_cache_hits_total{type=\"success\"} 2",
        "coredns_cache_misses_total 2",
        "coredns_cache_entries{type=\"success\"} 2",
        "coredns_cache_entries{type=\"denial\"} 0",
        "coredns_cache_served_stale_total 0",
        "coredns_cache_prefetch_total 0",
        "coredns_cache_evictions_total 0",
    ];
    for line in expect {
        assert!(text.lines().any(|counted| counted == line), "{line} is missing in\n{text}");
    }
}

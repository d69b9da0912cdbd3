//! The server on loopback, asked by the real `dig`, and its behaviour in time: the first lists, the drain.
//! Without `dig` these tests are skipped, in CI they fail.

#![allow(clippy::unwrap_used, reason = "a test that is wrong must fail at once")]
#![allow(clippy::print_stdout, reason = "a skip is printed")]

mod support;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use dns::{Bound, Config, Metrics, Names, Server, StartError, Upstreams};
use prometheus_client::registry::Registry;
use support::{cluster, config, event};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

const SHOP: &str = "
    + namespace shop
    + service shop/web ip=10.96.0.20,fd00::20 ports=http:80/TCP,metrics:9090/TCP
    + service shop/db headless ports=pg:5432/TCP
    + slice shop/db-1 of=db ports=pg:5432/TCP at=10.244.0.5=db-0,10.244.0.6,10.244.0.7,10.244.0.8
";

/// A server on loopback and what keeps and ends it.
struct Stage {
    server: Server,
    names: Names,
    metrics: Metrics,
    drain: CancellationToken,
}

fn serve(listed: Option<&str>) -> Stage {
    let mut names = Names::new(config());
    if let Some(text) = listed {
        names.learn(&cluster(text).snapshot(), &BTreeSet::new());
    }
    let (metrics, drain) = (Metrics::default(), CancellationToken::new());
    let sockets = vec![bound(Ipv4Addr::LOCALHOST.into()), bound(Ipv6Addr::LOCALHOST.into())];
    let config = Config { sockets, upstreams: Upstreams::Fixed(Vec::new()), ..Config::default() };
    let server = dns::start(config, &names.reader(), &metrics, &drain).unwrap();
    Stage { server, names, metrics, drain }
}

/// Sockets on a port that the kernel gives to nobody of its own accord. `dig` shares its port as the server does
/// (SO_REUSEPORT), so a port that the kernel chooses for dig may be the very one it asks: it hears its own question.
fn bound(ip: IpAddr) -> Bound {
    let chosen_from = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first: u16 = chosen_from.split_ascii_whitespace().next().unwrap().parse().unwrap();
    // Where that range begins at 1024, the small chance stays.
    let port = || if first > 1024 { rand::random_range(1024..first) } else { 0 };
    (0..100).find_map(|_| Bound::bind((ip, port()).into()).ok()).unwrap()
}

/// Whether there is a `dig` to ask with. In CI there must be.
fn has_dig(test: &str) -> bool {
    let found = std::process::Command::new("dig").arg("-v").output().is_ok();
    assert!(found || std::env::var_os("CI").is_none(), "dig is not installed");
    if !found {
        println!("SKIP: {test}: dig is not installed (package bind9-dnsutils)");
    }
    found
}

async fn dig(address: SocketAddr, args: &str) -> String {
    let mut command = Command::new("dig");
    command.arg(format!("@{}", address.ip())).args([
        "-p",
        &address.port().to_string(),
        "+tries=1",
        "+time=5",
    ]);
    command.args(args.split_ascii_whitespace());
    String::from_utf8(command.output().await.expect("dig is installed").stdout).unwrap()
}

async fn check(stage: &Stage, args: &str, expect: &str) {
    for address in &stage.server.addresses {
        assert_eq!(dig(*address, &format!("+short {args}")).await, expect, "{args}");
    }
}

#[tokio::test]
async fn every_record_kind_by_dig() {
    if !has_dig("every_record_kind_by_dig") {
        return;
    }
    let stage = serve(Some(SHOP));
    check(&stage, "web.shop.svc.cluster.local", "10.96.0.20\n").await;
    check(&stage, "+tcp web.shop.svc.cluster.local", "10.96.0.20\n").await;
    check(&stage, "+notcp web.shop.svc.cluster.local AAAA", "fd00::20\n").await;
    check(&stage, "+bufsize=4096 +dnssec web.shop.svc.cluster.local", "10.96.0.20\n").await;
    check(&stage, "+noedns web.shop.svc", "10.96.0.20\n").await;
    check(&stage, "-x 10.96.0.20", "web.shop.svc.cluster.local.\n").await;
    check(&stage, "-x 10.244.0.5", "db-0.db.shop.svc.cluster.local.\n").await;
    let srv = "_http._tcp.web.shop.svc.cluster.local SRV";
    check(&stage, srv, "0 100 80 web.shop.svc.cluster.local.\n").await;
    check(&stage, "dns-version.cluster.local TXT", "\"1.1.0\"\n").await;
    check(&stage, "cluster.local NS", "ns.dns.cluster.local.\n").await;
    check(&stage, "db-0.db.shop.svc.cluster.local", "10.244.0.5\n").await;
}

#[tokio::test]
async fn flags_and_codes_as_dig_shows_them() {
    if !has_dig("flags_and_codes_as_dig_shows_them") {
        return;
    }
    let stage = serve(Some(SHOP));
    let address = stage.server.addresses[0];
    let whole = dig(address, "WEB.shop.svc.cluster.local").await;
    assert!(whole.contains("status: NOERROR"), "{whole}");
    assert!(
        whole.contains("flags: qr aa rd ra; QUERY: 1, ANSWER: 1, AUTHORITY: 0, ADDITIONAL: 1"),
        "{whole}"
    );
    assert!(whole.contains("WEB.shop.svc.cluster.local. 5\tIN\tA\t10.96.0.20"), "{whole}");
    assert!(whole.contains("EDNS: version: 0, flags:; udp: 1232"), "{whole}");
    assert!(!whole.contains("recursion requested but not available"), "{whole}");
    let missing = dig(address, "nope.shop.svc.cluster.local").await;
    assert!(missing.contains("status: NXDOMAIN") && missing.contains("SOA"), "{missing}");
    assert!(dig(address, "cluster.local AXFR").await.contains("Transfer failed"));
    assert!(dig(address, "+opcode=status cluster.local").await.contains("status: NOTIMP"));
    assert!(dig(address, "+ednsopt=10:0011223344556677 web.shop.svc").await.contains("10.96.0.20"));
    assert!(dig(address, "+edns=1 +noednsnegotiation web.shop.svc").await.contains("status: BADVERS"));
    let text = dig(address, "www.example.com").await;
    assert!(text.contains("status: SERVFAIL"), "there is no upstream: {text}");
}

#[tokio::test]
async fn headless_addresses_are_rotated() {
    if !has_dig("headless_addresses_are_rotated") {
        return;
    }
    let stage = serve(Some(SHOP));
    let mut first = BTreeSet::new();
    // 4 starts, 60 tries: missing one has a chance of 4 * 0.75^60, one in eight million.
    for _ in 0..6 {
        let ten = "db.shop.svc.cluster.local ".repeat(10);
        let text = dig(stage.server.addresses[0], &format!("+noall +answer {ten}")).await;
        let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("db.shop")).collect();
        assert_eq!(lines.len(), 40, "{text}");
        first.extend(lines.chunks(4).map(|answer| answer[0].to_owned()));
    }
    assert_eq!(first.len(), 4, "{first:?}");
}

#[tokio::test]
async fn before_the_first_lists_a_question_waits() {
    if !has_dig("before_the_first_lists_a_question_waits") {
        return;
    }
    let mut stage = serve(None);
    let address = stage.server.addresses[0];
    let held = tokio::spawn(async move { dig(address, "+short web.shop.svc.cluster.local").await });
    let answered = dig(address, "+short dns-version.cluster.local TXT").await;
    assert_eq!(answered, "\"1.1.0\"\n", "what needs no list is answered");
    stage.names.learn(&cluster(SHOP).snapshot(), &BTreeSet::new());
    assert_eq!(held.await.unwrap(), "10.96.0.20\n");
}

#[tokio::test]
async fn lists_that_do_not_come_are_a_servfail() {
    if !has_dig("lists_that_do_not_come_are_a_servfail") {
        return;
    }
    let stage = serve(None);
    let text = dig(stage.server.addresses[0], "web.shop.svc.cluster.local").await;
    assert!(text.contains("status: SERVFAIL") && text.contains("EDE: 14 (Not Ready)"), "{text}");
}

#[tokio::test]
async fn a_change_is_answered_at_once() {
    if !has_dig("a_change_is_answered_at_once") {
        return;
    }
    let mut stage = serve(Some(SHOP));
    let mut cluster = cluster(SHOP);
    cluster.apply(event("+ service shop/new ip=10.96.0.30"));
    stage.names.forget(&cluster.snapshot());
    check(&stage, "new.shop.svc.cluster.local", "").await;
    stage.names.learn(&cluster.snapshot(), &BTreeSet::new());
    check(&stage, "new.shop.svc.cluster.local", "10.96.0.30\n").await;
}

#[tokio::test]
async fn many_questions_share_one_connection() {
    if !has_dig("many_questions_share_one_connection") {
        return;
    }
    let stage = serve(Some(SHOP));
    let args = "+short +tcp +keepopen web.shop.svc web.shop.svc AAAA nope.shop.svc db-0.db.shop.svc";
    assert_eq!(dig(stage.server.addresses[0], args).await, "10.96.0.20\nfd00::20\n10.244.0.5\n");
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed() {
    let stage = serve(Some(SHOP));
    let mut stream = TcpStream::connect(stage.server.addresses[0]).await.unwrap();
    let begun = tokio::time::Instant::now();
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(begun.elapsed().as_secs() >= 10, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_drain_ends_every_task_and_frees_the_port() {
    let mut stage = serve(Some(SHOP));
    stage.drain.cancel();
    while let Some(ended) = stage.server.tasks.join_next().await {
        ended.unwrap();
    }
    drop(Bound::bind(stage.server.addresses[0]).unwrap());
}

#[tokio::test]
async fn sockets_may_come_bound_and_a_taken_port_is_said() {
    let bound = Bound::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = bound.address();
    let names = Names::new(config());
    let start = |config| dns::start(config, &names.reader(), &Metrics::default(), &CancellationToken::new());
    let upstreams = || Upstreams::Fixed(Vec::new());
    let server = start(Config { sockets: vec![bound], upstreams: upstreams(), ..Config::default() }).unwrap();
    assert_eq!(server.addresses, [address]);
    let taken = start(Config { listen: vec![address], upstreams: upstreams(), ..Config::default() });
    assert_eq!(taken.unwrap_err().to_string(), format!("DNS cannot listen on {address}"));
    let wildcard = Config { listen: vec!["0.0.0.0:53".parse().unwrap()], ..Config::default() };
    assert!(matches!(start(wildcard), Err(StartError::Wildcard(_))));
}

#[tokio::test]
async fn requests_are_counted_under_coredns_names() {
    if !has_dig("requests_are_counted_under_coredns_names") {
        return;
    }
    let stage = serve(Some(SHOP));
    check(&stage, "web.shop.svc.cluster.local", "10.96.0.20\n").await;
    let mut registry = Registry::default();
    stage.metrics.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let server = format!("server=\"dns://{}\"", stage.server.addresses[0]);
    let line = format!("coredns_dns_requests_total{{{server},proto=\"udp\",type=\"A\"}} 1\n");
    assert!(text.contains(&line), "{text}");
    assert!(
        text.contains(&format!("coredns_dns_responses_total{{{server},rcode=\"NOERROR\"}} 1\n")),
        "{text}"
    );
}

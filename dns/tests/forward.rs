//! Names that are not ours: a server on loopback in front of upstreams that the test plays.
//! No test needs an upstream beyond loopback, and none sleeps.

#![allow(clippy::unwrap_used, reason = "a test that is wrong must fail at once")]

mod support;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dns::{Bound, Config, DomainName, Metrics, Names, RecordType, Transport, Upstreams};
use hickory_proto::op::Message;
use support::{cluster, config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio_util::sync::CancellationToken;

/// Whether a query is the server's own, to find loops.
fn is_probe(query: &[u8]) -> bool {
    query.windows(13).any(|octets| octets == b"\x0cfairway-loop")
}

/// What an upstream sends back for a query: datagrams, or messages on the stream.
type Play = dyn Fn(&[u8], Transport) -> Vec<Vec<u8>> + Send + Sync;

/// Sockets on a port that is free for both: one free for datagrams may be in use for a stream just now.
fn bound() -> Bound {
    (0..100).find_map(|_| Bound::bind("127.0.0.1:0".parse().unwrap()).ok()).unwrap()
}

/// An upstream on loopback, UDP and TCP.
async fn upstream(play: impl Fn(&[u8], Transport) -> Vec<Vec<u8>> + Send + Sync + 'static) -> SocketAddr {
    let play: Arc<Play> = Arc::new(play);
    let Bound { udp, tcp } = bound();
    udp.set_nonblocking(true).unwrap();
    tcp.set_nonblocking(true).unwrap();
    let (udp, tcp) = (UdpSocket::from_std(udp).unwrap(), TcpListener::from_std(tcp).unwrap());
    let address = udp.local_addr().unwrap();
    let datagrams = Arc::clone(&play);
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
            if is_probe(&buffer[..length]) {
                let name_error = reply(&buffer[..length], [0x81, 0x83], 0);
                udp.send_to(&name_error, client).await.unwrap();
                continue;
            }
            for datagram in datagrams(&buffer[..length], Transport::Udp) {
                udp.send_to(&datagram, client).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let mut query = vec![0; stream.read_u16().await.unwrap().into()];
            stream.read_exact(&mut query).await.unwrap();
            for message in play(&query, Transport::Tcp) {
                stream.write_u16(message.len().try_into().unwrap()).await.unwrap();
                stream.write_all(&message).await.unwrap();
            }
        }
    });
    address
}

/// A server in front of these upstreams.
fn serve(text: &str, upstreams: Vec<SocketAddr>) -> dns::Server {
    serve_stubs(text, upstreams, BTreeMap::new())
}

/// The same, with others for some domains.
fn serve_stubs(
    text: &str,
    upstreams: Vec<SocketAddr>,
    stub_domains: BTreeMap<DomainName, Vec<SocketAddr>>,
) -> dns::Server {
    serve_counted(text, upstreams, stub_domains, &Metrics::default())
}

fn serve_counted(
    text: &str,
    upstreams: Vec<SocketAddr>,
    stub_domains: BTreeMap<DomainName, Vec<SocketAddr>>,
    metrics: &Metrics,
) -> dns::Server {
    let mut names = Names::new(config());
    names.learn(&cluster(text).snapshot(), &BTreeSet::new());
    let sockets = vec![bound()];
    let config =
        Config { sockets, upstreams: Upstreams::Fixed(upstreams), stub_domains, ..Config::default() };
    dns::start(config, &names.reader(), metrics, &CancellationToken::new()).unwrap()
}

/// A query with an OPT record where a payload is given.
fn query(name: &str, payload: Option<u16>) -> Vec<u8> {
    let mut octets = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(payload.is_some())];
    octets.extend_from_slice(DomainName::parse(name).unwrap().wire());
    octets.extend_from_slice(&RecordType::A.0.to_be_bytes());
    octets.extend_from_slice(&[0, 1]);
    if let Some(payload) = payload {
        octets.extend_from_slice(&[0, 0, 41]);
        octets.extend_from_slice(&payload.to_be_bytes());
        octets.extend_from_slice(&[0; 6]);
    }
    octets
}

async fn ask(server: &dns::Server, query: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(server.addresses[0]).await.unwrap();
    socket.send(query).await.unwrap();
    let mut buffer = vec![0; 65535];
    let length = socket.recv(&mut buffer).await.unwrap();
    buffer.truncate(length);
    buffer
}

/// The question of a query with these flags and as many A records, compressed.
fn reply(query: &[u8], flags: [u8; 2], records: u8) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|octet| *octet == 0).unwrap() + 5;
    let mut octets = [&query[..2], &flags, &[0, 1, 0, records, 0, 0, 0, 0], &query[12..end]].concat();
    for last in 0..records {
        octets.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, last]);
    }
    octets
}

fn code(answer: &[u8]) -> (u8, usize) {
    (answer[3] & 15, Message::from_vec(answer).unwrap().answers.len())
}

#[tokio::test]
async fn the_records_of_an_answer_are_relayed_octet_for_octet() {
    // AD and an undefined flag, a type that nobody knows, records in two sections.
    let records = [0xc0, 12, 0xff, 0x01, 0, 1, 0, 0, 0, 9, 0, 3, 1, 2, 3];
    let odd = move |query: &[u8]| {
        let mut octets = reply(query, [0x81, 0xe0], 1);
        octets[9] = 1;
        octets[11] = 1;
        octets.extend_from_slice(&records);
        octets.extend_from_slice(&[0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 4, 0, 3, 0, 0]);
        octets
    };
    let server = serve("", vec![upstream(move |query, _| vec![odd(query)]).await]);
    let mut query = query("WWW.example.com", Some(1232));
    query[3] |= 0x20;
    let mut expect = reply(&query, [0x81, 0xe0], 1);
    expect[9] = 1;
    expect[11] = 1;
    expect.extend_from_slice(&records);
    expect.extend_from_slice(&[0, 0, 41, 4, 0xd0, 0, 0, 0, 0, 0, 0]);
    for _ in 0..2 {
        assert_eq!(ask(&server, &query).await, expect);
    }
}

/// An upstream that counts what it is asked and has one record of 300 s.
async fn counting() -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let address = upstream(move |query, _| {
        log.lock().unwrap().push(query.to_vec());
        vec![reply(query, [0x81, 0x80], 1)]
    });
    (address.await, seen)
}

#[tokio::test]
async fn the_query_that_goes_out_is_our_own() {
    let (address, seen) = counting().await;
    let server = serve("", vec![address]);
    // A client's options are between it and us (RFC 6891, section 6.2.1; RFC 7873 for cookies).
    for number in 0..8 {
        let mut query = query(&format!("n{number}.Example.com"), Some(4000));
        let at = query.len() - 1;
        query[at] = 12;
        query.extend_from_slice(&[0, 10, 0, 8, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(code(&ask(&server, &query).await), (0, 1));
    }
    let seen = seen.lock().unwrap();
    let mut expect = query("n7.example.com", Some(1232));
    expect[3] |= 0x20;
    assert_eq!(seen[7][2..], expect[2..]);
    let ids: BTreeSet<_> = seen.iter().map(|sent| [sent[0], sent[1]]).collect();
    assert!(ids.len() > 5, "ids are random: {ids:?}");
}

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
    // An answer that may not be kept: that it is asked for once is not the cache's doing.
    let seen = Arc::new(Mutex::new(0));
    let count = Arc::clone(&seen);
    let play = move |query: &[u8], _| {
        *count.lock().unwrap() += 1;
        let mut octets = reply(query, [0x81, 0x80], 1);
        let at = octets.len() - 10;
        octets[at..at + 4].fill(0);
        vec![octets]
    };
    let server = serve("", vec![upstream(play).await]);
    let mut clients = Vec::new();
    for number in 0..20 {
        // On this runtime's one thread the server reads nothing before the first await.
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(server.addresses[0]).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut query = query("www.example.com", None);
        query[0] = number;
        socket.send(&query).unwrap();
        clients.push((UdpSocket::from_std(socket).unwrap(), query));
    }
    for (socket, query) in clients {
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer).await.unwrap();
        assert_eq!((code(&answer[..length]), &answer[..2]), ((0, 1), &query[..2]));
    }
    assert_eq!(*seen.lock().unwrap(), 1);
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
    assert_eq!(code(&ask(&server, &name).await), (0, 1));
    let failing = |query: &[u8], _| vec![reply(query, [0x81, 0x82], 0)];
    server.forwarder.replace(vec![upstream(failing).await]);
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(2)).await;
    tokio::time::resume();
    let answer = Message::from_vec(&ask(&server, &name).await).unwrap();
    assert_eq!((answer.answers.len(), answer.answers[0].ttl), (1, 30));
    assert_eq!(code(&ask(&server, &query("other.example.com", None)).await), (2, 0));
}

#[tokio::test]
async fn an_upstream_from_before_edns_is_asked_without() {
    let play = |query: &[u8], _| match query[11] {
        1 => vec![[&query[..2], &[0x81, 0x81], &[0; 8][..]].concat()],
        _ => vec![reply(query, [0x81, 0x80], 1)],
    };
    let server = serve("", vec![upstream(play).await]);
    let answer = ask(&server, &query("www.example.com", Some(1232))).await;
    assert_eq!((code(&answer), answer[11]), ((0, 1), 1), "to the client we speak EDNS all the same");
}

#[tokio::test]
async fn what_is_truncated_is_asked_for_over_tcp() {
    let play = |query: &[u8], transport| match transport {
        Transport::Udp => vec![reply(query, [0x83, 0x80], 2)],
        Transport::Tcp => vec![reply(query, [0x81, 0x80], 100)],
    };
    let server = serve("", vec![upstream(play).await]);
    let whole = ask(&server, &query("www.example.com", Some(4096))).await;
    assert_eq!((code(&whole), whole[2] & 2), ((0, 100), 0));
    let part = ask(&server, &query("www.example.com", None)).await;
    assert_eq!((code(&part), part[2] & 2), ((0, 29), 2), "as many as fit are there, for who has no TCP");
}

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
    let answer = ask(&server, &query("www.example.com", Some(1232))).await;
    assert_eq!(code(&answer), (2, 0));
    assert!(begun.elapsed().as_millis() <= 4001, "{:?}", begun.elapsed());
    assert!(answer.windows(4).any(|octets| octets == [0, 23, b'n', b'o']), "an extended error says why");
    assert_eq!(code(&ask(&serve("", Vec::new()), &query("www.example.com", None)).await), (2, 0));
}

#[tokio::test]
async fn forged_answers_are_ignored() {
    let play = |query: &[u8], _| {
        let right = reply(query, [0x81, 0x80], 1);
        let (mut id, mut question, mut request) = (right.clone(), right.clone(), right.clone());
        id[0] ^= 1;
        question[13] ^= 1;
        request[2] &= 0x7f;
        vec![vec![], id, question, request, right[..11].to_vec(), right]
    };
    let server = serve("", vec![upstream(play).await]);
    let answer = ask(&server, &query("www.example.com", None)).await;
    assert_eq!((code(&answer), &answer[..2], answer[13]), ((0, 1), &[0xab, 0xcd][..], b'w'));
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
async fn no_name_of_ours_ever_leaves() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let server = serve(
        "+ service shop/web ip=10.96.0.20",
        vec![
            upstream(move |query, _| {
                log.lock().unwrap().push(query.to_vec());
                vec![reply(query, [0x81, 0x83], 0)]
            })
            .await,
        ],
    );
    let ours =
        ["nope.cluster.local", "www.example.com.shop.svc.cluster.local", "a.b.svc", "svc", "CLUSTER.local"];
    for name in ours.into_iter().chain(["9.0.96.10.in-addr.arpa"]) {
        ask(&server, &query(name, None)).await;
    }
    assert!(asked.lock().unwrap().is_empty(), "{:?}", asked.lock().unwrap());
}

#[tokio::test]
async fn an_alias_is_followed_upstream() {
    let play = |query: &[u8], _| {
        let name = Message::from_vec(query).unwrap().queries[0].name().to_string();
        match name.as_str() {
            "www.example.com." => vec![reply(query, [0x81, 0x80], 2)],
            _ => vec![reply(query, [0x81, 0x83], 0)],
        }
    };
    let cluster =
        "+ service shop/out external=www.example.com\n+ service shop/gone external=gone.example.com";
    let server = serve(cluster, vec![upstream(play).await]);
    let answer =
        Message::from_vec(&ask(&server, &query("Out.shop.svc.cluster.local", Some(1232))).await).unwrap();
    let answers: Vec<String> = answer.answers.iter().map(ToString::to_string).collect();
    let expect = [
        "Out.shop.svc.cluster.local. 5 IN CNAME www.example.com.",
        "www.example.com. 300 IN A 192.0.2.0",
        "www.example.com. 300 IN A 192.0.2.1",
    ];
    assert_eq!(answers, expect);
    let gone = ask(&server, &query("gone.shop.svc.cluster.local", None)).await;
    assert_eq!(code(&gone), (3, 1), "the code is that of the end of the chain");
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

/// Questions that follow one another on a stream without waiting; the slow one holds nobody up.
#[tokio::test]
async fn a_stream_is_pipelined() {
    let silent = upstream(|_, _| Vec::new()).await;
    let server = serve("+ service shop/web ip=10.96.0.20", vec![silent]);
    let mut stream = tokio::net::TcpStream::connect(server.addresses[0]).await.unwrap();
    let names = ["www.example.com", "web.shop.svc.cluster.local", "nope.shop.svc.cluster.local"];
    let mut octets = Vec::new();
    for (id, name) in names.iter().enumerate() {
        let mut query = query(name, None);
        query[1] = u8::try_from(id).unwrap();
        octets.extend_from_slice(&u16::try_from(query.len()).unwrap().to_be_bytes());
        octets.extend_from_slice(&query);
    }
    // The last octet comes alone: a message need not come in one piece.
    let (last, first) = octets.split_last().unwrap();
    stream.write_all(first).await.unwrap();
    assert_eq!(next(&mut stream).await, (1, (0, 1)));
    stream.write_all(&[*last]).await.unwrap();
    assert_eq!(next(&mut stream).await, (2, (3, 0)));
}

/// The id's low octet, code and number of records of the next answer on a stream.
async fn next(stream: &mut tokio::net::TcpStream) -> (u8, (u8, usize)) {
    let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut answer).await.unwrap();
    (answer[1], code(&answer))
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

//! Names that are not ours: what goes upstream, and what of the answer comes back.
//! No test needs an upstream beyond loopback, and none sleeps.

#![allow(clippy::unwrap_used, reason = "a test that is wrong must fail at once")]

mod support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use dns::{Bound, Transport};
use hickory_proto::op::Message;
use support::upstream::{ask, bound, code, counting, query, reply, serve, upstream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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
async fn forged_answers_are_ignored() {
    let play = |query: &[u8], _| {
        let [right, forged] = [1, 2].map(|records| reply(query, [0x81, 0x80], records));
        let [mut id, mut question, mut request, mut notify] = [(); 4].map(|()| forged.clone());
        id[0] ^= 1;
        question[13] ^= 1;
        request[2] &= 0x7f;
        notify[2] |= 4 << 3;
        vec![vec![], id, question, request, notify, forged[..11].to_vec(), right]
    };
    let server = serve("", vec![upstream(play).await]);
    let answer = ask(&server, &query("www.example.com", None)).await;
    assert_eq!((code(&answer), &answer[..2], answer[13]), ((0, 1), &[0xab, 0xcd][..], b'w'));
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

/// An upstream whose answers are too long for a datagram; it keeps connections open, and counts them.
async fn long_winded() -> (std::net::SocketAddr, Arc<Mutex<usize>>) {
    let Bound { mut udp, tcp } = bound();
    let (udp, connections) = (udp.swap_remove(0), Arc::new(Mutex::new(0)));
    let (address, count) = (udp.local_addr().unwrap(), Arc::clone(&connections));
    udp.set_nonblocking(true).unwrap();
    tcp.set_nonblocking(true).unwrap();
    let udp = tokio::net::UdpSocket::from_std(udp).unwrap();
    let tcp = tokio::net::TcpListener::from_std(tcp).unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let (length, client) = udp.recv_from(&mut buffer).await.unwrap();
            udp.send_to(&reply(&buffer[..length], [0x83, 0x80], 0), client).await.unwrap();
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            *count.lock().unwrap() += 1;
            tokio::spawn(async move {
                while let Ok(length) = stream.read_u16().await {
                    let mut query = vec![0; length.into()];
                    stream.read_exact(&mut query).await.unwrap();
                    let message = reply(&query, [0x81, 0x80], 100);
                    stream.write_u16(message.len().try_into().unwrap()).await.unwrap();
                    stream.write_all(&message).await.unwrap();
                }
            });
        }
    });
    (address, connections)
}

#[tokio::test]
async fn a_connection_to_an_upstream_is_used_again() {
    let (address, connections) = long_winded().await;
    let server = serve("", vec![address]);
    for number in 0..10 {
        let name = format!("n{number}.example.com");
        assert_eq!(code(&ask(&server, &query(&name, Some(4096))).await), (0, 100), "{name}");
    }
    // The loop probe may have had one of its own at the same time.
    assert!(*connections.lock().unwrap() <= 2, "{connections:?}");
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

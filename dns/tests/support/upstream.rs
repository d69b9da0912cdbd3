//! Upstreams that a test plays on loopback, and a server in front of them.
//! No test needs an upstream beyond loopback, and none sleeps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use dns::{Bound, Config, DomainName, Metrics, Names, RecordType, Transport, Upstreams};
use hickory_proto::op::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_util::sync::CancellationToken;

use super::{cluster, config};

/// Whether a query is the server's own, to find loops.
pub(crate) fn is_probe(query: &[u8]) -> bool {
    query.windows(13).any(|octets| octets == b"\x0cfairway-loop")
}

/// What an upstream sends back for a query: datagrams, or messages on the stream.
type Play = dyn Fn(&[u8], Transport) -> Vec<Vec<u8>> + Send + Sync;

/// Sockets on a port that is free for both: one free for datagrams may be in use for a stream just now.
pub(crate) fn bound() -> Bound {
    (0..100).find_map(|_| Bound::bind("127.0.0.1:0".parse().unwrap()).ok()).unwrap()
}

/// An upstream on loopback, UDP and TCP.
pub(crate) async fn upstream(
    play: impl Fn(&[u8], Transport) -> Vec<Vec<u8>> + Send + Sync + 'static,
) -> SocketAddr {
    let play: Arc<Play> = Arc::new(play);
    let Bound { mut udp, tcp } = bound();
    let udp = udp.swap_remove(0);
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
pub(crate) fn serve(text: &str, upstreams: Vec<SocketAddr>) -> dns::Server {
    serve_stubs(text, upstreams, BTreeMap::new())
}

/// The same, with others for some domains.
pub(crate) fn serve_stubs(
    text: &str,
    upstreams: Vec<SocketAddr>,
    stub_domains: BTreeMap<DomainName, Vec<SocketAddr>>,
) -> dns::Server {
    serve_counted(text, upstreams, stub_domains, &Metrics::default())
}

pub(crate) fn serve_counted(
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
pub(crate) fn query(name: &str, payload: Option<u16>) -> Vec<u8> {
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

pub(crate) async fn ask(server: &dns::Server, query: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    socket.connect(server.addresses[0]).await.unwrap();
    socket.send(query).await.unwrap();
    let mut buffer = vec![0; 65535];
    let length = socket.recv(&mut buffer).await.unwrap();
    buffer.truncate(length);
    buffer
}

/// The question of a query with these flags and as many A records, compressed.
pub(crate) fn reply(query: &[u8], flags: [u8; 2], records: u8) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|octet| *octet == 0).unwrap() + 5;
    let mut octets = [&query[..2], &flags, &[0, 1, 0, records, 0, 0, 0, 0], &query[12..end]].concat();
    for last in 0..records {
        octets.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 1, 44, 0, 4, 192, 0, 2, last]);
    }
    octets
}

pub(crate) fn code(answer: &[u8]) -> (u8, usize) {
    (answer[3] & 15, Message::from_vec(answer).unwrap().answers.len())
}

/// An upstream that counts what it is asked and has one record of 300 s.
pub(crate) async fn counting() -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let address = upstream(move |query, _| {
        log.lock().unwrap().push(query.to_vec());
        vec![reply(query, [0x81, 0x80], 1)]
    });
    (address.await, seen)
}

/// Asks over a stream: everything stays in the runtime, so its clock may be paused.
pub(crate) async fn ask_stream(server: &dns::Server, query: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(server.addresses[0]).await.unwrap();
    stream.write_u16(query.len().try_into().unwrap()).await.unwrap();
    stream.write_all(query).await.unwrap();
    let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
    stream.read_exact(&mut answer).await.unwrap();
    answer
}

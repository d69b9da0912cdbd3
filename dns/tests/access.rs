//! Who is answered, over the real sockets: strangers, clients that ask too much, and what is counted of them.
//! What ranges and rates mean exactly is tested beside `access`.

#![allow(clippy::unwrap_used, reason = "a test that is wrong must fail at once")]

mod support;

use std::collections::BTreeSet;
use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use dns::{Access, Config, Metrics, Names, Server, Strangers, Upstreams};
use prometheus_client::registry::Registry;
use support::upstream::query;
use support::{cluster, config};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

struct Stage {
    server: Server,
    registry: Registry,
}

fn serve(access: Access) -> Stage {
    let mut names = Names::new(config());
    names.learn(&cluster("+ service shop/web ip=10.96.0.20").snapshot(), &BTreeSet::new());
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let (access, upstreams) = (Arc::new(access), Upstreams::Fixed(Vec::new()));
    let (metrics, mut registry) = (Metrics::default(), Registry::default());
    metrics.register(&mut registry);
    let config = Config { listen, upstreams, access, ..Config::default() };
    let server = dns::start(config, &names.reader(), &metrics, &CancellationToken::new()).unwrap();
    Stage { server, registry }
}

impl Stage {
    /// The answers to so many questions, in the order in which they came, from a client at one address.
    fn ask(&self, from: &str, count: u16) -> Vec<Vec<u8>> {
        let socket = UdpSocket::bind((from, 0)).unwrap();
        socket.connect(self.server.addresses[0]).unwrap();
        for id in 0..count {
            let mut query = query("web.shop.svc.cluster.local", None);
            query[..2].copy_from_slice(&id.to_be_bytes());
            socket.send(&query).unwrap();
        }
        // Whoever is answered follows, so that it is known that nothing more comes.
        socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut buffer = [0; 512];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|length| buffer[..length].to_vec())).collect()
    }

    fn counted(&self, line: &str) -> bool {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.lines().any(|counted| counted == line)
    }

    /// What comes of a question over a stream; nothing if the stream is closed.
    async fn ask_stream(&self) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.server.addresses[0]).await.unwrap();
        let query = query("web.shop.svc.cluster.local", None);
        stream.write_u16(query.len().try_into().unwrap()).await.unwrap();
        stream.write_all(&query).await.unwrap();
        let Ok(length) = stream.read_u16().await else { return Vec::new() };
        let mut answer = vec![0; length.into()];
        stream.read_exact(&mut answer).await.unwrap();
        answer
    }
}

/// Everything on loopback but what a test asks from.
fn near() -> Vec<ipnet::IpNet> {
    vec!["127.0.0.1/32".parse().unwrap()]
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_not_answered() {
    let access = Access::new(0, Strangers::Ignore);
    access.allow(&near(), &[]);
    let stage = serve(access);
    assert_eq!(stage.ask("127.0.0.9", 3).len(), 0);
    assert_eq!(stage.ask("127.0.0.1", 3).len(), 3);
    assert!(stage.counted("fairway_dns_turned_away_total{reason=\"stranger\"} 3"));
    assert_eq!(stage.ask_stream().await[3] & 15, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_refused_where_it_is_said_so() {
    let access = Access::new(0, Strangers::Refuse);
    access.allow(&[], &["127.0.0.9/32".parse().unwrap()]);
    let stage = serve(access);
    let refused = stage.ask("127.0.0.1", 1);
    assert_eq!(refused, [[0, 0, 0x81, 0x85, 0, 0, 0, 0, 0, 0, 0, 0]], "nothing of the question comes back");
    assert_eq!(stage.ask_stream().await[3] & 15, 5);
    assert_eq!(stage.ask("127.0.0.9", 1).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_asks_too_much_is_answered_so_often() {
    let access = Access::new(20, Strangers::Ignore);
    access.allow(&["127.0.0.8/32".parse().unwrap()], &["127.0.0.0/8".parse().unwrap()]);
    let stage = serve(access);
    let answered = stage.ask("127.0.0.1", 200).len();
    assert!((20..120).contains(&answered), "a second's worth, and what time adds: {answered}");
    assert_eq!(stage.ask("127.0.0.8", 200).len(), 200, "this node itself");
}

//! The server on loopback, asked by the real `dig`.

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use dns::{Config, DomainName, Metrics, Names, Upstreams, ZoneConfig};
use support::cluster;
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

const SHOP: &str = "
    + namespace shop
    + service shop/web ip=10.96.0.20,fd00::20 ports=http:80/TCP,metrics:9090/TCP
";

fn config() -> ZoneConfig {
    let mut config = ZoneConfig::new(DomainName::parse("cluster.local").unwrap());
    config.reverse = vec!["10.96.0.0/16".parse().unwrap(), "10.244.0.0/16".parse().unwrap()];
    config.servers = vec!["10.96.0.10".parse().unwrap()];
    config
}

/// A server on loopback with a cluster, and the token that ends it.
fn serve(text: &str, upstreams: Vec<SocketAddr>) -> (dns::Server, CancellationToken) {
    let mut names = Names::new(config());
    names.learn(&cluster(text).snapshot(), &BTreeSet::new());
    let drain = CancellationToken::new();
    let listen = vec!["127.0.0.1:0".parse().unwrap()];
    let config = Config { listen, sockets: Vec::new(), upstreams: Upstreams::Fixed(upstreams) };
    (dns::start(config, names.reader(), Metrics::default(), &drain).unwrap(), drain)
}

async fn dig(server: &dns::Server, args: &str) -> String {
    let address = server.addresses[0];
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

#[tokio::test]
async fn a_cluster_ip_over_udp_and_tcp() {
    let (server, _drain) = serve(SHOP, Vec::new());
    assert_eq!(dig(&server, "+short web.shop.svc.cluster.local").await, "10.96.0.20\n");
    assert_eq!(dig(&server, "+short +tcp web.shop.svc.cluster.local AAAA").await, "fd00::20\n");
}

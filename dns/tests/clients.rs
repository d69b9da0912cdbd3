//! The server on loopback, asked by clients that others wrote: kdig and dnspython. `dig` has a file of its own.
//! Without them these tests are skipped, in CI they fail.

#![allow(clippy::unwrap_used, reason = "a test that is wrong must fail at once")]
#![allow(clippy::print_stdout, reason = "a skip is printed")]

mod support;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use dns::{Config, Metrics, Names, Server, Upstreams};
use support::{cluster, config};
use tokio::process::Command;
use tokio_util::sync::CancellationToken;

/// Debian's: it has dnspython, which another Python of the machine may lack.
const PYTHON: &str = "/usr/bin/python3";
const DNSPYTHON: &str = "/usr/lib/python3/dist-packages/dns/__init__.py";

fn serve() -> Server {
    let many: Vec<String> = (0..300).map(|n| format!("10.244.{}.{}", 1 + n / 200, n % 200)).collect();
    let text = format!(
        "+ namespace shop
         + service shop/web ip=10.96.0.20,fd00::20 ports=http:80/TCP,metrics:9090/TCP
         + service shop/db headless ports=pg:5432/TCP
         + slice shop/db-1 of=db ports=pg:5432/TCP at=10.244.0.5=db-0,10.244.0.6,10.244.0.7,10.244.0.8
         + service shop/many headless
         + slice shop/many-1 of=many at={}
         + service shop/in external=web.shop.svc.cluster.local",
        many.join(",")
    );
    let mut names = Names::new(config());
    names.learn(&cluster(&text).snapshot(), &BTreeSet::new());
    let listen = vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()];
    let config = Config { listen, upstreams: Upstreams::Fixed(Vec::new()), ..Config::default() };
    dns::start(config, &names.reader(), &Metrics::default(), &CancellationToken::new()).unwrap()
}

/// Whether there is a file. In CI there must be.
fn has(file: &str, package: &str) -> bool {
    let found = Path::new(file).exists();
    assert!(found || std::env::var_os("CI").is_none(), "{package} is not installed");
    if !found {
        println!("SKIP: {package} is not installed");
    }
    found
}

async fn kdig(address: SocketAddr, args: &str) -> String {
    let mut command = Command::new("kdig");
    command.arg(format!("@{}", address.ip())).args(["-p", &address.port().to_string(), "+retry=0"]);
    command.args(args.split_ascii_whitespace());
    String::from_utf8(command.output().await.unwrap().stdout).unwrap()
}

#[tokio::test]
async fn every_form_of_record_and_every_code_by_dnspython() {
    if !has(DNSPYTHON, "python3-dnspython") {
        return;
    }
    let server = serve();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/client.py");
    for address in &server.addresses {
        let (ip, port) = (address.ip().to_string(), address.port().to_string());
        let output = Command::new(PYTHON).arg("-B").arg(&script).args([&ip, &port]).output().await.unwrap();
        let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(out.trim(), "ok", "{address}: {error}");
    }
}

#[tokio::test]
async fn every_form_of_record_by_kdig() {
    if !has("/usr/bin/kdig", "knot-dnsutils") {
        return;
    }
    let server = serve();
    for (args, expected) in [
        ("web.shop.svc.cluster.local A", "10.96.0.20\n"),
        ("web.shop.svc.cluster.local AAAA", "fd00::20\n"),
        ("_http._tcp.web.shop.svc.cluster.local SRV", "0 100 80 web.shop.svc.cluster.local.\n"),
        ("-x 10.96.0.20", "web.shop.svc.cluster.local.\n"),
        ("10-244-0-6.db.shop.svc.cluster.local A", "10.244.0.6\n"),
        ("dns-version.cluster.local TXT", "\"1.1.0\"\n"),
        ("in.shop.svc.cluster.local A", "web.shop.svc.cluster.local.\n10.96.0.20\n"),
        ("nope.shop.svc.cluster.local A", ""),
    ] {
        for address in &server.addresses {
            for how in ["+notcp", "+tcp", "+notcp +bufsize=4096 +dnssec", "+cookie"] {
                assert_eq!(kdig(*address, &format!("+short {how} {args}")).await, expected, "{how} {args}");
            }
        }
    }
    let address = server.addresses[0];
    for (args, expected) in [
        ("nope.shop.svc.cluster.local", "status: NXDOMAIN"),
        ("+edns=1 web.shop.svc", "status: BADVERS"),
        ("www.example.com", "status: SERVFAIL"),
        ("web.shop.svc", "Flags: qr aa rd ra;"),
    ] {
        let said = kdig(address, args).await;
        assert!(said.contains(expected), "{args}: {said}");
    }
}

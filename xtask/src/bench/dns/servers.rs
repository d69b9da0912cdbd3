//! The servers that are measured: ours, and the others with the same names as local data, one thread each, on
//! addresses of the same node. It only starts them; they end with the node.

use std::fmt::Write as _;
use std::path::Path;

use ::tests::{Background, Node};
use anyhow::Result;

use super::super::sockets::cluster_ip;
use super::load::{EXTERNAL_NAMES, external_ip};

/// Knot serves `example` beside the cluster's names: all who forward ask it.
pub(super) const UPSTREAM: &str = "example=198.18.0.3";
const UNBOUND: &str = "198.18.0.2";
const KNOT: &str = "198.18.0.3";
const DNSMASQ: &str = "198.18.0.4";

/// A server that is measured.
pub(super) struct Server {
    pub(super) name: &'static str,
    pub(super) address: &'static str,
    pub(super) process: u32,
    /// Whether it asks others.
    pub(super) forwards: bool,
}

/// All of them, ours first.
pub(super) struct Servers {
    all: Vec<Server>,
    _running: Vec<Background>,
}

impl Servers {
    /// Starts the others beside the running daemon.
    pub(super) fn start(node: &mut Node, services: usize) -> Result<Self> {
        let folder = node.folder().join("servers");
        std::fs::create_dir_all(&folder)?;
        for address in [UNBOUND, KNOT, DNSMASQ] {
            node.add_to_loopback(address)?;
        }
        let shown = |file: &str| folder.join(file).display().to_string();
        std::fs::write(folder.join("unbound.conf"), unbound(services)?)?;
        std::fs::write(folder.join("knot.conf"), knot(&folder))?;
        std::fs::write(folder.join("cluster.zone"), cluster_zone(services)?)?;
        std::fs::write(folder.join("example.zone"), example_zone()?)?;
        std::fs::write(folder.join("dnsmasq.conf"), dnsmasq(services)?)?;
        let mut running = Vec::new();
        let mut start = |words: &[&str]| -> Result<u32> {
            let core = super::load::SERVER_CORE.to_string();
            let words: Vec<&str> = ["taskset", "-c", &core].iter().chain(words).copied().collect();
            let server = node.background(&words)?;
            let process = server.id();
            running.push(server);
            Ok(process)
        };
        let unbound = start(&["unbound", "-d", "-p", "-c", &shown("unbound.conf")])?;
        let knot = start(&["knotd", "-c", &shown("knot.conf")])?;
        let dnsmasq = start(&["dnsmasq", "-k", "-C", &shown("dnsmasq.conf")])?;
        let ours = node.daemon()?.id();
        let server = |name, address, process, forwards| Server { name, address, process, forwards };
        let all = vec![
            server("fairway", "10.96.0.10", ours, true),
            server("unbound", UNBOUND, unbound, true),
            server("knot", KNOT, knot, false),
            server("dnsmasq", DNSMASQ, dnsmasq, true),
        ];
        Ok(Self { all, _running: running })
    }

    pub(super) fn all(&self) -> &[Server] {
        &self.all
    }
}

fn unbound(services: usize) -> Result<String> {
    let mut text = format!(
        "server:\n  interface: {UNBOUND}\n  access-control: 0.0.0.0/0 allow\n  num-threads: 1\n  do-daemonize: no\n  \
         username: \"\"\n  chroot: \"\"\n  pidfile: \"\"\n  use-syslog: no\n  logfile: \"/dev/null\"\n  \
         do-not-query-localhost: no\n  module-config: \"iterator\"\n  domain-insecure: \"example.\"\n  \
         local-zone: \"cluster.local.\" static\n  \
         local-data: 'cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5'\n"
    );
    for n in 0..services {
        writeln!(text, "  local-data: 's{n}.bench.svc.cluster.local. 5 IN A {}'", cluster_ip(n))?;
    }
    write!(
        text,
        "forward-zone:\n  name: \"example.\"\n  forward-addr: {KNOT}\nremote-control:\n  control-enable: no\n"
    )?;
    Ok(text)
}

fn knot(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "server:\n  rundir: \"{folder}\"\n  listen: {KNOT}@53\n  udp-workers: 1\n  tcp-workers: 1\n  \
         background-workers: 1\ndatabase:\n  storage: \"{folder}\"\n\
         log:\n  - target: stderr\n    any: error\ntemplate:\n  - id: default\n    storage: \"{folder}\"\n    \
         zonefile-sync: -1\n    journal-content: none\n\
         zone:\n  - domain: cluster.local\n    file: cluster.zone\n  - domain: example\n    file: example.zone\n"
    )
}

fn cluster_zone(services: usize) -> Result<String> {
    let mut text = String::from(
        "$ORIGIN cluster.local.\n$TTL 5\n@ SOA ns.dns hostmaster 1 7200 1800 86400 5\n@ NS ns.dns\nns.dns A 10.96.0.10\n",
    );
    for n in 0..services {
        writeln!(text, "s{n}.bench.svc A {}", cluster_ip(n))?;
    }
    Ok(text)
}

fn example_zone() -> Result<String> {
    let mut text = format!(
        "$ORIGIN example.\n$TTL 3600\n@ SOA ns hostmaster 1 7200 1800 86400 5\n@ NS ns\nns A {KNOT}\n"
    );
    for n in 0..EXTERNAL_NAMES {
        writeln!(text, "h{n} A {}", external_ip(n))?;
    }
    Ok(text)
}

fn dnsmasq(services: usize) -> Result<String> {
    let mut text = format!(
        "listen-address={DNSMASQ}\nbind-interfaces\nno-resolv\nno-hosts\nno-daemon\nuser=root\ncache-size=10000\n\
         pid-file=\nlocal=/cluster.local/\nserver=/example/{KNOT}\nlocal-ttl=5\n"
    );
    for n in 0..services {
        writeln!(text, "host-record=s{n}.bench.svc.cluster.local,{}", cluster_ip(n))?;
    }
    Ok(text)
}

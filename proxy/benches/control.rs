//! The control loop alone, against the real kernel: events in memory are applied, planned and stored, and timed.
//!
//! `cargo xtask bench control` calls it as `control CGROUP PINS SERVICES ENDPOINTS` inside a node's network
//! namespace; called otherwise it does nothing, so that `cargo bench` can pass over it.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use model::testing::{service, slice};
use model::{Cluster, EndpointSlice, Event, Kind, Object};
use proxy::{Config, Proxy, Sizes};

/// Cold starts that are told, and rounds of changes; one more of each warms up.
const STARTS: usize = 15;
const ROUNDS: usize = 20;
const CHANGES: usize = 200;

/// How large the cluster is.
#[derive(Clone, Copy)]
struct Size {
    services: usize,
    endpoints: usize,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [cgroup, pins, services, endpoints] => {
            let size = Size { services: services.parse()?, endpoints: endpoints.parse()? };
            measure(cgroup.as_ref(), pins.as_ref(), size)
        }
        _ => Ok(()),
    }
}

fn measure(cgroup: &Path, bpf_dir: &Path, size: Size) -> Result<()> {
    let open = |pins: &Path| {
        Proxy::open(Config {
            cgroup: cgroup.to_owned(),
            bpf_dir: pins.to_owned(),
            node_name: "node-a".into(),
            node_addresses: Vec::new(),
            node_port_addresses: None,
            cluster_dns: Vec::new(),
            layout: proxy::LAYOUT,
            end_tcp: false,
            redirect: false,
            packets: None,
            sizes: Sizes::default(),
        })
    };
    let lists = size.lists();
    let mut starts = Vec::new();
    for round in 0..=STARTS {
        let pins = bpf_dir.join(format!("start-{round}"));
        let mut proxy = open(&pins)?;
        let events = lists.clone();
        let begun = Instant::now();
        let (_, ops) = start(&mut proxy, events)?;
        let took = begun.elapsed();
        ensure!(ops > size.services * size.endpoints, "{ops} operations are no cold start");
        drop(proxy);
        proxy::cleanup(&pins)?;
        if round > 0 {
            starts.push(took.as_secs_f64() * 1e3);
        }
    }
    let pins = bpf_dir.join("changes");
    let mut proxy = open(&pins)?;
    let (mut cluster, _) = start(&mut proxy, lists.clone())?;
    let changes = changes(&mut proxy, &mut cluster, size)?;
    proxy.close();
    // A process that knows nothing but what is pinned, and a cluster that is as it was.
    let mut proxy = open(&pins)?;
    let rewritten = proxy.grow(&cluster.snapshot(), Instant::now()).ops;
    let value = serde_json::json!({ "starts": starts, "changes": changes, "rewritten": rewritten });
    writeln!(std::io::stdout().lock(), "{value}").context("standard output")
}

/// Everything at once; the operations that it took.
fn start(proxy: &mut Proxy, events: Vec<Event>) -> Result<(Cluster, usize)> {
    let mut cluster = Cluster::new();
    events.into_iter().for_each(|event| cluster.apply(event));
    let outcome = proxy.grow(&cluster.snapshot(), Instant::now());
    ensure!(outcome.complete && outcome.unprogrammed.is_empty(), "it fits: {:?}", outcome.unprogrammed);
    Ok((cluster, outcome.ops))
}

/// One endpoint after the other, in microseconds, by round.
fn changes(proxy: &mut Proxy, cluster: &mut Cluster, size: Size) -> Result<Vec<Vec<f64>>> {
    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        let mut micros = Vec::new();
        for change in 0..CHANGES {
            // A prime step walks over all services; none has its turn twice, so each event changes something.
            let n = (round * CHANGES + change) * 7919 % size.services;
            let event = Event::Apply(Object::EndpointSlice(size.slice(n, false)));
            let begun = Instant::now();
            cluster.apply(event);
            let outcome = proxy.grow(&cluster.snapshot(), begun);
            let took = begun.elapsed();
            ensure!(outcome.complete && outcome.ops > 0, "service {n} got another endpoint: {outcome:?}");
            micros.push(took.as_secs_f64() * 1e6);
            // What left goes in its own time, as in the daemon.
            proxy.shrink(Instant::now());
        }
        if round > 0 {
            rounds.push(micros);
        }
    }
    Ok(rounds)
}

impl Size {
    /// The first lists of a source.
    fn lists(self) -> Vec<Event> {
        let services = (0..self.services)
            .map(|n| Object::Service(service(&name(n), &[&cluster_ip(n)]).port("http:80/TCP")));
        let slices = (0..self.services).map(|n| Object::EndpointSlice(self.slice(n, true)));
        let node = model::testing::node("node-a", &["192.0.2.10"]);
        vec![
            Event::Replace(Kind::Service, services.collect()),
            Event::Replace(Kind::EndpointSlice, slices.collect()),
            Event::Replace(Kind::Node, vec![Object::Node(node)]),
        ]
    }

    /// The endpoints of a service; the last one is another after the change.
    fn slice(self, n: usize, before: bool) -> EndpointSlice {
        let last = self.endpoints - 1;
        let address = |k: usize| {
            let host = n * self.endpoints + k;
            let block = if k == last && !before { 128 } else { 16 };
            format!("10.{}.{}.{}", block + host / 62_500, host / 250 % 250, host % 250)
        };
        let addresses: Vec<String> = (0..self.endpoints).map(address).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        slice(&format!("s{n}-1"), &name(n)).port("http:8080/TCP").ready(&addresses)
    }
}

fn name(n: usize) -> String {
    format!("bench/s{n}")
}

fn cluster_ip(n: usize) -> String {
    format!("10.{}.{}.{}", 8 + n / 62_500, n / 250 % 250, n % 250)
}

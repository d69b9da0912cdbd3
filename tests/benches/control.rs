//! The control loop alone, against the real kernel: an Event is applied, planned and stored, and timed.
//!
//! `cargo xtask bench control` calls it as `control CGROUP PINS` inside a node's network namespace; called
//! otherwise it does nothing, so that `cargo bench` can pass over it.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use model::testing::{service, slice};
use model::{Cluster, EndpointSlice, Event, Kind, Object};
use proxy::{Config, Proxy, Sizes};

const SERVICES: usize = 10_000;
/// Rounds that are told; one more warms up.
const ROUNDS: usize = 20;
const CHANGES: usize = 200;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [cgroup, pins] if !cgroup.starts_with("--") => measure(cgroup.into(), pins.into()),
        _ => Ok(()),
    }
}

fn measure(cgroup: PathBuf, bpf_dir: PathBuf) -> Result<()> {
    let config = Config {
        cgroup,
        bpf_dir,
        node_name: "node-a".into(),
        node_addresses: Vec::new(),
        cluster_dns: Vec::new(),
        sizes: Sizes::default(),
        layout: proxy::LAYOUT,
        end_tcp: false,
        packets: false,
    };
    let mut proxy = Proxy::open(config)?;
    let mut cluster = cluster();
    let first = proxy.grow(&cluster.snapshot(), Instant::now());
    ensure!(first.complete && first.unprogrammed.is_empty(), "10,000 services fit: {:?}", first.unprogrammed);

    let mut rounds = Vec::new();
    for round in 0..=ROUNDS {
        let mut micros = Vec::new();
        for change in 0..CHANGES {
            // A prime step walks over all services; none has its turn twice, so each event changes something.
            let n = (round * CHANGES + change) * 7919 % SERVICES;
            let event = Event::Apply(Object::EndpointSlice(endpoints(n, false)));
            let begun = Instant::now();
            cluster.apply(event);
            let outcome = proxy.grow(&cluster.snapshot(), begun);
            let took = begun.elapsed();
            ensure!(
                outcome.complete && outcome.ops > 0,
                "an endpoint of service {n} was replaced: {outcome:?}"
            );
            micros.push(took.as_secs_f64() * 1e6);
            // What left goes in its own time, as in the daemon.
            proxy.shrink(Instant::now());
        }
        if round > 0 {
            rounds.push(micros);
        }
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", serde_json::json!({ "rounds": rounds })).context("standard output")
}

fn cluster() -> Cluster {
    let services =
        (0..SERVICES).map(|n| Object::Service(service(&name(n), &[&cluster_ip(n)]).port("80/TCP")));
    let slices = (0..SERVICES).map(|n| Object::EndpointSlice(endpoints(n, true)));
    let node = model::testing::node("node-a", &["192.0.2.10"]);
    let mut cluster = Cluster::new();
    cluster.apply(Event::Replace(Kind::Service, services.collect()));
    cluster.apply(Event::Replace(Kind::EndpointSlice, slices.collect()));
    cluster.apply(Event::Replace(Kind::Node, vec![Object::Node(node)]));
    cluster
}

/// Three endpoints; the third is another one after the change.
fn endpoints(n: usize, before: bool) -> EndpointSlice {
    let (high, low) = (n / 250, n % 250);
    let third = if before { 3 } else { 4 };
    let addresses = [1, 2, third].map(|host| format!("10.{}.{high}.{low}", 127 + host));
    slice(&format!("s{n}-1"), &name(n)).port("80/TCP").ready(&addresses.each_ref().map(String::as_str))
}

fn name(n: usize) -> String {
    format!("bench/s{n}")
}

fn cluster_ip(n: usize) -> String {
    format!("10.96.{}.{}", n / 250 + 1, n % 250)
}

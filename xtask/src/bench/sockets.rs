//! Connections and datagrams through a ClusterIP beside the same to the endpoint's own address and through rules of
//! kube-proxy's shape, alternating in one process, on a node with one, with many and with very many services.
//!
//! The endpoint is on the node's loopback, where a connection is cheapest and any extra cost shows most.

use std::fmt::Write as _;
use std::path::Path;

use ::tests::{Kind, Node, Options, until};
use anyhow::{Context, Result};
use serde_json::Value;

use super::figure::{Bound, Figure, median};
use super::hook_cost;
use super::kube_proxy::Rules;
use super::report::Report;

const SIZES: [usize; 3] = [1, 1000, 10_000];
const ROUNDS: &str = "21";
/// Exchanges with each target a round.
const COUNT: &str = "1000";
/// Services in one manifest file.
const PER_FILE: usize = 500;
/// A service costs what a direct connection costs, give or take what cannot be measured.
const CONNECT_BOUND: f64 = 0.98;
/// Each datagram passes a hook, and so does its answer.
const DATAGRAM_BOUND: f64 = 0.92;
const ENDPOINT: &str = "198.18.0.1";
/// Of the last service: connections that are closed at once, connections that are kept.
const PORTS: [(&str, u16); 3] = [("tcp", 80), ("tcp", 81), ("udp", 80)];

/// One thing that is timed.
struct Case {
    exchange: &'static str,
    port: u16,
    metric: &'static str,
    direct: f64,
    nat: Bound,
}

const CASES: [Case; 3] = [
    Case {
        exchange: "connect",
        port: 80,
        metric: "connect+request",
        direct: CONNECT_BOUND,
        nat: Bound::AtLeast(1.0),
    },
    Case { exchange: "kept", port: 81, metric: "request, kept", direct: CONNECT_BOUND, nat: Bound::None },
    Case { exchange: "datagrams", port: 80, metric: "datagram", direct: DATAGRAM_BOUND, nat: Bound::None },
];

/// What the rounds of one target told.
struct Told {
    mean: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
}

/// Measures at every size.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    report.progress("building fairway with optimisation (the first time takes minutes)");
    let fairway = super::build(&["build", "--release", "-p", "fairway", "-p", "tests", "--bins"], "fairway")?;
    let programs = fairway.parent().context("a program is in a folder")?.to_owned();
    for size in SIZES {
        report.progress(&format!(
            "sockets: {size} services, {ROUNDS} rounds of {COUNT} exchanges with each target"
        ));
        report.tell(measure_at(size, &programs)?);
    }
    Ok(())
}

fn measure_at(size: usize, programs: &Path) -> Result<Vec<Figure>> {
    let options = Options {
        manifests: manifests(size)?,
        programs: Some(programs.to_owned()),
        log: "info",
        ..Options::default()
    };
    let mut node = Node::create(options)?;
    node.start_daemon()?;
    node.echo(&format!("{ENDPOINT}:80"))?;
    node.serve("kept", &[ENDPOINT], &[(Kind::Tcp, 81), (Kind::Udp, 80)])?;
    let rules = node.folder().join("kube-proxy.nft");
    let addresses: Vec<String> = (0..size).map(|n| address(97, n)).collect();
    // Each of its services has the one port that most have; the last one has all.
    let last = addresses.len() - 1;
    let most = Rules { addresses: &addresses[..last], ports: &PORTS[..1], endpoint: ENDPOINT };
    let all = Rules { addresses: &addresses[last..], ports: &PORTS, endpoint: ENDPOINT };
    std::fs::write(&rules, super::kube_proxy::text(&[most, all]))?;
    node.command(&["nft", "-f", &rules.display().to_string()])?.success()?;
    // The last service of all: whatever grows with their number shows.
    let (service, nat) = (cluster_ip(size - 1), &addresses[last]);
    until("the last service to be programmed", || {
        let answers = node.ask(Kind::Tcp, &format!("{service}:80"), &["--timeout", "300"])?;
        answers.only_from(&["echo"])
    })?;
    let mut figures = Vec::new();
    for case in &CASES {
        let targets = [service.as_str(), ENDPOINT, nat].map(|ip| format!("{ip}:{}", case.port));
        let [through, direct, nat] = race(&node, case.exchange, &targets)?;
        figures.extend(compare(case, size, &through, &direct, &nat));
    }
    figures.extend(hook_cost::measure(&node, &format!("{service}:80"), size)?);
    Ok(figures)
}

fn race(node: &Node, exchange: &str, targets: &[String; 3]) -> Result<[Told; 3]> {
    let probe = node.probe().display().to_string();
    let mut words = vec![probe.as_str(), "race", exchange];
    words.extend(targets.iter().map(String::as_str));
    words.extend(["--rounds", ROUNDS, "--count", COUNT]);
    let output = node.command(&words)?.success()?.stdout;
    let value: Value = serde_json::from_str(output.trim()).context("the probe prints JSON")?;
    let rounds = value["rounds"].as_array().context("rounds")?;
    let told = |target: usize, key: &str| -> Vec<f64> {
        rounds.iter().map(|round| round[target][key].as_f64().unwrap_or(f64::NAN)).collect()
    };
    Ok([0, 1, 2].map(|target| Told {
        mean: told(target, "mean"),
        p50: told(target, "p50"),
        p99: told(target, "p99"),
    }))
}

fn compare(case: &Case, size: usize, through: &Told, direct: &Told, nat: &Told) -> Vec<Figure> {
    let figure = |metric, versus, (own, other): (&[f64], &[f64]), bound| Figure {
        bench: "sockets",
        case: format!("{size} services"),
        metric,
        unit: "us",
        value: median(own) / 1000.0,
        versus,
        rounds: std::iter::zip(other, own).map(|(other, own)| other / own).collect(),
        bound,
    };
    let mut figures = vec![
        figure(case.metric, "direct", (&through.mean, &direct.mean), Bound::AtLeast(case.direct)),
        figure(case.metric, "nftables", (&through.mean, &nat.mean), case.nat),
    ];
    if case.exchange == "connect" {
        figures.push(figure("connect, p50", "direct", (&through.p50, &direct.p50), Bound::None));
        figures.push(figure("connect, p99", "direct", (&through.p99, &direct.p99), Bound::None));
        figures.push(figure("connect, p50", "nftables", (&through.p50, &nat.p50), Bound::None));
        figures.push(figure("connect, p99", "nftables", (&through.p99, &nat.p99), Bound::None));
    }
    figures
}

/// The manifests of so many services with an endpoint each; the last one has all ports.
pub(super) fn manifests(size: usize) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for start in (0..size).step_by(PER_FILE) {
        let mut text = String::new();
        for n in start..size.min(start + PER_FILE) {
            let ip = cluster_ip(n);
            let ports = if n + 1 == size {
                "{name: a, port: 80}, {name: b, port: 81}, {name: c, port: 80, protocol: UDP}"
            } else {
                "{name: a, port: 80}"
            };
            write!(
                text,
                "apiVersion: v1\nkind: Service\nmetadata: {{name: s{n}, namespace: bench}}\n\
                 spec: {{clusterIP: {ip}, ports: [{ports}]}}\n---\n\
                 apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata: {{name: s{n}-1, namespace: bench, labels: {{kubernetes.io/service-name: s{n}}}}}\n\
                 addressType: IPv4\nports: [{ports}]\nendpoints: [{{addresses: [{ENDPOINT}]}}]\n---\n"
            )?;
        }
        files.push((format!("bench-{start}.yaml"), text));
    }
    Ok(files)
}

/// The address of service `n`.
pub(super) fn cluster_ip(n: usize) -> String {
    address(96, n)
}

/// 10.96.16.0 and on, clear of the addresses that the cluster itself takes; 10.97 are those of the rules.
fn address(second: u8, n: usize) -> String {
    let n = n + 16 * 256;
    format!("10.{second}.{}.{}", n / 256, n % 256)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_has_an_address_of_its_own_in_the_range() {
        let addresses: std::collections::BTreeSet<String> = (0..10_000).map(cluster_ip).collect();
        assert_eq!(addresses.len(), 10_000);
        assert!(addresses.iter().all(|address| address.parse::<std::net::Ipv4Addr>().is_ok()));
        assert_eq!(manifests(1001).unwrap().len(), 3);
    }
}

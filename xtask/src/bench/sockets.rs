//! Short connections through a ClusterIP beside the same to the endpoint's own address, alternating in one
//! process, on a node with few and with many services.
//!
//! The endpoint is on the node's loopback, where a connection is cheapest and any extra cost shows most.

use std::fmt::Write as _;

use ::tests::{Kind, Node, Options, until};
use anyhow::{Context, Result};
use serde_json::Value;

use super::figure::{Bound, Figure, median};

const SIZES: [usize; 2] = [10, 10_000];
const ROUNDS: &str = "21";
/// Connections of each kind a round.
const COUNT: &str = "2000";
/// Services in one manifest file.
const PER_FILE: usize = 500;
/// A service costs what a direct connection costs, give or take what cannot be measured.
const BOUND: f64 = 0.97;

/// Measures at every size.
pub(crate) fn measure(progress: &dyn Fn(&str)) -> Result<Vec<Figure>> {
    progress("building fairway with optimisation (the first time takes minutes)");
    let fairway = super::build(&["build", "--release", "-p", "fairway", "-p", "tests", "--bins"], "fairway")?;
    let programs = fairway.parent().context("a program is in a folder")?.to_owned();
    let mut figures = Vec::new();
    for size in SIZES {
        progress(&format!("sockets: {size} services, {ROUNDS} rounds of {COUNT} connections each way"));
        let options = Options {
            manifests: manifests(size)?,
            programs: Some(programs.clone()),
            log: "info",
            ..Options::default()
        };
        let mut node = Node::create(options)?;
        node.start_daemon()?;
        figures.push(measure_on(&mut node, size)?);
    }
    Ok(figures)
}

fn measure_on(node: &mut Node, size: usize) -> Result<Figure> {
    let direct = "198.18.0.1:80";
    // The last service of all: whatever grows with their number shows.
    let service = format!("{}:80", cluster_ip(size - 1));
    node.echo(direct)?;
    until("the last service to be programmed", || {
        let answers = node.ask(Kind::Tcp, &service, &["--timeout", "300"])?;
        answers.only_from(&["echo"])
    })?;
    let probe = node.probe().display().to_string();
    let words = [&probe, "race", &service, direct, "--rounds", ROUNDS, "--count", COUNT];
    let output = node.command(&words)?.success()?.stdout;
    let value: Value = serde_json::from_str(output.trim()).context("the probe prints JSON")?;
    let rounds = value["rounds"].as_array().context("rounds")?;
    let nanos = |round: &Value, key: &str| round[key].as_f64().unwrap_or(f64::NAN);
    let through: Vec<f64> = rounds.iter().map(|round| nanos(round, "service")).collect();
    Ok(Figure {
        bench: "sockets",
        case: format!("{size} services"),
        metric: "connect+request+close",
        unit: "us",
        value: median(&through) / 1000.0,
        versus: "direct",
        rounds: rounds.iter().map(|round| nanos(round, "direct") / nanos(round, "service")).collect(),
        bound: Bound::AtLeast(BOUND),
    })
}

/// The manifests of so many services with an endpoint each.
pub(super) fn manifests(size: usize) -> Result<Vec<(String, String)>> {
    let mut files = Vec::new();
    for start in (0..size).step_by(PER_FILE) {
        let mut text = String::new();
        for n in start..size.min(start + PER_FILE) {
            let ip = cluster_ip(n);
            write!(
                text,
                "apiVersion: v1\nkind: Service\nmetadata: {{name: s{n}, namespace: bench}}\n\
                 spec: {{clusterIP: {ip}, ports: [{{port: 80}}]}}\n---\n\
                 apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
                 metadata: {{name: s{n}-1, namespace: bench, labels: {{kubernetes.io/service-name: s{n}}}}}\n\
                 addressType: IPv4\nports: [{{port: 80}}]\nendpoints: [{{addresses: [198.18.0.1]}}]\n---\n"
            )?;
        }
        files.push((format!("bench-{start}.yaml"), text));
    }
    Ok(files)
}

/// 10.96.16.0 and on, clear of the addresses that the cluster itself takes.
pub(super) fn cluster_ip(n: usize) -> String {
    let n = n + 16 * 256;
    format!("10.96.{}.{}", n / 256, n % 256)
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

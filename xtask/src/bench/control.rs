//! From an Event in memory to the last store in the kernel's maps, at two sizes of cluster; and the whole daemon
//! behind an API server: how long it takes to be ready, and its memory.
//!
//! The loop is run by the program `control` of the package `proxy`; this makes the node
//! around it and reads its times.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ::tests::{Background, Node, Options};
use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::figure::{Bound, Figure, median, quantile};
use super::report::Report;

/// Services and endpoints of each.
const SIZES: [(usize, usize); 2] = [(10_000, 10), (50_000, 5)];
/// Where the API server answers, in the node's namespace.
const API_SERVER: &str = "127.0.0.1:6443";
/// Starts of the whole daemon. Its memory hardly differs between two of them.
const STARTS: usize = 3;
/// How long the whole daemon may take to be ready: that is measured, not demanded.
const PATIENCE: Duration = Duration::from_secs(120);
/// The bounds on two cores: cold start at the larger size, a change of one endpoint, memory at the smaller size.
const COLD_MS: f64 = 1000.0;
const CHANGE_US: f64 = 2000.0;
const MEMORY_MB: f64 = 60.0;

/// Measures the loop and the daemon.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    report.progress("building the control bench with optimisation (the first time takes minutes)");
    let program = super::build(&["bench", "--no-run", "-p", "proxy", "--bench", "control"], "control")?;
    for (services, endpoints) in SIZES {
        report.progress(&format!(
            "control: {services} services with {endpoints} endpoints each, in the kernel"
        ));
        report.tell(in_kernel(&program, services, endpoints)?);
    }
    let fairway = super::build(&["build", "--release", "-p", "fairway", "-p", "tests", "--bins"], "fairway")?;
    let programs = fairway.parent().context("a program is in a folder")?;
    for (services, endpoints) in SIZES {
        report.progress(&format!("control: the whole daemon with {services} services, {STARTS} starts"));
        report.tell(whole(programs, services, endpoints)?);
    }
    Ok(())
}

fn in_kernel(program: &Path, services: usize, endpoints: usize) -> Result<Vec<Figure>> {
    // No daemon and no probe is needed: any folder does.
    let node =
        Node::create(Options { programs: program.parent().map(Path::to_owned), ..Options::default() })?;
    let words = [
        program.display().to_string(),
        node.cgroup().display().to_string(),
        node.bpf_dir().display().to_string(),
        services.to_string(),
        endpoints.to_string(),
    ];
    // One line at its end, which is later than a command of a node may take.
    let output = node.background(&words.each_ref().map(String::as_str))?.read_line()?;
    let value: Value = serde_json::from_str(output.trim()).context("the bench prints JSON")?;
    let changes: Vec<Vec<f64>> =
        value["changes"].as_array().context("changes")?.iter().map(numbers).collect();
    let by_round = |part| changes.iter().map(|round| quantile(round, part, 100)).collect();
    let size = (services, endpoints);
    let cold = if services > 10_000 { Bound::Below(COLD_MS) } else { Bound::None };
    let rewritten = value["rewritten"].as_f64().context("rewritten")?;
    Ok(vec![
        figure(size, "cold start to last store", "ms", numbers(&value["starts"]), cold),
        figure(size, "event to kernel, p50", "us", by_round(50), Bound::None),
        figure(size, "event to kernel, p99", "us", by_round(99), Bound::Below(CHANGE_US)),
        figure(size, "writes of a restart", "ops", vec![rewritten], Bound::Below(1.0)),
    ])
}

/// The daemon as it is run in a cluster, each start with empty maps; and then one with full ones.
fn whole(programs: &Path, services: usize, endpoints: usize) -> Result<Vec<Figure>> {
    let options = || Options { programs: Some(programs.to_owned()), log: "warn", ..Options::default() };
    let mut ready = Vec::new();
    let (mut cold, mut anonymous, mut again) = (Vec::new(), Vec::new(), Vec::new());
    let mut rewritten = Vec::new();
    for _ in 0..STARTS {
        let node = Node::create(options())?;
        let (_server, kubeconfig) = serve_cluster(&node, services, endpoints)?;
        let begun = Instant::now();
        let mut daemon = node.spawn_daemon_from("--kubeconfig", &kubeconfig)?;
        daemon.await_ready_within(PATIENCE)?;
        ready.push(begun.elapsed().as_secs_f64() * 1e3);
        // A daemon of a cluster is scraped.
        daemon.fetch("/metrics")?;
        cold.push(megabytes(daemon.id(), "VmHWM")?);
        anonymous.push(megabytes(daemon.id(), "RssAnon")?);
        daemon.terminate()?;
        let mut daemon = node.spawn_daemon_from("--kubeconfig", &kubeconfig)?;
        daemon.await_ready_within(PATIENCE)?;
        rewritten.push(daemon.metric("fairway_proxy_operations_total", "")?);
        again.push(megabytes(daemon.id(), "VmHWM")?);
        daemon.terminate()?;
    }
    let size = (services, endpoints);
    let bound = || if services > 10_000 { Bound::None } else { Bound::Below(MEMORY_MB) };
    Ok(vec![
        figure(size, "API server to ready", "ms", ready, Bound::None),
        figure(size, "memory at most (VmHWM)", "MB", cold, bound()),
        figure(size, "of that anonymous (RssAnon)", "MB", anonymous, Bound::None),
        figure(size, "memory at most, restarted", "MB", again, bound()),
        figure(size, "writes of its restart", "ops", rewritten, Bound::Below(1.0)),
    ])
}

fn figure(
    (services, endpoints): (usize, usize),
    metric: &'static str,
    unit: &'static str,
    rounds: Vec<f64>,
    bound: Bound,
) -> Figure {
    let case = format!("{services} x {endpoints}");
    Figure { bench: "control", case, metric, unit, value: median(&rounds), versus: "", rounds, bound }
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().into_iter().flatten().filter_map(Value::as_f64).collect()
}

/// A line of a process' status, in millions of octets.
fn megabytes(pid: u32, name: &str) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let text = line.with_context(|| format!("/proc/{pid}/status has no {name}"))?;
    let kilobytes: f64 = text.trim_end_matches("kB").trim().parse().context("a number of kB")?;
    Ok(kilobytes * 1024.0 / 1e6)
}

/// An API server with such a cluster, and the kubeconfig that leads to it.
fn serve_cluster(node: &Node, services: usize, endpoints: usize) -> Result<(Background, PathBuf)> {
    let folder = node.folder().join("api");
    std::fs::create_dir_all(&folder)?;
    let put = |kind: &str, count: usize, item: &dyn Fn(usize) -> Value| {
        let lines: Vec<String> = (0..count).map(|n| item(n).to_string()).collect();
        std::fs::write(folder.join(format!("{kind}.jsonl")), lines.join("\n"))
    };
    put("services", services, &service)?;
    put("endpointslices", services, &|n| slice(n, endpoints))?;
    put("nodes", 1, &|_| {
        json!({
            "metadata": {"name": "node-a", "uid": "node-a", "resourceVersion": "1"},
            "status": {"addresses": [{"type": "InternalIP", "address": ::tests::NODE4}]},
        })
    })?;
    let server = node.serve_api(API_SERVER, &folder)?;
    let kubeconfig = node.folder().join("kubeconfig");
    std::fs::write(
        &kubeconfig,
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: 'http://{API_SERVER}'}}}}]\n\
             users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        ),
    )?;
    Ok((server, kubeconfig))
}

/// As the API server writes one, without what no cluster needs to have.
fn service(n: usize) -> Value {
    let ip = format!("10.{}.{}.{}", 8 + n / 62_500, n / 250 % 250, n % 250);
    json!({
        "metadata": {
            "name": format!("service-{n}"), "namespace": format!("team-{}", n % 100), "resourceVersion": "1",
            "uid": format!("8c6c2f0a-0000-4000-8000-{n:012}"), "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app.kubernetes.io/name": format!("service-{n}")},
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "internalTrafficPolicy": "Cluster", "sessionAffinity": "None",
            "selector": {"app.kubernetes.io/name": format!("service-{n}")},
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
        },
        "status": {"loadBalancer": {}},
    })
}

fn slice(n: usize, endpoints: usize) -> Value {
    let name = format!("service-{n}");
    let endpoint = |k: usize| {
        let host = n * endpoints + k;
        let pod = format!("{name}-7d9c5b6f4-{k:05}");
        let address = format!("10.{}.{}.{}", 16 + host / 62_500, host / 250 % 250, host % 250);
        json!({
            "addresses": [address], "conditions": {"ready": true, "serving": true, "terminating": false},
            "nodeName": format!("node-{}", host % 1000), "zone": format!("zone-{}", host % 3),
            "targetRef": {"kind": "Pod", "namespace": format!("team-{}", n % 100), "name": pod, "uid": pod},
        })
    };
    json!({
        "metadata": {
            "name": format!("{name}-x7k2p"), "namespace": format!("team-{}", n % 100), "resourceVersion": "1",
            "uid": format!("1f6c2f0a-0000-4000-8000-{n:012}"), "generateName": format!("{name}-"),
            "labels": {
                "kubernetes.io/service-name": name,
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": 8080}],
        "endpoints": (0..endpoints).map(endpoint).collect::<Vec<_>>(),
    })
}

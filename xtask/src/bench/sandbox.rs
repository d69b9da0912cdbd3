//! A pod's network made and taken away by our plug-in, beside the stock plug-ins ptp, host-local and portmap in a chain, as
//! a container runtime runs them: each a process with the configuration on its standard input.
//!
//! Each round makes one pod with either, on one node with a running daemon; what is timed is from the start of the
//! first process to the end of the last.

use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use ::tests::{Node, Options};
use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::{Value, json};

use super::figure::{Bound, Figure, median, quantile};
use super::report::Report;
use crate::image;

const ROUNDS: u32 = 21;
/// Rounds of what takes the stock plug-ins seconds.
const SLOW_ROUNDS: u32 = 15;
/// What a node runs at most, by default.
const PODS_AT_ONCE: u32 = 110;
const STOCK: &str = "/usr/lib/cni";
const STOCK_RANGE: &str = "10.245.1.0/24";
const DNS: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 0, 10), 53);
const ADD_BOUND: f64 = 0.3;
const DEL_BOUND: f64 = 0.7;
/// IPv6 duplicate address detection is what the others wait for.
const DUAL_BOUND: f64 = 0.05;

/// Whose plug-ins.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Whose {
    Ours,
    Stock,
}

/// One way of making pods on a node.
struct Runtime<'a> {
    node: &'a Node,
    whose: Whose,
    plug_in: &'a Path,
    dual: bool,
}

/// A network namespace that goes when it is dropped.
struct Pod(String);

/// One pair of samples by round: ours and theirs, in seconds.
#[derive(Default)]
struct Samples {
    ours: Vec<f64>,
    stock: Vec<f64>,
}

/// Measures everything.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    ensure!(
        Path::new(STOCK).join("ptp").is_file(),
        "{STOCK}/ptp is not there: install the package containernetworking-plugins"
    );
    report.progress("building with optimisation (the first time takes minutes)");
    let plug_in = image::build("sandbox", "fairway-cni", "small")?;
    let fairway = super::build(&["build", "--release", "-p", "fairway", "-p", "tests", "--bins"], "fairway")?;
    let programs = fairway.parent().context("a program is in a folder")?.to_owned();
    // Pods of the stock plug-ins have addresses that the daemon does not know.
    let flags = ["--dns-allow", STOCK_RANGE].map(str::to_owned).to_vec();
    let mut node =
        Node::create(Options { programs: Some(programs), log: "warn", flags, ..Options::default() })?;
    node.start_daemon()?;
    for (case, dual, rounds) in [("IPv4", false, ROUNDS), ("dual stack", true, SLOW_ROUNDS)] {
        report.progress(&format!("sandbox: {case}, {rounds} rounds of ADD and DEL"));
        let (add, delete) = one_by_one(&node, &plug_in, dual, rounds)?;
        report.tell(add.figures(case, ["ADD p50", "ADD p99"], if dual { DUAL_BOUND } else { ADD_BOUND }));
        report.tell(delete.figures(case, ["DEL p50", "DEL p99"], DEL_BOUND));
    }
    report.progress(&format!("sandbox: first DNS answer, {ROUNDS} rounds"));
    report.tell([first_answer(&node, &plug_in)?.figure("IPv4", "ADD to DNS answer", Bound::None)]);
    report.progress(&format!("sandbox: {PODS_AT_ONCE} pods at once, {SLOW_ROUNDS} rounds"));
    report.tell([at_once(&node, &plug_in)?.figure("110 at once", "ADD of all", Bound::None)]);
    Ok(())
}

fn one_by_one(node: &Node, plug_in: &Path, dual: bool, rounds: u32) -> Result<(Samples, Samples)> {
    let (mut add, mut delete) = (Samples::default(), Samples::default());
    for round in 0..rounds {
        for whose in turns(round) {
            let runtime = Runtime { node, whose, plug_in, dual };
            let pod = Pod::new(node, whose, 0)?;
            let started = Instant::now();
            runtime.add(&pod)?;
            add.push(whose, started.elapsed());
            let started = Instant::now();
            runtime.delete(&pod)?;
            delete.push(whose, started.elapsed());
        }
    }
    Ok((add, delete))
}

fn first_answer(node: &Node, plug_in: &Path) -> Result<Samples> {
    let mut samples = Samples::default();
    for round in 0..ROUNDS {
        for whose in turns(round) {
            let runtime = Runtime { node, whose, plug_in, dual: false };
            let pod = Pod::new(node, whose, 0)?;
            let started = Instant::now();
            runtime.add(&pod)?;
            within(&pod.path(), ask)?;
            samples.push(whose, started.elapsed());
            runtime.delete(&pod)?;
        }
    }
    Ok(samples)
}

fn at_once(node: &Node, plug_in: &Path) -> Result<Samples> {
    let mut samples = Samples::default();
    for round in 0..SLOW_ROUNDS {
        for whose in turns(round) {
            let runtime = Runtime { node, whose, plug_in, dual: false };
            let pods: Vec<Pod> =
                (0..PODS_AT_ONCE).map(|number| Pod::new(node, whose, number)).collect::<Result<_>>()?;
            let started = Instant::now();
            in_parallel(&pods, |pod| runtime.add(pod))?;
            samples.push(whose, started.elapsed());
            in_parallel(&pods, |pod| runtime.delete(pod))?;
        }
    }
    Ok(samples)
}

/// Who begins takes turns.
fn turns(round: u32) -> [Whose; 2] {
    if round.is_multiple_of(2) { [Whose::Ours, Whose::Stock] } else { [Whose::Stock, Whose::Ours] }
}

fn in_parallel(pods: &[Pod], work: impl Fn(&Pod) -> Result<()> + Sync) -> Result<()> {
    std::thread::scope(|scope| {
        let running: Vec<_> = pods.iter().map(|pod| scope.spawn(|| work(pod))).collect();
        running.into_iter().try_for_each(|thread| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

/// Asks for a name of the cluster until an answer comes.
fn ask() -> Result<()> {
    // One question: kubernetes.default.svc.cluster.local, type A, class IN.
    let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["kubernetes", "default", "svc", "cluster", "local"] {
        question.push(u8::try_from(label.len())?);
        question.extend(label.as_bytes());
    }
    question.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(20)))?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        // No route yet is an error of the call, and no answer yet one of the next.
        if socket.send_to(&question, DNS).is_ok() && socket.recv(&mut [0; 512]).is_ok() {
            return Ok(());
        }
    }
    bail!("no answer within 10 s")
}

impl Runtime<'_> {
    fn add(&self, pod: &Pod) -> Result<()> {
        let results = self.chain().iter().try_fold(Value::Null, |before, plug_in| {
            let mut config = plug_in.clone();
            config["prevResult"] = before;
            let answer = self.run("ADD", pod, &config)?;
            serde_json::from_slice(&answer.stdout).context("a plug-in answers in JSON")
        })?;
        ensure!(results["ips"].is_array(), "the pod has no address: {results}");
        Ok(())
    }

    fn delete(&self, pod: &Pod) -> Result<()> {
        self.chain().iter().rev().try_for_each(|plug_in| self.run("DEL", pod, plug_in).map(drop))
    }

    fn chain(&self) -> Vec<Value> {
        let ranges = |four: &str, six: &str| match self.dual {
            true => vec![four.to_owned(), six.to_owned()],
            false => vec![four.to_owned()],
        };
        let common = |kind: &str| json!({"cniVersion": "1.0.0", "name": "bench", "type": kind});
        if self.whose == Whose::Ours {
            let mut config = common("fairway-cni");
            config["podCidrs"] = json!(ranges("10.244.1.0/24", "fd00:244:1::/64"));
            config["bpfDir"] = json!(self.node.bpf_dir());
            // As the daemon writes it into the list of plug-ins.
            config["mtu"] = json!(1500);
            return vec![config];
        }
        let mut ptp = common("ptp");
        let subnets = ranges(STOCK_RANGE, "fd00:245:1::/64");
        let subnets: Vec<Value> = subnets.iter().map(|subnet| json!([{"subnet": subnet}])).collect();
        let routes = ranges("0.0.0.0/0", "::/0");
        let routes: Vec<Value> = routes.iter().map(|route| json!({"dst": route})).collect();
        let data = self.node.folder().join("host-local");
        ptp["ipam"] = json!({"type": "host-local", "dataDir": data, "ranges": subnets, "routes": routes});
        vec![ptp, common("portmap")]
    }

    fn run(&self, command: &str, pod: &Pod, config: &Value) -> Result<Output> {
        let kind = config["type"].as_str().unwrap_or_default();
        let program = match self.whose {
            Whose::Ours => self.plug_in.to_owned(),
            Whose::Stock => Path::new(STOCK).join(kind),
        };
        let mut process = Command::new(&program);
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        process.env("CNI_COMMAND", command).env("CNI_CONTAINERID", &pod.0).env("CNI_IFNAME", "eth0");
        process.env("CNI_NETNS", pod.path()).env("CNI_PATH", STOCK);
        let mut child = within(&self.node.namespace(), || Ok(process.spawn()?))?;
        child.stdin.take().context("stdin is piped")?.write_all(config.to_string().as_bytes())?;
        let output = child.wait_with_output()?;
        ensure!(
            output.status.success(),
            "{kind} {command}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(output)
    }
}

/// Does something in a network namespace, on a thread that ends with it.
fn within<T: Send>(namespace: &Path, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    let file = File::open(namespace).with_context(|| format!("no namespace {}", namespace.display()))?;
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            work()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

impl Pod {
    fn new(node: &Node, whose: Whose, number: u32) -> Result<Self> {
        let mark = if whose == Whose::Ours { 'o' } else { 's' };
        let pod = Self(format!("{}-{mark}{number}", node.name()));
        let made = Command::new("ip").args(["netns", "add", &pod.0]).status().context("cannot start ip")?;
        ensure!(made.success(), "ip netns add {} failed", pod.0);
        Ok(pod)
    }

    fn path(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.0)
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.0]).status();
    }
}

impl Samples {
    fn push(&mut self, whose: Whose, took: Duration) {
        match whose {
            Whose::Ours => self.ours.push(took.as_secs_f64()),
            Whose::Stock => self.stock.push(took.as_secs_f64()),
        }
    }

    /// The median, held to a bound, and the slowest of a hundred, which is told.
    fn figures(&self, case: &str, names: [&'static str; 2], bound: f64) -> [Figure; 2] {
        let slowest = |values: &[f64]| quantile(values, 99, 100);
        let mut tail = self.figure(case, names[1], Bound::None);
        tail.value = slowest(&self.ours) * 1000.0;
        tail.rounds = vec![slowest(&self.ours) / slowest(&self.stock)];
        [self.figure(case, names[0], Bound::Below(bound)), tail]
    }

    fn figure(&self, case: &str, metric: &'static str, bound: Bound) -> Figure {
        Figure {
            bench: "sandbox",
            case: case.to_owned(),
            metric,
            unit: "ms",
            value: median(&self.ours) * 1000.0,
            versus: "ptp, host-local, portmap",
            rounds: self.ours.iter().zip(&self.stock).map(|(ours, stock)| ours / stock).collect(),
            bound,
        }
    }
}

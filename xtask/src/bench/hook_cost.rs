//! What the hooks of a connection take, by the kernel's own statistics of programs (BPF_STATS), which add some
//! tens of nanoseconds to each run themselves. Asked of `bpftool`; without it the figures are left out.

use anyhow::{Context, Result};
use serde_json::Value;

use ::tests::{Kind, Node};

use super::figure::{Bound, Figure, median};

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
const ROUNDS: usize = 15;
/// Connections a round.
const COUNT: &str = "1000";
/// What connect() and close() of a connection through a service may take together.
const BOUND: f64 = 500.0;

/// Nanoseconds and runs of a hook so far.
struct Spent {
    nanos: f64,
    runs: f64,
}

/// Measures connections to `target`.
pub(super) fn measure(node: &Node, target: &str, size: usize) -> Result<Vec<Figure>> {
    if std::process::Command::new("bpftool").arg("version").output().is_err() {
        return Ok(Vec::new());
    }
    std::fs::write(SWITCH, "1").context("the statistics of programs cannot be switched on")?;
    let measured = rounds(node, target);
    std::fs::write(SWITCH, "0").context("the statistics of programs cannot be switched off")?;
    let (connect, release) = measured?;
    let both: Vec<f64> = std::iter::zip(&connect, &release).map(|(one, other)| one + other).collect();
    let figure = |metric, rounds: Vec<f64>, bound| Figure {
        bench: "sockets",
        case: format!("{size} services"),
        metric,
        unit: "ns",
        value: median(&rounds),
        versus: "",
        rounds,
        bound,
    };
    Ok(vec![
        figure("hook of connect()", connect, Bound::None),
        figure("hook of close()", release, Bound::None),
        figure("hooks of a connection", both, Bound::Below(BOUND)),
    ])
}

fn rounds(node: &Node, target: &str) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut connect, mut release) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let before = (spent(node, "connect4")?, spent(node, "release")?);
        // Only connections of this node's cgroup run the hooks: the probe's, and a few of the daemon.
        node.ask(Kind::Tcp, target, &["--count", COUNT])?.only_from(&["echo"])?;
        let after = (spent(node, "connect4")?, spent(node, "release")?);
        let each = |before: &Spent, after: &Spent| (after.nanos - before.nanos) / (after.runs - before.runs);
        connect.push(each(&before.0, &after.0));
        release.push(each(&before.1, &after.1));
    }
    Ok((connect, release))
}

fn spent(node: &Node, hook: &str) -> Result<Spent> {
    let pin = node.bpf_dir().join(format!("v1/link_{hook}"));
    let ask = |words: &[&str]| -> Result<Value> {
        let output = std::process::Command::new("bpftool").arg("--json").args(words).output()?;
        serde_json::from_slice(&output.stdout).with_context(|| format!("bpftool {}", words.join(" ")))
    };
    let link = ask(&["link", "show", "pinned", &pin.display().to_string()])?;
    let program = link["prog_id"].as_u64().context("a link has a program")?;
    let program = ask(&["prog", "show", "id", &program.to_string()])?;
    let number = |key: &str| program[key].as_f64().unwrap_or(0.0);
    Ok(Spent { nanos: number("run_time_ns"), runs: number("run_cnt") })
}

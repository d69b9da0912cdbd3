//! From an Event in memory to the last store in the kernel's maps, on a node with 10,000 services.
//!
//! The work is done by the program `control` of the package `tests`, which knows the proxy; this makes the
//! node around it and reads its times.

use std::path::Path;

use ::tests::{Node, Options};
use anyhow::{Context, Result};
use serde_json::Value;

use super::figure::{Bound, Figure, median, quantile};

/// A change of one endpoint must be in the kernel by then.
const BOUND_MICROS: f64 = 5000.0;

/// Measures the one case.
pub(crate) fn measure(progress: &dyn Fn(&str)) -> Result<Vec<Figure>> {
    progress("building the control bench with optimisation (the first time takes minutes)");
    let program = super::build(&["bench", "--no-run", "-p", "tests", "--bench", "control"], "control")?;
    progress("control: 10,000 services with 3 endpoints each, one endpoint changes");
    // No daemon and no probe is needed: any folder does.
    let programs = program.parent().map(Path::to_owned);
    let node = Node::create(Options { programs, ..Options::default() })?;
    let program = program.display().to_string();
    let (cgroup, pins) = (node.cgroup().display().to_string(), node.bpf_dir().display().to_string());
    let output = node.command(&[&program, &cgroup, &pins])?.success()?.stdout;
    let value: Value = serde_json::from_str(output.trim()).context("the bench prints JSON")?;
    let rounds: Vec<Vec<f64>> = value["rounds"]
        .as_array()
        .context("rounds")?
        .iter()
        .map(|round| round.as_array().into_iter().flatten().filter_map(Value::as_f64).collect())
        .collect();
    let figure = |metric, part, bound| {
        let by_round: Vec<f64> = rounds.iter().map(|round| quantile(round, part, 100)).collect();
        Figure {
            bench: "control",
            case: "10000 services".to_owned(),
            metric,
            unit: "us",
            value: median(&by_round),
            versus: "",
            rounds: by_round,
            bound,
        }
    };
    Ok(vec![
        figure("event to kernel, p50", 50, Bound::None),
        figure("event to kernel, p99", 99, Bound::Below(BOUND_MICROS)),
    ])
}

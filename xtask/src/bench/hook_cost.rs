//! What the hooks of a connection take, by the kernel's own statistics of programs (BPF_STATS). Those read a clock
//! twice in each run; how much that adds is told by an empty program beside each hook, and taken off.

use anyhow::Result;

use ::tests::{Kind, Node};

use super::figure::{Bound, Figure, median};
use super::programs::{Hook, Program, keep_statistics};

const ROUNDS: usize = 15;
/// Connections a round.
const COUNT: &str = "1000";
/// What connect() and close() of a connection through a service may take together.
const BOUND: f64 = 500.0;

/// A hook and the empty program beside it.
struct Pair {
    hook: Program,
    empty: Program,
}

/// Measures connections to `target`.
pub(super) fn measure(node: &Node, target: &str, size: usize) -> Result<Vec<Figure>> {
    let _statistics = keep_statistics()?;
    let pair = |hook, name: &str| -> Result<Pair> {
        let link = node.bpf_dir().join("v1").join(format!("link_{name}"));
        Ok(Pair { hook: Program::of_link(&link)?, empty: Program::empty(node.cgroup(), hook)? })
    };
    let pairs = [pair(Hook::CONNECT4, "connect4")?, pair(Hook::RELEASE, "release")?];
    let programs = pairs.iter().flat_map(|pair| [&pair.hook, &pair.empty]);
    let mut told: [Vec<f64>; 4] = Default::default();
    for _ in 0..ROUNDS {
        let before = programs.clone().map(Program::spent).collect::<Result<Vec<_>>>()?;
        // Only sockets of this node's cgroup run the hooks: the probe's, and a few of the daemon.
        node.ask(Kind::Tcp, target, &["--count", COUNT])?.only_from(&["echo"])?;
        for ((program, before), told) in programs.clone().zip(before).zip(&mut told) {
            told.push(program.spent()?.each_since(before));
        }
    }
    let [connect, empty_connect, release, empty_release] = told;
    let added: Vec<f64> = (0..ROUNDS)
        .map(|round| connect[round] - empty_connect[round] + release[round] - empty_release[round])
        .collect();
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
        figure("an empty one there", empty_connect, Bound::None),
        figure("hook of close()", release, Bound::None),
        figure("an empty one there", empty_release, Bound::None),
        figure("added by both hooks", added, Bound::Below(BOUND)),
    ])
}

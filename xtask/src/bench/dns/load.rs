//! What is asked, by dnsperf, and what of it is measured: answers by the processor time of the server's process,
//! and how long the slowest of a hundred takes.

use std::path::{Path, PathBuf};

use ::tests::Node;
use anyhow::{Context, Result, bail, ensure};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::super::figure::quantile;
use super::servers::Server;

pub(super) const SERVER_CORE: usize = 0;
const CLIENT_CORE: usize = 1;
/// How long a server is asked in one round.
pub(super) const SECONDS: &str = "1";
/// Questions a second while times are taken.
const CALM_RATE: &str = "10000";
/// External names that everybody has in the cache.
pub(super) const EXTERNAL_NAMES: usize = 500;
const QUESTIONS: usize = 10_000;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Case {
    /// Services that are there.
    Cluster,
    /// What a resolver tries below its search path first.
    Missing,
    /// External names that are in the cache.
    Cached,
}

/// What one round of one server came to.
#[derive(Clone)]
pub(super) struct Measured {
    pub(super) per_cpu_second: f64,
    pub(super) p99_micros: f64,
    pub(super) lost: f64,
}

impl Case {
    pub(super) const ALL: [Self; 3] = [Self::Cluster, Self::Missing, Self::Cached];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Cluster => "cluster names",
            Self::Missing => "NXDOMAIN",
            Self::Cached => "cached names",
        }
    }

    pub(super) fn concerns(self, server: &Server) -> bool {
        self != Self::Cached || server.forwards
    }

    fn name(self, n: usize, services: usize) -> String {
        // A prime larger than what follows from it: every name, in no order.
        let n = n * 7919;
        match self {
            Self::Cluster => format!("s{}.bench.svc.cluster.local", n % services),
            Self::Missing => format!("www{}.example.com.bench.svc.cluster.local", n % QUESTIONS),
            Self::Cached => format!("h{}.example", n % EXTERNAL_NAMES),
        }
    }
}

/// One sentence about what is not installed.
pub(super) fn require_programs() -> Result<()> {
    let missing: Vec<&str> = [
        ("/usr/bin/dnsperf", "dnsperf"),
        ("/usr/sbin/unbound", "unbound"),
        ("/usr/sbin/knotd", "knot"),
        ("/usr/sbin/dnsmasq", "dnsmasq-base"),
    ]
    .into_iter()
    .filter(|(path, _)| !Path::new(path).exists())
    .map(|(_, package)| package)
    .collect();
    if missing.is_empty() {
        return Ok(());
    }
    bail!("the dns bench measures beside other servers: `apt-get install {}`", missing.join(" "))
}

/// Runs something whose processes are to stay on the server's core.
pub(super) fn on_server_core<T>(run: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = sched_getaffinity(None)?;
    ensure!(before.is_set(CLIENT_CORE), "this bench needs two cores, for the server and for who asks");
    let mut core = CpuSet::new();
    core.set(SERVER_CORE);
    sched_setaffinity(None, &core)?;
    let done = run();
    sched_setaffinity(None, &before)?;
    done
}

/// The file of questions of a case.
pub(super) fn questions(node: &Node, case: Case, services: usize) -> Result<PathBuf> {
    let path = node.folder().join("questions");
    let count = if case == Case::Cached { EXTERNAL_NAMES } else { QUESTIONS };
    let text: String = (0..count).map(|n| format!("{} A\n", case.name(n, services))).collect();
    std::fs::write(&path, text)?;
    Ok(path)
}

/// Asks one server as fast as it answers, then at a rate that none of them is hard put by.
pub(super) fn ask(node: &Node, server: &Server, questions: &Path) -> Result<Measured> {
    let before = cpu_nanos(server.process)?;
    let said = dnsperf(node, server, questions, &["-l", SECONDS, "-q", "200"])?;
    let spent = cpu_nanos(server.process)? - before;
    let answers = number(&said, "Queries completed:")?;
    let calm = dnsperf(node, server, questions, &["-l", SECONDS, "-Q", CALM_RATE, "-v"])?;
    Ok(Measured {
        per_cpu_second: answers * 1e9 / spent as f64,
        p99_micros: p99(&calm)?,
        lost: number(&said, "Queries lost:")?,
    })
}

fn dnsperf(node: &Node, server: &Server, questions: &Path, more: &[&str]) -> Result<String> {
    let (core, file) = (CLIENT_CORE.to_string(), questions.display().to_string());
    let mut words = vec!["taskset", "-c", &core, "dnsperf", "-s", server.address, "-d", &file];
    // A question that is lost is waited for, in which time nothing else is asked.
    words.extend(["-c", "8", "-S", "0", "-t", "1"]);
    words.extend(more);
    Ok(node.command(&words)?.success()?.stdout)
}

pub(super) fn external_ip(n: usize) -> String {
    format!("203.0.{}.{}", n / 250, n % 250 + 1)
}

/// The processor time of a process, with that of threads that have ended; its unit is 10 ms.
fn cpu_nanos(process: u32) -> Result<u64> {
    const TICK_NANOS: u64 = 10_000_000;
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).context("the server has gone")?;
    let after_name = text.rsplit_once(')').map(|(_, rest)| rest).unwrap_or_default();
    let ticks: Vec<u64> =
        after_name.split_ascii_whitespace().skip(11).take(2).filter_map(|word| word.parse().ok()).collect();
    ensure!(ticks.len() == 2, "/proc/{process}/stat is {text}");
    Ok(ticks.iter().sum::<u64>() * TICK_NANOS)
}

/// The number after a title in what dnsperf says.
fn number(said: &str, title: &str) -> Result<f64> {
    let line = said.lines().find_map(|line| line.trim().strip_prefix(title));
    let word = line.and_then(|line| line.split_ascii_whitespace().next());
    word.and_then(|word| word.parse().ok()).with_context(|| format!("dnsperf said no {title} but {said}"))
}

/// The time of the slowest hundredth, from lines like `> NOERROR name A 0.000123`.
fn p99(said: &str) -> Result<f64> {
    let answers = said.lines().filter(|line| line.starts_with("> "));
    let seconds = answers.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
    let micros: Vec<f64> = seconds.map(|seconds| seconds * 1e6).collect();
    ensure!(!micros.is_empty(), "dnsperf told no times but {said}");
    Ok(quantile(&micros, 99, 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "  Queries sent:         1000\n  Queries completed:    990 (99.00%)\n  Queries lost:         10 (1.00%)\n\
                        > NOERROR a. A 0.000123\n> NXDOMAIN b. A 0.000100\n";

    #[test]
    fn what_dnsperf_says_is_read() {
        assert_eq!(number(SAID, "Queries completed:").unwrap(), 990.0);
        assert_eq!(number(SAID, "Queries lost:").unwrap(), 10.0);
        assert!((p99(SAID).unwrap() - 123.0).abs() < 0.01);
        assert!(p99("nothing").is_err());
    }

    #[test]
    fn every_service_is_asked_for() {
        let names: std::collections::BTreeSet<_> =
            (0..QUESTIONS).map(|n| Case::Cluster.name(n, 10_000)).collect();
        assert_eq!(names.len(), 10_000);
    }
}

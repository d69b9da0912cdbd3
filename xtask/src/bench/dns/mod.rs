//! Names: questions per second of one core beside unbound, dnsmasq and Knot, which serve the same names from local
//! data; all on the same core, one after the other in every round, asked by dnsperf from another core.
//!
//! What is measured is the processor time of the server's process, so that nobody wins by what is idle.

mod load;
mod servers;

use ::tests::{Node, Options, until};
use anyhow::{Context, Result, ensure};

use super::figure::{Bound, Figure, median};
use super::report::Report;
use super::sockets::manifests;
use load::{Case, Measured};
use servers::Servers;

const SERVICES: usize = 10_000;
const ROUNDS: usize = 15;
/// Questions lost by a server that is well but hard put: some have small buffers.
const FEW: f64 = 100.0;
/// The rate is that of the fastest of the others, give or take what cannot be measured.
const BOUND: f64 = 1.0;

/// Measures every case.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    load::require_programs()?;
    report.progress("building fairway with optimisation (the first time takes minutes)");
    let fairway = super::build(&["build", "--release", "-p", "fairway", "-p", "tests", "--bins"], "fairway")?;
    let options = Options {
        manifests: manifests(SERVICES)?,
        programs: Some(fairway.parent().context("a program is in a folder")?.to_owned()),
        flags: ["--dns-stub-domain", servers::UPSTREAM].map(str::to_owned).to_vec(),
        log: "info",
        ..Options::default()
    };
    let mut node = Node::create(options)?;
    load::on_server_core(|| node.start_daemon())?;
    let servers = Servers::start(&mut node, SERVICES)?;
    for case in Case::ALL {
        report.progress(&format!("dns: {}, {ROUNDS} rounds of {} s each", case.title(), load::SECONDS));
        let asked = load::questions(&node, case, SERVICES)?;
        let rivals = servers.all().iter().filter(|server| case.concerns(server)).collect::<Vec<_>>();
        for server in &rivals {
            until("the server to answer", || {
                let measured = load::ask(&node, server, &asked)?;
                ensure!(measured.lost < FEW, "{} lost {} questions", server.name, measured.lost);
                Ok(())
            })?;
        }
        let mut rounds: Vec<Vec<Measured>> = vec![Vec::new(); rivals.len()];
        for _ in 0..ROUNDS {
            for (server, measured) in rivals.iter().zip(&mut rounds) {
                measured.push(load::ask(&node, server, &asked)?);
            }
        }
        let names: Vec<&'static str> = rivals.iter().map(|server| server.name).collect();
        report.tell(judge(case, &names, &rounds));
    }
    Ok(())
}

/// The first server is ours. Each of the others gets its line, and the fastest of them sets the bound.
fn judge(case: Case, names: &[&'static str], rounds: &[Vec<Measured>]) -> Vec<Figure> {
    let rates = |at: usize| rounds[at].iter().map(|measured| measured.per_cpu_second).collect::<Vec<_>>();
    let late = |at: usize| rounds[at].iter().map(|measured| measured.p99_micros).collect::<Vec<_>>();
    let ratios =
        |ours: &[f64], theirs: &[f64]| ours.iter().zip(theirs).map(|(a, b)| a / b).collect::<Vec<_>>();
    let fastest = (1..names.len()).max_by(|a, b| median(&rates(*a)).total_cmp(&median(&rates(*b))));
    let mut figures = Vec::new();
    for (other, name) in names.iter().enumerate().skip(1) {
        let bound = match case {
            Case::Cluster | Case::Missing if Some(other) == fastest => Bound::AtLeast(BOUND),
            Case::Cluster | Case::Missing | Case::Cached => Bound::None,
        };
        let figure = |metric, unit, values: (Vec<f64>, Vec<f64>), bound| Figure {
            bench: "dns",
            case: case.title().to_owned(),
            metric,
            unit,
            value: median(&values.0),
            versus: name,
            rounds: ratios(&values.0, &values.1),
            bound,
        };
        figures.push(figure("questions/CPU s", "/s", (rates(0), rates(other)), bound));
        figures.push(figure("p99", "us", (late(0), late(other)), Bound::None));
    }
    figures
}

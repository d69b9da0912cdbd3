//! `cargo xtask bench`: figures with their interval, measured beside something else in the same run.
//!
//! A figure is the median over rounds with its 95 % bootstrap interval, and holds if the interval reaches the
//! bound. Release builds; never part of `cargo xtask test`, as a busy machine would fail it.

mod control;
mod dns;
mod figure;
mod hook_cost;
mod kube_proxy;
mod packets;
mod programs;
mod report;
mod sandbox;
mod sockets;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::{setup, workspace};
use report::Report;

/// What to measure.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Which bench.
    name: Name,
    /// One line of JSON for each figure, for machines.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Name {
    /// Connections and datagrams through a ClusterIP, beside the endpoint itself and nftables.
    Sockets,
    /// Clients outside to node ports, beside plain routing to the pod and nftables.
    Packets,
    /// From an Event in memory to the last store in the kernel's maps; the whole daemon's start and memory.
    Control,
    /// Questions per second of one core, beside other DNS servers with the same names.
    Dns,
    /// A pod's network made and taken away, beside the stock CNI plug-ins.
    Sandbox,
    /// Every bench.
    All,
}

/// Measures and judges.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure()?;
    let mut report = Report::new(arguments.json);
    let is_wanted = |name| arguments.name == name || arguments.name == Name::All;
    if is_wanted(Name::Sockets) {
        sockets::measure(&mut report)?;
    }
    if is_wanted(Name::Packets) {
        packets::measure(&mut report)?;
    }
    if is_wanted(Name::Control) {
        control::measure(&mut report)?;
    }
    if is_wanted(Name::Dns) {
        dns::measure(&mut report)?;
    }
    if is_wanted(Name::Sandbox) {
        sandbox::measure(&mut report)?;
    }
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds with optimisation, and returns the file of the wanted program.
fn build(arguments: &[&str], program: &str) -> Result<PathBuf> {
    workspace::executable(&workspace::build(workspace::cargo().args(arguments))?, program)
}

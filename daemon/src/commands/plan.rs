//! `fairway plan`: what would be programmed and answered for a folder of manifests, and why. Reads files, touches
//! nothing, needs no privileges.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use dns::Names;
use model::Cluster;
use proxy::{Facts as PlanFacts, Planner};

use crate::app::manifests_cluster;
use crate::cli::RunArgs;
use crate::facts::{self, Facts};
use crate::names::zone_config;
use crate::network;
use crate::source::manifests;
use crate::views::standing;

/// Prints tables, why each endpoint is in or out, and zone; the problems of the folder go to standard error, and make the exit code 1.
///
/// # Errors
/// One sentence about the options or the folder.
pub(super) fn plan(args: &RunArgs) -> Result<ExitCode> {
    let folder =
        args.source.manifests.as_ref().context("say which folder to plan for with --manifests DIR")?;
    let node = Facts::read(&args.node)?;
    let (events, problems) = manifests::load(folder, &manifests_cluster(args, &node))?;
    let mut cluster = Cluster::new();
    for event in events {
        cluster.apply(event);
    }
    let snapshot = cluster.snapshot();
    let cluster_dns = facts::cluster_dns(args, &snapshot).value;
    let planned = PlanFacts {
        zone: snapshot.nodes.get(node.node_name.value.as_str()).and_then(|node| node.zone.clone()),
        name: node.node_name.value.as_str().into(),
        addresses: node.node_ips.value.clone(),
        node_port_addresses: network::node_port_addresses(args, &node, &snapshot)?
            .unwrap_or_else(|| node.node_ips.value.clone()),
        cluster_dns: cluster_dns.clone(),
    };
    let mut planner = Planner::new(planned.clone());
    let tables = planner.update(&snapshot, &planned).clone();
    let why = standing::reasons(&planner, &tables, &snapshot, &planned);
    let mut names = Names::new(zone_config(args, &cluster_dns, &node.pod_cidrs(&snapshot).value)?);
    names.learn(&Arc::clone(&snapshot), &Default::default());
    super::print(&format!("{}\n{why}\n{}", tables.dump(), names.reader().zone().dump()))?;
    for problem in &problems {
        eprintln!("fairway: {problem}");
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

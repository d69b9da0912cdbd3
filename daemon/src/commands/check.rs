//! `fairway check`: what this kernel and machine offer, what is missing, and where each fact of the node came
//! from. Changes nothing; with `--live` the running daemon examines itself.

use std::process::ExitCode;

use anyhow::{Context, Result};
use model::Snapshot;
use proxy::Blindness;

use crate::admin::client::fetch;
use crate::cli::{CheckArgs, PacketPath, RunArgs, Switch};
use crate::facts::Facts;
use crate::network;
use crate::views::findings::{self, FindingRow};

/// Prints one line a requirement; the exit code is 1 if one is not met.
///
/// # Errors
/// One sentence about the options.
pub(super) fn check(args: &CheckArgs) -> Result<ExitCode> {
    if args.live { live(&args.run) } else { offered(&args.run) }
}

fn live(args: &RunArgs) -> Result<ExitCode> {
    let body = fetch(&args.place.run_dir, "/examine")?;
    let rows: Vec<FindingRow> = serde_json::from_str(&body).context("the daemon is of another version")?;
    super::print(&(findings::lines(&rows).join("\n") + "\n"))?;
    Ok(if rows.iter().all(|row| row.well) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn offered(args: &RunArgs) -> Result<ExitCode> {
    let facts = Facts::read(&args.node)?;
    let mut lines = vec![
        format!("node name           {} (from: {})", facts.node_name.value, facts.node_name.origin),
        format!("node IPs            {}", facts.node_ips),
        format!("node ports at       {}", node_ports(args, &facts)?),
        format!("pod ranges          {}", facts.pod_cidrs),
        format!("cgroup              {} (from: {})", facts.cgroup.value.display(), facts.cgroup.origin),
        format!("packet engine       {}", packet_engine(args, &facts)?),
    ];
    let mut missing = 0;
    for check in proxy::check(&facts.cgroup.value, &args.place.bpf_dir) {
        missing += usize::from(check.found.is_err());
        lines.push(match check.found {
            Ok(found) => format!("{:18}  {found}", check.what),
            Err(sentence) => format!("{:18}  MISSING: {sentence}", check.what),
        });
    }
    lines.extend(unseen_pods(&facts));
    lines.push(match missing {
        0 => "everything that Fairway needs is there".to_owned(),
        count => format!("missing: {count}"),
    });
    super::print(&(lines.join("\n") + "\n"))?;
    Ok(if missing == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Where node ports answer, besides loopback.
fn node_ports(args: &RunArgs, facts: &Facts) -> Result<String> {
    // The cluster is not asked: what a daemon found there, it noted.
    let Some(addresses) = network::node_port_addresses(args, facts, &Snapshot::default())? else {
        return Ok("the node IPs".to_owned());
    };
    if addresses.is_empty() {
        return Ok("loopback alone: no address of this node is in --nodeport-addresses".to_owned());
    }
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    Ok(format!("{} (from: option)", addresses.join(", ")))
}

/// Where the packet engine works, and how it is attached there.
fn packet_engine(args: &RunArgs, facts: &Facts) -> Result<String> {
    let packets = &args.network.packets;
    if packets.packets == Switch::Off {
        return Ok("off (from: option)".to_owned());
    }
    let links = sandbox::uplinks(&packets.uplink, &facts.node_ips.value)?;
    let names: Vec<&str> = links.iter().map(|link| link.name.as_str()).collect();
    let path = match packets.packet_path {
        PacketPath::Stack => "through the host's stack",
        PacketPath::Redirect => "past the host's stack",
    };
    Ok(format!("{} at {}, {path}", proxy::LinkPath::probe().as_str(), names.join(", ")))
}

/// The pods of this node some of whose packets no hook sees: no service of a ClusterIP for them.
fn unseen_pods(facts: &Facts) -> Vec<String> {
    let cgroup = &facts.cgroup.value;
    let pods = sandbox::attachments().map_err(anyhow::Error::from);
    let found = pods.and_then(|pods| Ok((pods, proxy::blind_spots(cgroup)?)));
    let (pods, unseen) = match found {
        Ok(found) => found,
        Err(error) => return vec![format!("{:18}  cannot be looked at: {error:#}", "pods unseen")],
    };
    let line = |pod: &sandbox::Attachment| {
        let why = match unseen.get(&pod.cookie)? {
            Blindness::Cgroup { process, cgroup: other } => format!(
                "its sockets reach no ClusterIP: process {process} is in the cgroup {other}, which is not below {}",
                cgroup.display()
            ),
            Blindness::OwnPackets { process } => format!(
                "process {process} makes packets itself, as a virtual machine does: those reach no ClusterIP"
            ),
        };
        let addresses: Vec<String> = pod.addresses.iter().map(ToString::to_string).collect();
        let name = pod.pod.as_ref().map_or_else(|| addresses.join(", "), ToString::to_string);
        Some(format!("{:18}  UNSEEN: {name}: {why}", "pod"))
    };
    pods.iter().filter_map(line).collect()
}

//! What the node's own network needs around the daemon: its DNS addresses on `lo`, forwarding, the masquerade
//! rule, and the pods map filled from the links that are there. Blocking and quick; called at the start, and by
//! `fairway cleanup`. What is kept up afterwards is the keeper's.

mod cni;
mod keeper;
mod surroundings;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ipnet::IpNet;
use model::Snapshot;
use sandbox::{ClusterDns, DnsPolicy, Masquerade, NodeRoutes, RoutedNode};

use crate::cli::{PlaceArgs, RunArgs};
use crate::facts::{self, Facts};

pub(crate) use keeper::{Keeper, Metrics};

/// In the run directory: the addresses that this daemon put on `lo`, one a line, for `fairway cleanup`.
const LOOPBACK_FILE: &str = "loopback-addresses";

/// The DNS addresses on `lo`. Those that were not there before are taken away again unless the start goes well.
#[derive(Debug)]
pub(crate) struct Prepared {
    added: Vec<IpAddr>,
    file: PathBuf,
}

impl Prepared {
    /// Puts `addresses` on `lo`.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn new(place: &PlaceArgs, addresses: &[IpAddr]) -> Result<Self> {
        let present = sandbox::local_addresses().context("cannot read this node's addresses")?;
        let added: Vec<IpAddr> = addresses.iter().filter(|ip| !present.contains(ip)).copied().collect();
        let prepared = Self { added, file: place.run_dir.join(LOOPBACK_FILE) };
        let noted = noted(&place.run_dir)?.into_iter().chain(prepared.added.iter().copied());
        let lines: String = noted.map(|ip| format!("{ip}\n")).collect();
        std::fs::write(&prepared.file, lines)
            .with_context(|| format!("cannot write {}", prepared.file.display()))?;
        sandbox::add_loopback_addresses(addresses).context("cannot put the DNS addresses on lo")?;
        Ok(prepared)
    }

    /// The start went well.
    pub(crate) fn keep(mut self) {
        self.added.clear();
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // The way out of a failed start: its error is the one to show.
        let _ = sandbox::remove_loopback_addresses(&self.added);
    }
}

/// What the network of the node is made from and does not change while the daemon runs.
#[derive(Debug)]
pub(crate) struct Settled {
    /// The options.
    pub(crate) args: RunArgs,
    /// What they leave open.
    pub(crate) facts: Facts,
    /// The addresses on which names are answered.
    pub(crate) dns: Vec<IpAddr>,
}

/// Lets pods reach the world and tells the data plane whose namespace is whose.
///
/// # Errors
/// One sentence.
fn open(settled: &Settled, snapshot: &Snapshot) -> Result<()> {
    let args = &settled.args;
    let pod_cidrs = settled.facts.pod_cidrs(snapshot).value;
    // A container may not write /proc/sys. The plug-in, which runs on the node, may; till then the keeper tells it.
    let _ = sandbox::enable_forwarding(&pod_cidrs);
    masquerade(settled, snapshot, &pod_cidrs).apply().context("cannot install the masquerade rule")?;
    for attachment in sandbox::attachments().context("cannot list the links of sandboxes")? {
        sandbox::tell(&args.place.bpf_dir, &attachment).context("cannot fill the map of pods")?;
    }
    Ok(())
}

/// Which packets of pods get the node's address, where nftables does it: those to anything but pods, nodes and the
/// ranges of the options.
fn masquerade(settled: &Settled, snapshot: &Snapshot, pod_cidrs: &[IpNet]) -> Masquerade {
    Masquerade {
        // The packet engine does it where it runs.
        pods: if surroundings::is_on(settled) { Vec::new() } else { pod_cidrs.to_vec() },
        direct: direct(settled, snapshot),
        dns: settled.dns.clone(),
    }
}

/// Where node ports answer (R16): never at what is on `lo` for names alone, by these options or those of a daemon
/// before. None for the addresses of the node.
///
/// # Errors
/// If the addresses cannot be read.
pub(crate) fn node_port_addresses(
    args: &RunArgs,
    facts: &Facts,
    snapshot: &Snapshot,
) -> Result<Option<Vec<IpAddr>>> {
    let mut dns = facts::dns_addresses(args, snapshot);
    dns.extend(noted(&args.place.run_dir)?);
    facts.node_port_addresses(&args.node, &dns)
}

/// What pods reach with their own addresses: nodes, their pods, and the ranges of the options.
fn direct(settled: &Settled, snapshot: &Snapshot) -> Vec<IpNet> {
    let own = settled.facts.node_ips.value.iter().map(|ip| IpNet::from(*ip));
    let nodes = snapshot.nodes.values().flat_map(|node| {
        let addresses = node.addresses.iter().map(|ip| IpNet::from(*ip));
        addresses.chain(node.pod_cidrs.iter().copied())
    });
    let direct: Vec<IpNet> =
        own.chain(nodes).chain(settled.args.node.no_masquerade.iter().copied()).collect();
    // Of thousands of nodes with neighbouring ranges a few remain.
    IpNet::aggregate(&direct)
}

impl Settled {
    /// This node as the others see it: by its Node object, where it says.
    fn own_node(&self, snapshot: &Snapshot, pod_cidrs: &[IpNet]) -> RoutedNode {
        let name = &self.facts.node_name.value;
        let told = snapshot.nodes.get(name.as_str()).map(|node| node.addresses.clone()).unwrap_or_default();
        let addresses = if told.is_empty() { self.facts.node_ips.value.clone() } else { told };
        RoutedNode { name: name.clone(), addresses, pod_cidrs: pod_cidrs.to_vec() }
    }
}

/// Takes away what [`open`], [`Prepared`] and the keeper made.
///
/// # Errors
/// One sentence; what could be removed is.
pub(crate) fn close(run_dir: &Path) -> Result<()> {
    // First, so that no runtime begins with another pod.
    cni::remove(run_dir)?;
    sandbox::remove_masquerade().context("cannot remove the masquerade rule")?;
    NodeRoutes::default().apply().context("cannot remove the routes to other nodes")?;
    sandbox::remove_loopback_addresses(&noted(run_dir)?).context("cannot take the DNS addresses from lo")?;
    for attachment in sandbox::attachments().context("cannot list the links of sandboxes")? {
        // The pins went before, so there is no map entry to take along.
        sandbox::detach(&attachment.container_id, &attachment.ifname, None)
            .context("cannot detach a sandbox")?;
    }
    match std::fs::remove_file(run_dir.join(LOOPBACK_FILE)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).context("cannot tidy the run directory")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The resolv.conf of the node's real upstreams, for pods that use the node's names.
pub(crate) fn upstream_resolv_conf() -> String {
    let node = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let resolved = std::fs::read_to_string("/run/systemd/resolve/resolv.conf").ok();
    let (config, left_out) = sandbox::upstreams(&node, resolved.as_deref());
    if let Some(line) = left_out {
        tracing::info!("{line}");
    }
    let nobody = ClusterDns { addresses: &[], domain: "", namespace: "" };
    sandbox::resolv_conf(DnsPolicy::Default, false, nobody, &config, None)
}

fn noted(run_dir: &Path) -> Result<Vec<IpAddr>> {
    let path = run_dir.join(LOOPBACK_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

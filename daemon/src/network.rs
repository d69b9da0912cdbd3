//! What the node's own network needs around the daemon: its DNS addresses on `lo`, forwarding, the masquerade
//! rule, and the pods map filled from the links that are there. Blocking and quick; called at the start, and by
//! `fairway cleanup`.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ipnet::IpNet;
use sandbox::{ClusterDns, DnsPolicy, Masquerade};

use crate::cli::{PlaceArgs, RunArgs};
use crate::facts::Facts;

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

/// Lets pods reach the world and tells the data plane whose namespace is whose.
///
/// # Errors
/// One sentence.
pub(crate) fn open(args: &RunArgs, facts: &Facts, pod_cidrs: &[IpNet], dns: &[IpAddr]) -> Result<()> {
    sandbox::enable_forwarding(pod_cidrs).context("cannot let this node forward for its pods")?;
    let nodes = facts.node_ips.value.iter().map(|ip| IpNet::from(*ip));
    let masquerade = Masquerade {
        pods: pod_cidrs.to_vec(),
        direct: nodes.chain(args.node.no_masquerade.iter().copied()).collect(),
        dns: dns.to_vec(),
    };
    masquerade.apply().context("cannot install the masquerade rule")?;
    for attachment in sandbox::attachments().context("cannot list the links of sandboxes")? {
        sandbox::tell(&args.place.bpf_dir, &attachment).context("cannot fill the map of pods")?;
    }
    Ok(())
}

/// Takes away what [`open`] and [`Prepared`] made.
///
/// # Errors
/// One sentence; what could be removed is.
pub(crate) fn close(run_dir: &Path) -> Result<()> {
    sandbox::remove_masquerade().context("cannot remove the masquerade rule")?;
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

//! The facts of this node that the options leave open, and where each came from. Read once at the start;
//! `fairway check` prints them.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use model::{Node, ObjectName, Snapshot};

use crate::cli::{NodeArgs, NodePortRange, RunArgs};

/// A value and where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact<T> {
    /// The value.
    pub value: T,
    /// Where it came from, for a person.
    pub origin: &'static str,
}

/// What is known of this node before the cluster has been heard.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Its name.
    pub node_name: Fact<String>,
    /// Its addresses, the primary one of each family first.
    pub node_ips: Fact<Vec<IpAddr>>,
    /// The ranges of its pods' addresses, where the options say.
    pub pod_cidrs: Fact<Vec<IpNet>>,
    /// Its cgroup of the v2 hierarchy.
    pub cgroup: Fact<PathBuf>,
}

/// The address of a service range that is the cluster DNS IP by custom, as kubeadm has it.
const DNS_OFFSET: u32 = 10;
/// Every directory of a v2 hierarchy has it.
const CGROUP2_FILE: &str = "cgroup.controllers";
const FROM_OPTION: &str = "option";

impl Facts {
    /// Reads what the options leave open from the machine.
    ///
    /// # Errors
    /// One sentence that names the option which helps.
    pub fn read(args: &NodeArgs) -> Result<Self> {
        Ok(Self {
            node_name: node_name(args)?,
            node_ips: node_ips(args)?,
            pod_cidrs: Fact { value: args.pod_cidr.clone(), origin: pod_cidr_origin(args) },
            cgroup: cgroup(args)?,
        })
    }

    /// The Node object that stands for these facts, where no API server has one.
    pub fn node(&self) -> Node {
        Node {
            name: self.node_name.value.as_str().into(),
            zone: None,
            addresses: self.node_ips.value.clone(),
            pod_cidrs: self.pod_cidrs.value.clone(),
            leaving: false,
        }
    }

    /// Where node ports answer (R16), as this machine's addresses are now; None for the addresses of the node.
    /// No range chooses those of `dns`, on `lo` for names alone: they are the cluster's, or the same on every node.
    ///
    /// # Errors
    /// If the addresses cannot be read.
    pub fn node_port_addresses(&self, args: &NodeArgs, dns: &[IpAddr]) -> Result<Option<Vec<IpAddr>>> {
        if args.nodeport_addresses == [NodePortRange::Primary] {
            return Ok(None);
        }
        let local = sandbox::local_addresses().context("cannot read this node's addresses")?;
        let is_chosen = |ip: &IpAddr| {
            let is_own = self.node_ips.value.contains(ip);
            args.nodeport_addresses.iter().any(|range| match range {
                NodePortRange::Primary => is_own,
                NodePortRange::Range(range) => {
                    range.contains(ip) && !ip.is_loopback() && (is_own || !dns.contains(ip))
                }
            })
        };
        Ok(Some(local.into_iter().filter(is_chosen).collect()))
    }

    /// The pod ranges: the option, else those of the Node object.
    pub fn pod_cidrs(&self, snapshot: &Snapshot) -> Fact<Vec<IpNet>> {
        let node = snapshot.nodes.get(self.node_name.value.as_str());
        match node {
            Some(node) if self.pod_cidrs.value.is_empty() => {
                Fact { value: node.pod_cidrs.clone(), origin: "Node object" }
            }
            Some(_) | None => self.pod_cidrs.clone(),
        }
    }
}

/// The cluster DNS addresses: the option, else those of kube-system/kube-dns, else the tenth of each range.
pub fn cluster_dns(args: &RunArgs, snapshot: &Snapshot) -> Fact<Vec<IpAddr>> {
    if !args.names.cluster_dns.is_empty() {
        return Fact { value: args.names.cluster_dns.clone(), origin: FROM_OPTION };
    }
    let service = snapshot.services.get(&ObjectName::new("kube-system", "kube-dns"));
    let addresses = service.map(|member| member.service.cluster_ips()).unwrap_or_default();
    if !addresses.is_empty() {
        return Fact { value: addresses.to_vec(), origin: "Service kube-system/kube-dns" };
    }
    let tenth = args.source.service_cidr.iter().map(|range| nth(range.network(), DNS_OFFSET));
    Fact { value: tenth.collect(), origin: "tenth address of --service-cidr" }
}

/// The addresses on `lo` on which this node answers names.
pub fn dns_addresses(args: &RunArgs, snapshot: &Snapshot) -> Vec<IpAddr> {
    let mut addresses = cluster_dns(args, snapshot).value;
    addresses.extend(&args.names.dns_local);
    addresses
}

fn node_name(args: &NodeArgs) -> Result<Fact<String>> {
    if let Some(name) = &args.node_name {
        return Ok(Fact { value: name.clone(), origin: FROM_OPTION });
    }
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .context("cannot read the host name; say --node-name")?;
    Ok(Fact { value: name.trim().to_lowercase(), origin: "host name" })
}

fn node_ips(args: &NodeArgs) -> Result<Fact<Vec<IpAddr>>> {
    if !args.node_ip.is_empty() {
        return Ok(Fact { value: args.node_ip.clone(), origin: FROM_OPTION });
    }
    let found = sandbox::node_addresses().context("cannot read this node's addresses; say --node-ip")?;
    if found.is_empty() {
        bail!("this node has no address besides loopback; say which one is its own with --node-ip");
    }
    Ok(Fact { value: found, origin: "interface of the default route" })
}

const fn pod_cidr_origin(args: &NodeArgs) -> &'static str {
    if args.pod_cidr.is_empty() { "Node object" } else { FROM_OPTION }
}

fn cgroup(args: &NodeArgs) -> Result<Fact<PathBuf>> {
    if let Some(path) = &args.cgroup {
        // A DaemonSet cannot know whether a node is hybrid: there the v2 hierarchy is below that of v1.
        let unified = path.join("unified");
        let is_hybrid = !path.join(CGROUP2_FILE).exists() && unified.join(CGROUP2_FILE).exists();
        return Ok(Fact { value: if is_hybrid { unified } else { path.clone() }, origin: FROM_OPTION });
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    match cgroup2_mount(&mounts) {
        Some(path) => Ok(Fact { value: path.to_owned(), origin: "cgroup v2 mount" }),
        None => bail!(
            "no cgroup v2 hierarchy is mounted: mount one with `mount -t cgroup2 none /sys/fs/cgroup/unified`, or name it with --cgroup"
        ),
    }
}

fn cgroup2_mount(mounts: &str) -> Option<&Path> {
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then_some(Path::new(path))
    })
}

fn nth(network: IpAddr, offset: u32) -> IpAddr {
    match network {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip).wrapping_add(offset)).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip).wrapping_add(offset.into())).into()),
    }
}

impl<T: fmt::Debug> fmt::Display for Fact<Vec<T>>
where
    T: fmt::Display,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: Vec<String> = self.value.iter().map(ToString::to_string).collect();
        write!(
            f,
            "{} (from: {})",
            if words.is_empty() { "none".to_owned() } else { words.join(", ") },
            self.origin
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_v2_hierarchy_is_found_in_hybrid_and_in_unified_mode() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\ncgroup /sys/fs/cgroup/cpu cgroup rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(cgroup2_mount(hybrid), Some(Path::new("/sys/fs/cgroup/unified")));
        assert_eq!(
            cgroup2_mount("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"),
            Some(Path::new("/sys/fs/cgroup"))
        );
        assert_eq!(cgroup2_mount("proc /proc proc rw 0 0\n"), None);
    }

    #[test]
    fn the_tenth_address_is_counted_from_the_network() {
        let range: IpNet = "10.96.0.0/16".parse().unwrap();
        assert_eq!(nth(range.network(), DNS_OFFSET).to_string(), "10.96.0.10");
        let range: IpNet = "fd00:10::/112".parse().unwrap();
        assert_eq!(nth(range.network(), DNS_OFFSET).to_string(), "fd00:10::a");
    }
}

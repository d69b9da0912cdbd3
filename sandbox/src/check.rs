//! CHECK and STATUS: whether an attachment is still whole, and whether the next one can be made. They change
//! nothing. Called by the CNI plug-in.

use std::io;
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;

use crate::attach::{ranges_used, taken};
use crate::attachment::{Attachment, LINK_GROUP, link_name};
use crate::bpf::{MapError, heartbeat, programs_run};
use crate::clock::monotonic;
use crate::maps::is_told;
use crate::namespace::{NamespaceError, NetworkNamespace};
use crate::netlink::{HostRoute, Link, Netlink, NetlinkError};
use crate::node::{OUTSIDE4, OUTSIDE6};
use crate::range::{RangeError, candidates};

/// The daemon says ten times a second that it answers. This is long enough for its restart.
const HEARTBEAT_VALID: Duration = Duration::from_secs(10);

/// What an attachment that was looked at still has.
#[derive(Debug, Default)]
pub struct Findings {
    /// What the record says, where it can be read.
    pub attachment: Option<Attachment>,
    /// What is missing, for people.
    pub missing: Vec<String>,
}

/// An attachment could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The pod's namespace is unusable.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The kernel did not answer.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The map of the kernel programs did not answer.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// Why the next pod could not be attached, or the attached ones are not served.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No address can be taken.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// The daemon has ended or hangs.
    #[error("the daemon does not answer: its heartbeat has stopped")]
    Heartbeat,
    /// Nothing balances for the pods that are there.
    #[error("the kernel programs are gone")]
    Programs,
    /// The pins could not be looked at.
    #[error("looking at the kernel programs: {0}")]
    Pins(#[from] io::Error),
    /// The kernel did not answer.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Looks for everything that ADD made, from the network namespace of the calling thread.
pub fn check(
    namespace: &NetworkNamespace,
    container_id: &str,
    ifname: &str,
    bpf_dir: Option<&Path>,
) -> Result<Findings, CheckError> {
    let mut node = Netlink::open()?;
    let name = link_name(container_id, ifname);
    let mut findings = Findings::default();
    let link = match node.link(&name) {
        Ok(link) if link.is_veth && link.group == LINK_GROUP => link,
        Err(error) if !error.is_missing() => return Err(error.into()),
        Ok(_) | Err(_) => {
            findings.missing.push(format!("link {name}"));
            return Ok(findings);
        }
    };
    let Some(attachment) = Attachment::of(&link) else {
        findings.missing.push(format!("alias of link {name}"));
        return Ok(findings);
    };
    if !link.is_up {
        findings.missing.push(format!("link {name} is down"));
    }
    let routes = node.host_routes()?;
    let lost = |address: &&_| !routes.contains(&HostRoute { address: **address, link: link.index });
    findings.missing.extend(attachment.addresses.iter().filter(lost).map(|ip| format!("route of {ip}")));
    findings.missing.extend(missing_inside(namespace, &attachment)?);
    if let Some(bpf_dir) = bpf_dir
        && !is_told(bpf_dir, &attachment)?
    {
        findings.missing.push("entry in the map of pods".to_owned());
    }
    findings.attachment = Some(attachment);
    Ok(findings)
}

fn missing_inside(namespace: &NetworkNamespace, attachment: &Attachment) -> Result<Vec<String>, CheckError> {
    if namespace.cookie()? != attachment.cookie {
        return Ok(vec!["network namespace: it is not the one that was attached".to_owned()]);
    }
    let ifname = &attachment.ifname;
    let mut pod = Netlink::open_in(namespace)?;
    let link = match pod.link(ifname) {
        Ok(link) => link,
        Err(error) if error.is_missing() => return Ok(vec![format!("link {ifname} in the pod")]),
        Err(error) => return Err(error.into()),
    };
    if !link.is_up {
        return Ok(vec![format!("link {ifname} in the pod is down")]);
    }
    let mut missing = Vec::new();
    let addresses = pod.addresses()?;
    for ip in &attachment.addresses {
        if !addresses.iter().any(|(index, address, _)| *index == link.index && address == ip) {
            missing.push(format!("address {ip} on {ifname} in the pod"));
        }
        let (outside, family) = if ip.is_ipv4() { (OUTSIDE4, "IPv4") } else { (OUTSIDE6, "IPv6") };
        if pod.source_towards(outside)?.is_none() {
            missing.push(format!("default {family} route in the pod"));
        }
    }
    Ok(missing)
}

/// Whether an ADD would find addresses in `ranges`, and whether what `bpf_dir` holds is alive.
pub fn status(ranges: &[IpNet], bpf_dir: Option<&Path>) -> Result<(), StatusError> {
    if let Some(bpf_dir) = bpf_dir {
        if !programs_run(bpf_dir)? {
            return Err(StatusError::Programs);
        }
        let beat = heartbeat(bpf_dir)?.unwrap_or_default();
        if monotonic().saturating_sub(beat) > HEARTBEAT_VALID {
            return Err(StatusError::Heartbeat);
        }
    }
    let ranges = ranges_used(ranges);
    if ranges.is_empty() {
        return Err(RangeError::None.into());
    }
    let mut node = Netlink::open()?;
    let links: Vec<Link> = node.veths()?;
    let mut taken = taken(&mut node, &links)?;
    taken.extend(node.host_routes()?.into_iter().map(|route| route.address));
    match ranges.into_iter().find(|range| candidates(*range, 0).all(|ip| taken.contains(&ip))) {
        Some(full) => Err(RangeError::Full(full.trunc()).into()),
        None => Ok(()),
    }
}

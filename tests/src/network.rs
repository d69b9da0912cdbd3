//! The network around a node: its namespace with an uplink, and outside a router and a host beyond it.
//!
//! The outside knows no route to the pods, so a pod's packet comes back only if it was masqueraded.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::node::{NODE4, NODE6};

/// The router on the node's link.
pub const ROUTER4: &str = "192.0.2.1";
/// The router on the node's link.
pub const ROUTER6: &str = "2001:db8:2::1";
/// A host beyond the router.
pub const OUTSIDE4: &str = "198.51.100.1";
/// A host beyond the router.
pub const OUTSIDE6: &str = "2001:db8:51::1";

/// Two namespaces and the link between them. Both go when it is dropped.
#[derive(Debug)]
pub(crate) struct Network {
    /// The name of the node's namespace.
    pub node: String,
    /// The name of the namespace outside.
    pub outside: String,
}

impl Network {
    /// Makes both namespaces.
    ///
    /// # Errors
    /// A command of iproute2 failed.
    pub(crate) fn create(name: &str) -> Result<Self> {
        let network = Self { node: name.to_owned(), outside: format!("{name}-out") };
        ip(&["netns", "add", &network.node])?;
        ip(&["netns", "add", &network.outside])?;
        let (node, outside) = (&network.node, &network.outside);
        ip(&["-n", node, "link", "add", "uplink", "type", "veth", "peer", "name", "node", "netns", outside])?;
        let node6 = format!("{NODE6}/64");
        let node4 = format!("{NODE4}/24");
        let (router4, router6) = (format!("{ROUTER4}/24"), format!("{ROUTER6}/64"));
        let (host4, host6) = (format!("{OUTSIDE4}/32"), format!("{OUTSIDE6}/128"));
        let addresses = [
            (node, "uplink", &node4),
            (node, "uplink", &node6),
            (outside, "node", &router4),
            (outside, "node", &router6),
            (outside, "lo", &host4),
            (outside, "lo", &host6),
        ];
        for (namespace, link, address) in addresses {
            let mut words = vec!["-n", namespace, "address", "add", address, "dev", link];
            if address.contains(':') {
                // Duplicate address detection would cost two seconds.
                words.push("nodad");
            }
            ip(&words)?;
        }
        for (namespace, link) in [(node, "lo"), (node, "uplink"), (outside, "lo"), (outside, "node")] {
            ip(&["-n", namespace, "link", "set", link, "up"])?;
        }
        ip(&["-n", node, "route", "add", "default", "via", ROUTER4])?;
        ip(&["-n", node, "-6", "route", "add", "default", "via", ROUTER6])?;
        Ok(network)
    }

    /// Gives the node's loopback another address. Twice is fine: two servers may share one.
    ///
    /// # Errors
    /// It is no address.
    pub(crate) fn add_to_loopback(&self, address: &str) -> Result<()> {
        let single = if address.contains(':') { format!("{address}/128") } else { format!("{address}/32") };
        let mut words = vec!["-n", &self.node, "address", "replace", &single, "dev", "lo"];
        if address.contains(':') {
            // Even here an IPv6 address is tentative until a kernel thread has looked at it.
            words.push("nodad");
        }
        ip(&words)
    }

    /// The file of the node's namespace.
    pub(crate) fn node_path(&self) -> PathBuf {
        path(&self.node)
    }

    /// The file of the namespace outside.
    pub(crate) fn outside_path(&self) -> PathBuf {
        path(&self.outside)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for (name, path) in [(&self.node, self.node_path()), (&self.outside, self.outside_path())] {
            // More than once: a second Ctrl-C ends `ip` as well.
            for _ in 0..3 {
                if path.exists() {
                    let _ = ip(&["netns", "delete", name]);
                }
            }
        }
    }
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

/// Runs `ip`.
///
/// # Errors
/// What it said.
pub(crate) fn ip(words: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(words).output().context("cannot start ip (package iproute2)")?;
    if output.status.success() {
        return Ok(());
    }
    bail!("ip {}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim())
}

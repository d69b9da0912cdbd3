//! The network around a node: its namespace with an uplink, and outside a router and a host beyond it. Another node
//! can be put on the same link, or behind the router.
//!
//! The outside knows no route to the pods, so a pod's packet comes back only if it was masqueraded.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::node::Site;

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
    /// The namespace outside is another node's, and stays.
    is_guest: bool,
    /// The node has no IPv4.
    ipv6_only: bool,
}

/// Where another node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the first node's link.
    Beside,
    /// On another link of the router.
    Behind,
}

impl Network {
    /// Makes both namespaces.
    ///
    /// # Errors
    /// A command of iproute2 failed.
    pub(crate) fn create(name: &str, site: &Site, ipv6_only: bool) -> Result<Self> {
        let network =
            Self { node: name.to_owned(), outside: format!("{name}-out"), is_guest: false, ipv6_only };
        ip(&["netns", "add", &network.node])?;
        ip(&["netns", "add", &network.outside])?;
        let outside = &network.outside;
        settle(outside)?;
        network.plug("node", site)?;
        add_address(outside, "node", &format!("{}/24", site.router4))?;
        add_address(outside, "node", &format!("{}/64", site.router6))?;
        add_address(outside, "lo", &format!("{OUTSIDE4}/32"))?;
        add_address(outside, "lo", &format!("{OUTSIDE6}/128"))?;
        for link in ["lo", "node"] {
            ip(&["-n", outside, "link", "set", link, "up"])?;
        }
        network.add_default_routes(site)?;
        Ok(network)
    }

    /// Makes the namespace of another node, connected to the outside of this one.
    ///
    /// # Errors
    /// A command of iproute2 failed.
    pub(crate) fn join(&self, name: &str, (site, ipv6_only): (&Site, bool), place: Place) -> Result<Self> {
        let network =
            Self { node: name.to_owned(), outside: self.outside.clone(), is_guest: true, ipv6_only };
        let outside = &network.outside;
        ip(&["netns", "add", &network.node])?;
        network.plug("second", site)?;
        match place {
            Place::Beside => {
                ip(&["-n", outside, "link", "add", "lan", "type", "bridge"])?;
                for link in ["node", "second"] {
                    ip(&["-n", outside, "address", "flush", "dev", link, "scope", "global"])?;
                    ip(&["-n", outside, "link", "set", link, "master", "lan"])?;
                }
                add_address(outside, "lan", &format!("{}/24", site.router4))?;
                add_address(outside, "lan", &format!("{}/64", site.router6))?;
                ip(&["-n", outside, "link", "set", "lan", "up"])?;
            }
            Place::Behind => {
                add_address(outside, "second", &format!("{}/24", site.router4))?;
                add_address(outside, "second", &format!("{}/64", site.router6))?;
                let forward =
                    "echo 1 >/proc/sys/net/ipv4/ip_forward && echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
                ip(&["netns", "exec", outside, "sh", "-c", forward])?;
            }
        }
        ip(&["-n", outside, "link", "set", "second", "up"])?;
        network.add_default_routes(site)?;
        Ok(network)
    }

    /// Connects the node's uplink to a new link outside.
    fn plug(&self, link: &str, site: &Site) -> Result<()> {
        let (node, outside) = (&self.node, &self.outside);
        ip(&["-n", node, "link", "add", "uplink", "type", "veth", "peer", "name", link, "netns", outside])?;
        // Not for all links of the node: those of its pods are the daemon's to make right.
        settle_links(node, "uplink")?;
        if !self.ipv6_only {
            add_address(node, "uplink", &format!("{}/24", site.node4))?;
        }
        add_address(node, "uplink", &format!("{}/64", site.node6))?;
        for link in ["lo", "uplink"] {
            ip(&["-n", node, "link", "set", link, "up"])?;
        }
        Ok(())
    }

    fn add_default_routes(&self, site: &Site) -> Result<()> {
        if !self.ipv6_only {
            ip(&["-n", &self.node, "route", "add", "default", "via", site.router4])?;
        }
        ip(&["-n", &self.node, "-6", "route", "add", "default", "via", site.router6])
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
        let outside = (!self.is_guest).then(|| (&self.outside, self.outside_path()));
        for (name, path) in [(&self.node, self.node_path())].into_iter().chain(outside) {
            // More than once: a second Ctrl-C ends `ip` as well.
            for _ in 0..3 {
                if path.exists() {
                    let _ = ip(&["netns", "delete", name]);
                }
            }
        }
    }
}

/// Gives a link of a namespace an address that can be used at once.
///
/// # Errors
/// What `ip` said.
pub(crate) fn add_address(namespace: &str, link: &str, address: &str) -> Result<()> {
    let mut words = vec!["-n", namespace, "address", "add", address, "dev", link];
    if address.contains(':') {
        // Duplicate address detection would cost two seconds.
        words.push("nodad");
    }
    ip(&words)
}

/// Lets the link-local addresses of a namespace's links, too, be used at once, as those of machines that have long
/// been up: from a tentative one no neighbour is solicited, for up to two seconds.
///
/// # Errors
/// It cannot be written.
pub(crate) fn settle(namespace: &str) -> Result<()> {
    settle_links(namespace, "default")
}

/// As [`settle`], for one link.
fn settle_links(namespace: &str, link: &str) -> Result<()> {
    let write = format!("echo 0 >/proc/sys/net/ipv6/conf/{link}/accept_dad");
    ip(&["netns", "exec", namespace, "sh", "-c", &write])
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

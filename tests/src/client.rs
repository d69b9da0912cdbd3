//! A client outside of the cluster: a namespace of its own beyond the router, in no node's cgroup, so that its
//! packets reach the nodes as any stranger's. The router knows the way to what a test says.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::network::{add_address, ip, settle};
use crate::process::{self, Background, Finished};
use crate::{Answers, Flow, Kind, Node};

/// The client's address.
pub const CLIENT4: &str = "198.51.100.7";
/// The client's address.
pub const CLIENT6: &str = "2001:db8:51:7::7";
const ROUTER4: &str = "198.51.100.6";
const ROUTER6: &str = "2001:db8:51:7::6";

/// The client. Its namespace goes when it is dropped.
#[derive(Debug)]
pub struct Client {
    name: String,
    outside: String,
    probe: PathBuf,
}

impl Client {
    /// Puts a client behind the router of a node.
    ///
    /// # Errors
    /// A command of iproute2 failed.
    pub fn beyond(node: &Node) -> Result<Self> {
        let outside = node.outside().to_owned();
        let client = Self { name: format!("{}-cl", node.name()), outside, probe: node.probe().to_owned() };
        let (name, outside) = (&client.name, &client.outside);
        ip(&["netns", "add", name])?;
        settle(name)?;
        ip(&["-n", name, "link", "add", "eth", "type", "veth", "peer", "name", "client", "netns", outside])?;
        add_address(name, "eth", &format!("{CLIENT4}/31"))?;
        add_address(name, "eth", &format!("{CLIENT6}/64"))?;
        add_address(outside, "client", &format!("{ROUTER4}/31"))?;
        add_address(outside, "client", &format!("{ROUTER6}/64"))?;
        for (namespace, link) in [(name, "lo"), (name, "eth"), (outside, "client")] {
            ip(&["-n", namespace, "link", "set", link, "up"])?;
        }
        ip(&["-n", name, "route", "add", "default", "via", ROUTER4])?;
        ip(&["-n", name, "-6", "route", "add", "default", "via", ROUTER6])?;
        let forward =
            "echo 1 >/proc/sys/net/ipv4/ip_forward && echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
        ip(&["netns", "exec", outside, "sh", "-c", forward])?;
        Ok(client)
    }

    /// Tells the router to send a range to a node: what a load balancer or BGP would do.
    ///
    /// # Errors
    /// A command of iproute2 failed.
    pub fn route(&self, range: &str, node: &Node) -> Result<()> {
        let site = node.site();
        let via = if range.contains(':') { site.node6 } else { site.node4 };
        ip(&["-n", &self.outside, "route", "replace", range, "via", via])
    }

    /// Lets the router send a range by another of its links, which gets an address for that.
    ///
    /// # Errors
    /// A command of iproute2 failed.
    pub fn detour(&self, link: &str, address: &str, range: &str, via: &str) -> Result<()> {
        add_address(&self.outside, link, address)?;
        ip(&["-n", &self.outside, "link", "set", link, "up"])?;
        ip(&["-n", &self.outside, "route", "replace", range, "via", via])
    }

    /// Gives the client another address, to which the router knows the way.
    ///
    /// # Errors
    /// A command of iproute2 failed.
    pub fn also(&self, address: &str) -> Result<()> {
        ip(&["-n", &self.name, "address", "add", &format!("{address}/32"), "dev", "lo"])?;
        ip(&["-n", &self.outside, "route", "replace", address, "via", CLIENT4])
    }

    /// Sends a range to the client, which has none of its addresses: what comes for them ends there.
    ///
    /// # Errors
    /// A command of iproute2 failed.
    pub fn receive(&self, range: &str) -> Result<()> {
        ip(&["-n", &self.outside, "route", "replace", range, "via", CLIENT4])
    }

    /// Lets the router send the client no larger packets than this.
    ///
    /// # Errors
    /// A command of iproute2 failed.
    pub fn narrow(&self, mtu: &str) -> Result<()> {
        ip(&["-n", &self.outside, "link", "set", "client", "mtu", mtu])
    }

    /// Runs any program of the machine as the client.
    ///
    /// # Errors
    /// It could not be started or did not end.
    pub fn command(&self, words: &[&str]) -> Result<Finished> {
        let (program, arguments) = words.split_first().context("a program")?;
        let mut command = std::process::Command::new(program);
        command.args(arguments);
        process::finish(command, Some(&self.namespace()))
    }

    /// Connects or sends.
    ///
    /// # Errors
    /// The probe failed; that nobody answers is no failure.
    pub fn ask(&self, kind: Kind, target: &str, more: &[&str]) -> Result<Answers> {
        Answers::of(&self.probe, kind, target, more, |words| self.command(words))
    }

    /// Keeps a flow open; `words` follow `probe`.
    ///
    /// # Errors
    /// No connection.
    pub fn flow(&self, words: &[&str]) -> Result<Flow> {
        Flow::new(self.background(words)?)
    }

    /// Starts a probe that goes on.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn background(&self, words: &[&str]) -> Result<Background> {
        let mut command = std::process::Command::new(&self.probe);
        command.args(words);
        Background::start(command, Some(&self.namespace()))
    }

    /// The file of its network namespace.
    pub fn namespace(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

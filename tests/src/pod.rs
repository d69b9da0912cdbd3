//! Pods of a node, made by `fairway sandbox` as a person would: from a manifest file.
//!
//! A pod is deleted with its node; nothing is done when a `Pod` is dropped.

use std::fmt::Write as _;
use std::net::IpAddr;

use anyhow::{Context, Result};

use crate::process::{self, Background, Finished};
use crate::{Answers, Flow, Kind, Node};

/// A pod that runs.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name with its namespace: `shop/web-1`.
    pub name: String,
    /// Its addresses, IPv4 first.
    pub addresses: Vec<IpAddr>,
}

impl Pod {
    /// Runs the pod of a manifest and waits until its containers run.
    ///
    /// # Errors
    /// What `fairway sandbox run` said.
    pub fn run(node: &Node, name: &str, manifest: &str) -> Result<Self> {
        let file = node.folder().join(format!("pod-{}.yaml", name.replace('/', "-")));
        std::fs::write(&file, manifest)?;
        let file = file.display().to_string();
        node.fairway(&["sandbox", "run", "--detach", "--file", &file])?.success()?;
        let mut pod = Self { name: name.to_owned(), addresses: Vec::new() };
        let shown = pod.exec(node, &["ip", "-o", "address", "show", "scope", "global"])?.success()?.stdout;
        pod.addresses = shown
            .split_whitespace()
            .filter_map(|word| word.split_once('/'))
            .filter_map(|(address, _)| address.parse().ok())
            .collect();
        pod.addresses.sort();
        pod.addresses.first().with_context(|| format!("{name} has no address: {shown}"))?;
        Ok(pod)
    }

    /// Runs a pod whose one container answers with the pod's name on these named ports.
    ///
    /// # Errors
    /// What `fairway sandbox run` said.
    pub fn serve(
        node: &Node,
        name: &str,
        labels: &[(&str, &str)],
        ports: &[(&str, Kind, u16)],
    ) -> Result<Self> {
        let (namespace, short) = name.split_once('/').context("namespace/name")?;
        let mut command = vec![node.probe().display().to_string()];
        command.extend(["serve", "--name", short].map(str::to_owned));
        let mut written = String::new();
        for (port, kind, number) in ports {
            command.extend([format!("--{}", kind.word()), format!("[::]:{number}")]);
            let protocol = kind.word().to_uppercase();
            write!(written, "\n    - {{name: {port}, containerPort: {number}, protocol: {protocol}}}")?;
        }
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}: {value}")).collect();
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {short}\n  namespace: {namespace}\n  labels: {{{}}}\n\
             spec:\n  containers:\n  - name: server\n    image: none\n    command: {}\n    ports:{}\n",
            labels.join(", "),
            serde_json::to_string(&command)?,
            if written.is_empty() { " []".to_owned() } else { written },
        );
        Self::run(node, name, &manifest)
    }

    /// Runs a pod that only asks.
    ///
    /// # Errors
    /// What `fairway sandbox run` said.
    pub fn client(node: &Node, name: &str) -> Result<Self> {
        Self::serve(node, name, &[], &[])
    }

    /// Its IPv4 address.
    ///
    /// # Errors
    /// It has none.
    pub fn ip4(&self) -> Result<IpAddr> {
        self.addresses
            .iter()
            .copied()
            .find(IpAddr::is_ipv4)
            .with_context(|| format!("{} has no IPv4", self.name))
    }

    /// Runs a command inside it, to its end.
    ///
    /// # Errors
    /// It could not be started or did not end.
    pub fn exec(&self, node: &Node, words: &[&str]) -> Result<Finished> {
        let all: Vec<&str> =
            ["sandbox", "exec", self.name.as_str(), "--"].iter().chain(words).copied().collect();
        node.fairway(&all)
    }

    /// Connects or sends from inside it.
    ///
    /// # Errors
    /// The probe failed; that nobody answers is no failure.
    pub fn ask(&self, node: &Node, kind: Kind, target: &str, more: &[&str]) -> Result<Answers> {
        let probe = node.probe().display().to_string();
        let mut words = vec![probe.as_str(), kind.word(), target];
        words.extend(more);
        Answers::parse(&self.exec(node, &words)?.success()?.stdout)
    }

    /// Keeps a flow open from inside it; `words` follow `probe`.
    ///
    /// # Errors
    /// No connection.
    pub fn flow(&self, node: &Node, words: &[&str]) -> Result<Flow> {
        let mut command = process::in_cgroup(node.cgroup(), node.program());
        command.args(["sandbox", "exec", self.name.as_str()]).args(node.place_flags());
        command.arg("--").arg(node.probe()).args(words);
        Flow::new(Background::start(command, Some(&node.namespace()))?)
    }

    /// Starts another server inside it, which lives as long as what is returned.
    ///
    /// # Errors
    /// It does not listen.
    pub fn also_serve(&self, node: &Node, words: &[&str]) -> Result<Background> {
        let words: Vec<&str> = ["serve"].iter().chain(words).copied().collect();
        self.background(node, &words).context("it does not listen")
    }

    /// Starts the probe inside it, which lives as long as what is returned, and waits until it says something.
    ///
    /// # Errors
    /// It says nothing.
    pub fn background(&self, node: &Node, words: &[&str]) -> Result<Background> {
        let mut command = process::in_cgroup(node.cgroup(), node.program());
        command.args(["sandbox", "exec", self.name.as_str()]).args(node.place_flags());
        command.arg("--").arg(node.probe()).args(words);
        let mut probe = Background::start(command, Some(&node.namespace()))?;
        probe.read_line()?;
        Ok(probe)
    }

    /// Deletes it.
    ///
    /// # Errors
    /// What `fairway sandbox delete` said.
    pub fn delete(&self, node: &Node) -> Result<()> {
        node.fairway(&["sandbox", "delete", &self.name])?.success().map(drop)
    }
}

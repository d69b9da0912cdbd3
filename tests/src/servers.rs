//! What is started on a node or outside of it: servers that answer with their names, and any program. They end when
//! they are dropped, and with the node.

use std::path::Path;

use anyhow::{Context, Result};

use crate::process::{self, Background};
use crate::{Kind, Node};

impl Node {
    /// A server on an address that is added to the node's loopback: a backend without a pod around it.
    ///
    /// # Errors
    /// It could not listen.
    pub fn serve(&mut self, name: &str, addresses: &[&str], ports: &[(Kind, u16)]) -> Result<()> {
        let mut words = vec!["serve".to_owned(), "--name".to_owned(), name.to_owned()];
        for address in addresses {
            let host = if address.contains(':') { format!("[{address}]") } else { (*address).to_owned() };
            if !is_loopback(address) {
                self.network.add_to_loopback(address)?;
            }
            for (kind, port) in ports {
                words.extend([format!("--{}", kind.word()), format!("{host}:{port}")]);
            }
        }
        self.start_probe(&words, &self.namespace())
    }

    /// An API server on the node's loopback that answers from the files of a folder; see `probe api`.
    ///
    /// # Errors
    /// It could not listen.
    pub fn serve_api(&self, listen: &str, folder: &Path) -> Result<Background> {
        let mut command = process::in_cgroup(&self.cgroup, &self.probe);
        command.arg("api").arg(listen).arg(folder);
        let mut server = Background::start(command, Some(&self.namespace()))?;
        server.read_line().context("the API server does not listen")?;
        Ok(server)
    }

    /// Gives the node's loopback another address.
    ///
    /// # Errors
    /// It is no address.
    pub fn add_to_loopback(&self, address: &str) -> Result<()> {
        self.network.add_to_loopback(address)
    }

    /// Starts any program of the machine on the node; it ends when dropped.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn background(&self, words: &[&str]) -> Result<Background> {
        let (program, arguments) = words.split_first().context("a program")?;
        let mut command = process::in_cgroup(&self.cgroup, Path::new(program));
        command.args(arguments);
        Background::start(command, Some(&self.namespace()))
    }

    /// A server for benches on an address that is added to the node's loopback.
    ///
    /// # Errors
    /// It could not listen.
    pub fn echo(&mut self, listen: &str) -> Result<()> {
        let (address, _) = listen.rsplit_once(':').context("address:port")?;
        self.network.add_to_loopback(address)?;
        self.start_probe(&["echo".to_owned(), listen.to_owned()], &self.namespace())
    }

    /// A server outside: on the router or on the host beyond it.
    ///
    /// # Errors
    /// It could not start.
    pub fn serve_outside(&mut self, words: &[&str]) -> Result<()> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        self.start_probe(&words, &self.network.outside_path())
    }

    /// Ends every server that was started on this node or outside.
    pub fn stop_servers(&mut self) {
        self.background.clear();
    }

    fn start_probe(&mut self, words: &[String], namespace: &Path) -> Result<()> {
        let mut command = process::in_cgroup(&self.cgroup, &self.probe);
        command.args(words);
        let mut server = Background::start(command, Some(namespace))?;
        server.read_line().with_context(|| format!("`probe {}` does not listen", words.join(" ")))?;
        self.background.push(server);
        Ok(())
    }
}

fn is_loopback(address: &str) -> bool {
    address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

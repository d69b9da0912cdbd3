//! What the admin endpoint reads: handles on what the tasks publish, and nothing that it could change. Made once
//! by `app`; `admin::routes` asks it.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::{Context, Result, bail};
use ipnet::IpNet;
use model::Kind;
use prometheus_client::registry::Registry;
use sandbox::Settings;
use tokio::sync::{mpsc, oneshot, watch};

use crate::health::{Health, Status};
use crate::network;
use crate::processes;
use crate::source::{Problem, Reports};
use crate::step::{Progress, Query};
use crate::views::backends::{self, BackendRow};
use crate::views::connections::{self, ConnectionRow};
use crate::views::explain::{self, Explanation};
use crate::views::findings::{self, FindingRow};
use crate::views::names::{self, NameRow};
use crate::views::sandboxes::{self, SandboxRow};
use crate::views::services::{self, ServiceRow};
use crate::views::top::{self, ServiceSample};
use crate::views::upstreams::{self, UpstreamRow};

/// The handles.
pub struct State {
    /// How far the stepper has come.
    pub progress: watch::Receiver<Progress>,
    /// The names as they are answered now.
    pub zone: dns::Reader,
    /// Asks for names that are not of the cluster.
    pub forwarder: Arc<dns::Forwarder>,
    /// The way to the owner of the proxy.
    pub queries: mpsc::Sender<Query>,
    /// The connections through frontends.
    pub connections: proxy::Connections,
    /// What the sources could not take.
    pub reports: Reports,
    /// How this node is.
    pub health: Health,
    /// Every metric.
    pub registry: Registry,
    /// What is the same for every pod.
    pub node: NodeSettings,
}

/// What is the same for every pod of this node.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// The node's name.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The ranges of its pods' addresses.
    pub pod_cidrs: Vec<IpNet>,
    /// The cluster DNS addresses.
    pub cluster_dns: Vec<IpAddr>,
    /// The cluster domain.
    pub cluster_domain: String,
    /// The node's cgroup.
    pub cgroup: PathBuf,
    /// The directory of records.
    pub run_dir: PathBuf,
    /// The directory of pins.
    pub bpf_dir: PathBuf,
    /// The MTU of pods' links.
    pub mtu: u32,
}

impl State {
    /// What the daemon still waits for; None once names and tables reflect complete lists.
    pub fn waiting_for(&self) -> Option<&'static str> {
        let complete = self.progress.borrow().facts.is_some();
        (!complete).then_some("the first lists of Services, EndpointSlices and Nodes")
    }

    /// Every Service.
    pub fn services(&self) -> Vec<ServiceRow> {
        let progress = self.progress.borrow().clone();
        services::rows(&progress.snapshot, &progress.unprogrammed)
    }

    /// Every backend.
    ///
    /// # Errors
    /// If the daemon is ending.
    pub async fn backends(&self) -> Result<Vec<BackendRow>> {
        let states = self.ask(Query::Backends).await?;
        Ok(backends::rows(&states))
    }

    /// The counters of every service that has been used.
    ///
    /// # Errors
    /// If the kernel does not list the sockets' records, or the daemon is ending.
    pub async fn traffic(&self) -> Result<Vec<ServiceSample>> {
        let traffic = self.ask(Query::Traffic).await?.context("the kernel does not list the records")?;
        Ok(top::sample(&traffic))
    }

    /// Every connection through a frontend.
    ///
    /// # Errors
    /// If the kernel does not list sockets.
    pub async fn connections(&self) -> Result<Vec<ConnectionRow>> {
        let (handle, progress) = (self.connections.clone(), self.progress.borrow().clone());
        let listed = tokio::task::spawn_blocking(move || {
            let (found, unseen) = handle.list().context("the kernel does not list sockets")?;
            if let Some(reason) = unseen.reason {
                tracing::warn!(
                    namespaces = unseen.namespaces,
                    reason,
                    "connections of some pods are not listed"
                );
            }
            Ok(connections::rows(&found, &progress.snapshot, &progress.tables, &processes::by_socket()))
        });
        listed.await.context("the listing broke")?
    }

    /// The self-check, done now.
    ///
    /// # Errors
    /// If the daemon is ending.
    pub async fn examine(&self) -> Result<Vec<FindingRow>> {
        let findings = self.ask(Query::Examine).await?;
        Ok(findings::rows(&findings))
    }

    /// Every name.
    pub fn names(&self) -> Vec<NameRow> {
        names::rows(&self.zone.zone())
    }

    /// Every server that names are asked of.
    pub fn upstreams(&self) -> Vec<UpstreamRow> {
        upstreams::rows(&self.forwarder.states())
    }

    /// Every sandbox.
    ///
    /// # Errors
    /// The kernel does not list its links.
    pub fn sandboxes(&self) -> Result<Vec<SandboxRow>> {
        let mut rows = sandboxes::rows(&sandbox::records(&self.node.run_dir));
        rows.extend(sandboxes::attached(sandbox::attachments().context("cannot list the links of pods")?));
        Ok(rows)
    }

    /// What stands in the way of objects.
    pub fn problems(&self) -> Vec<Problem> {
        self.reports.list()
    }

    /// How this node is.
    pub fn health(&self) -> Status {
        self.health.status(SystemTime::now())
    }

    /// Where `target` leads for the client `from`.
    ///
    /// # Errors
    /// One sentence about what was asked.
    pub fn explain(&self, target: &str, from: Option<&str>) -> Result<Explanation> {
        let progress = self.progress.borrow().clone();
        let records = sandbox::records(&self.node.run_dir);
        explain::explain(&progress, &self.zone.zone(), &records, &explain::Request::parse(target, from)?)
    }

    /// What the runner of a pod in `namespace` needs.
    ///
    /// # Errors
    /// If the services have not been listed yet: their environment would be incomplete.
    pub fn settings(&self, namespace: &str, links: bool) -> Result<Settings> {
        let snapshot = self.progress.borrow().snapshot.clone();
        if !snapshot.listed.contains(Kind::Service) {
            bail!(
                "the services have not been listed yet, so a pod's environment would be incomplete; try again"
            );
        }
        let node = &self.node;
        Ok(Settings {
            node_name: node.name.clone(),
            node_addresses: node.addresses.clone(),
            pod_cidrs: node.pod_cidrs.clone(),
            cluster_dns: node.cluster_dns.clone(),
            cluster_domain: node.cluster_domain.clone(),
            cgroup: node.cgroup.clone(),
            bpf_dir: node.bpf_dir.clone(),
            mtu: node.mtu,
            resolv_conf: network::upstream_resolv_conf(),
            environment: sandbox::service_environment(&snapshot, namespace, links),
        })
    }

    /// All metrics as OpenMetrics text.
    ///
    /// # Errors
    /// If the daemon is ending.
    pub async fn metrics(&self) -> Result<String> {
        self.ask(Query::Refresh).await?;
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }

    async fn ask<T>(&self, query: impl FnOnce(oneshot::Sender<T>) -> Query) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.queries.send(query(reply)).await.ok().context("the daemon is ending")?;
        answer.await.context("the daemon is ending")
    }
}

//! The stepper: the one task that takes each new snapshot through the four phases, in which a name never
//! leads to an address that this node does not serve. DNS forgets, proxy grows, DNS learns, proxy shrinks.
//! It owns both sides, and answers the questions that only their owner can.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Result, bail};
use dns::Names;
use model::{ObjectName, Snapshot};
use proxy::{BackendState, Facts, Finding, HealthPorts, Outcome, Proxy, Surroundings, Tables, Traffic};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::block_in_place;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::health::{Health, Part};
use crate::reported::Reported;

/// How often the data plane examines itself. It costs a few hundred system calls.
const EXAMINE: Duration = Duration::from_secs(5);

/// How far the stepper has come; published after each snapshot.
#[derive(Clone, Debug, Default)]
pub struct Progress {
    /// The snapshot that names and tables reflect.
    pub snapshot: Arc<Snapshot>,
    /// What is in the kernel.
    pub tables: Tables,
    /// What this node is, as the tables were planned.
    pub facts: Option<Facts>,
    /// The health-check node ports to serve.
    pub health_ports: HealthPorts,
    /// The services that could not be programmed, with the reason.
    pub unprogrammed: BTreeMap<ObjectName, String>,
}

/// A question to the owner of the proxy.
#[derive(Debug)]
pub enum Query {
    /// Every backend with its counter.
    Backends(oneshot::Sender<Vec<BackendState>>),
    /// The connections of every service and backend, as of now.
    Traffic(oneshot::Sender<std::io::Result<Traffic>>),
    /// The self-check, done now.
    Examine(oneshot::Sender<Vec<Finding>>),
    /// The proxy's counters, brought up to date for the metrics.
    Refresh(oneshot::Sender<()>),
}

/// The stepper's own.
pub struct Stepper {
    /// The data plane.
    pub proxy: Proxy,
    /// The names.
    pub names: Names,
    /// Where it says how far it has come.
    pub progress: watch::Sender<Progress>,
    /// Told what has been applied.
    pub health: Health,
    /// The proxy's metrics.
    pub metrics: proxy::Metrics,
    /// Where the packet engine is: None where it is off.
    pub surroundings: watch::Receiver<Option<Surroundings>>,
    /// Marked when a hostPort may lead elsewhere than the sockets that use it go.
    pub handed_over: watch::Receiver<()>,
    /// What has been reported, so that each problem is told once.
    pub reported: Reported,
}

impl Stepper {
    /// Steps until `cancel`.
    ///
    /// # Errors
    /// If the snapshots end unasked.
    pub async fn run(
        mut self,
        mut snapshots: watch::Receiver<Arc<Snapshot>>,
        mut queries: mpsc::Receiver<Query>,
        cancel: CancellationToken,
    ) -> Result<()> {
        snapshots.mark_changed();
        let (mut surroundings, mut handed_over) = (self.surroundings.clone(), self.handed_over.clone());
        let mut shrink_at: Option<Instant> = None;
        let mut examinations = tokio::time::interval(EXAMINE);
        examinations.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                changed = snapshots.changed() => {
                    if changed.is_err() {
                        bail!("the snapshots ended");
                    }
                    let snapshot = Arc::clone(&snapshots.borrow_and_update());
                    block_in_place(|| self.step(&snapshot));
                    shrink_at = block_in_place(|| self.proxy.shrink(Instant::now()));
                }
                () = until(shrink_at) => shrink_at = block_in_place(|| self.proxy.shrink(Instant::now())),
                _ = examinations.tick() => drop(block_in_place(|| self.examine())),
                Ok(()) = surroundings.changed() => {
                    let now = surroundings.borrow_and_update().clone();
                    block_in_place(|| self.surround(now.as_ref()));
                }
                Ok(()) = handed_over.changed() => self.proxy.look_at_sockets(),
                Some(query) = queries.recv() => block_in_place(|| self.answer(query)),
                () = cancel.cancelled() => break,
            }
        }
        self.proxy.close();
        Ok(())
    }

    fn step(&mut self, snapshot: &Arc<Snapshot>) {
        if !snapshot.is_complete() {
            return;
        }
        self.names.forget(snapshot);
        let outcome = self.proxy.grow(snapshot, Instant::now());
        self.metrics.observe(&outcome);
        let Outcome { unprogrammed, conflicts, ops, complete: _ } = outcome;
        self.names.learn(snapshot, &unprogrammed.keys().cloned().collect());
        let planner = self.proxy.planner();
        let leaving = snapshot.nodes.get(&planner.facts().name).is_none_or(|node| node.leaving);
        self.health.applied(snapshot.generation, leaving, SystemTime::now());
        tracing::debug!(generation = snapshot.generation, ops, "stepped");
        self.reported.say(&unprogrammed, &conflicts, planner.sctp());
        self.progress.send_replace(Progress {
            snapshot: Arc::clone(snapshot),
            tables: self.proxy.tables(),
            facts: Some(self.proxy.planner().facts().clone()),
            health_ports: self.proxy.planner().health_ports().clone(),
            unprogrammed,
        });
    }

    /// What was wrong is said of this node's health even if it could be put right at once.
    fn examine(&mut self) -> Vec<Finding> {
        let findings = self.proxy.examine(Instant::now());
        let sentences: Vec<&str> = findings.iter().filter_map(|finding| finding.wrong.as_deref()).collect();
        if !sentences.is_empty() {
            self.health.set(Part::Programs, Err(sentences.join("; ")));
        }
        if findings.iter().all(|finding| finding.well) {
            self.health.set(Part::Programs, Ok(()));
        }
        findings
    }

    fn surround(&mut self, now: Option<&Surroundings>) {
        let Some(now) = now else { return };
        if let Err(error) = self.proxy.surround(now) {
            tracing::warn!(%error, "services are not served at every link");
        }
    }

    fn answer(&mut self, query: Query) {
        // Whoever asked may be gone; then nobody wants the answer.
        match query {
            Query::Backends(reply) => drop(reply.send(self.proxy.backends().collect())),
            Query::Traffic(reply) => drop(reply.send(self.proxy.traffic())),
            Query::Examine(reply) => {
                let findings = self.examine();
                let _ = reply.send(findings);
            }
            Query::Refresh(reply) => {
                self.metrics.collect(&self.proxy);
                let _ = reply.send(());
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

//! Takes in what a source under test says: the cluster that its events build, its reports, and every event as
//! text for the failure's message. The source ends with it.

use std::sync::Arc;
use std::time::Duration;

use fairway::source::{Connection, Error, Reports, SourceConfig, run};
use model::{Cluster, Event, Snapshot};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Far longer than anything here takes; only a failure waits for it.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running source and the cluster that its events build.
pub(crate) struct Listener {
    events: mpsc::Receiver<Event>,
    pub(crate) cluster: Cluster,
    pub(crate) reports: Reports,
    pub(crate) cancel: CancellationToken,
    pub(crate) task: JoinHandle<Result<(), Error>>,
    /// Every event, as text.
    pub(crate) log: Vec<String>,
}

impl Listener {
    pub(crate) fn start(config: SourceConfig) -> Self {
        let (sender, events) = mpsc::channel(1024);
        let (reports, cancel) = (Reports::new(), CancellationToken::new());
        let task = tokio::spawn(run(config, sender, reports.clone(), cancel.clone()));
        Self { events, cluster: Cluster::new(), reports, cancel, task, log: Vec::new() }
    }

    /// Takes in events until the condition holds.
    pub(crate) async fn until(&mut self, what: &str, condition: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let snapshot = self.cluster.snapshot();
                if condition(&snapshot) {
                    return snapshot;
                }
                let event = self.events.recv().await.expect("the source goes on");
                self.log.push(format!("{event:?}"));
                self.cluster.apply(event);
            }
        });
        let result = waited.await;
        result.unwrap_or_else(|_| panic!("{what} never came; seen:\n{}", self.log.join("\n")))
    }

    pub(crate) async fn until_connection(&self, condition: impl Fn(&Connection) -> bool) {
        let mut connection = self.reports.connection();
        let changed = tokio::time::timeout(PATIENCE, connection.wait_for(condition)).await;
        changed.expect("the connection changes").unwrap();
    }

    pub(crate) fn problems(&self) -> Vec<String> {
        self.reports.list().iter().map(ToString::to_string).collect()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

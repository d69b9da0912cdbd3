//! What the sources could not take: each problem is logged once, counted by its reason, and listed for as
//! long as it stands. Written by the sources; read by the admin endpoint and by `fairway check`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use super::Connection;
use crate::notice::{Notice, Notices, Subject};

/// How many standing problems of one part are kept and told; of more only the number.
const KEPT: usize = 1_000;

/// Something that was not taken, or not as it is written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Problem {
    /// Why, for the metric.
    pub reason: Reason,
    /// One line that names file or object, field and fault.
    pub text: String,
    /// The object of the cluster that it is about.
    #[serde(skip)]
    pub object: Option<(model::Kind, model::ObjectName)>,
}

/// Why something was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, EncodeLabelValue)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// A file or folder cannot be read.
    Unreadable,
    /// A file is not YAML or JSON.
    Syntax,
    /// An object has a field that cannot be.
    BadObject,
    /// An object of a kind that does not exist.
    BadKind,
    /// An object claims what another one has.
    Conflict,
    /// No address or port is left.
    Exhausted,
    /// An object that has no effect beside another one.
    Shadowed,
    /// A kind that a node has no use for.
    UnusedKind,
}

/// The parts of a source that report on their own. What a part reports replaces what it reported before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The folder of manifests, and the records of sandboxes.
    Manifests,
    /// The watch of one kind.
    Watch(model::Kind),
}

/// The standing problems. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    standing: Arc<Mutex<BTreeMap<Part, Vec<Problem>>>>,
    seen: Family<ReasonLabel, Counter>,
    open: Gauge,
    connection: Arc<watch::Sender<Connection>>,
    connected: Gauge,
    away_since: Gauge,
    notices: Notices,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: Reason,
}

impl Problem {
    /// A problem.
    pub fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self { reason, text: text.into(), object: None }
    }

    /// The same, about an object of the cluster: whoever looks at the object is to see it.
    #[must_use]
    pub fn about(self, kind: model::Kind, name: model::ObjectName) -> Self {
        Self { object: Some((kind, name)), ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Reports {
    /// No problems.
    pub fn new() -> Self {
        Self::default()
    }

    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "source_problems",
            "Objects, files and records that were not taken, when first seen",
            self.seen.clone(),
        );
        registry.register(
            "source_problems_open",
            "Problems of the sources that stand now",
            self.open.clone(),
        );
        registry.register("source_connected", "1 while the cluster is heard from", self.connected.clone());
        registry.register(
            "source_away_since_timestamp_seconds",
            "When the cluster was last lost, in seconds since the epoch; 0 while it is heard from",
            self.away_since.clone(),
        );
        self.notices.register(registry);
    }

    /// The way to the Events of the cluster, for everybody.
    pub const fn notices(&self) -> &Notices {
        &self.notices
    }

    /// Says all problems of one part. New ones are logged and counted.
    pub fn replace(&self, part: Part, mut problems: Vec<Problem>) {
        problems.sort();
        problems.dedup();
        let more = problems.len().saturating_sub(KEPT);
        problems.truncate(KEPT);
        let mut standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = standing.insert(part, Vec::new()).unwrap_or_default();
        for problem in problems.iter().filter(|problem| before.binary_search(problem).is_err()) {
            self.seen.get_or_create(&ReasonLabel { reason: problem.reason }).inc();
            log(problem);
            if let Some((kind, name)) = &problem.object {
                let subject = Subject::Object(*kind, name.clone());
                self.notices.tell(Notice { subject, reason: "Invalid", note: problem.text.clone() });
            }
        }
        if more > 0 && before.len() < KEPT {
            tracing::warn!(more, "more was not taken, which is told once some of this is mended");
        }
        standing.insert(part, problems);
        let open = standing.values().map(Vec::len).sum::<usize>();
        self.open.set(i64::try_from(open).unwrap_or(i64::MAX));
    }

    /// Whether the source hears from the cluster, now and from now on.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.subscribe()
    }

    /// The cluster has been heard from.
    pub(super) fn heard(&self) {
        if self.connection.send_if_modified(Connection::heard) {
            self.connected.set(1);
            self.away_since.set(0);
            tracing::info!("the cluster is there");
        }
    }

    /// An attempt to hear from the cluster failed at `now`.
    pub(super) fn failed(&self, now: SystemTime, error: &str) {
        if self.connection.send_if_modified(|connection| connection.failed(now, error)) {
            let since = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            self.connected.set(0);
            self.away_since.set(i64::try_from(since).unwrap_or(i64::MAX));
            tracing::warn!(error, "the cluster is away; what is known stays");
        }
    }

    /// What stands now.
    pub fn list(&self) -> Vec<Problem> {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        standing.values().flatten().cloned().collect()
    }
}

fn log(problem: &Problem) {
    match problem.reason {
        Reason::UnusedKind => tracing::info!(problem = %problem, "not used"),
        Reason::Unreadable
        | Reason::Syntax
        | Reason::BadObject
        | Reason::BadKind
        | Reason::Conflict
        | Reason::Exhausted
        | Reason::Shadowed => {
            tracing::warn!(reason = ?problem.reason, problem = %problem, "not taken");
        }
    }
}

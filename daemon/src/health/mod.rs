//! How this node is, for whoever must decide: load balancers (/healthz), the kubelet (/livez), health-check
//! node ports, a person. Parts of the daemon say how they are with [`Health::set`]; the queue of changes is
//! watched here. It decides nothing and restarts nothing.

mod ports;
mod server;
mod status;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;

use crate::notice::{Notice, Notices, Subject};
use crate::source::Connection;

pub use ports::serve_ports;
pub use server::{bind_healthz, serve_healthz};
pub use status::Status;

/// A change is in the kernel within milliseconds. One that takes this long is stuck, and traffic that follows
/// it goes wrong; a burst of relists at the largest cluster is well below.
const LATE: Duration = Duration::from_secs(10);

/// A part of the daemon that can be unwell while the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Part {
    /// The programs are attached and run for the node's sockets.
    Programs,
}

/// How this node is. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Health {
    known: Arc<Mutex<Known>>,
    connection: watch::Receiver<Connection>,
    notices: Notices,
}

#[derive(Debug, Default)]
struct Known {
    unwell: BTreeMap<Part, String>,
    /// The newest snapshot that has been made, and since when one waits.
    queued: u64,
    waiting: Option<SystemTime>,
    /// When the kernel last had everything that the cluster said; None before the first lists.
    applied: Option<SystemTime>,
    /// The Node is being deleted.
    leaving: bool,
}

impl Part {
    /// Its name, for people and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Programs => "programs",
        }
    }
}

impl Health {
    /// Nothing has been applied yet and nothing is unwell. `connection` is the source's.
    pub fn new(connection: watch::Receiver<Connection>, notices: Notices) -> Self {
        Self { known: Arc::default(), connection, notices }
    }

    /// A part is well, or else one sentence about what is wrong. A change is logged, and told of
    /// the Node.
    pub fn set(&self, part: Part, state: Result<(), String>) {
        let mut known = self.lock();
        match state {
            Ok(()) => {
                if known.unwell.remove(&part).is_some() {
                    tracing::info!(part = part.as_str(), "well again");
                }
            }
            Err(sentence) => {
                let before = known.unwell.insert(part, sentence.clone());
                if before.as_ref() != Some(&sentence) {
                    tracing::warn!(part = part.as_str(), problem = sentence, "unwell");
                    let note = format!("{}: {sentence}", part.as_str());
                    self.notices.tell(Notice { subject: Subject::Node, reason: "Unwell", note });
                }
            }
        }
    }

    /// A snapshot has been made that the kernel is to follow.
    pub fn queued(&self, generation: u64, now: SystemTime) {
        let mut known = self.lock();
        known.queued = generation;
        known.waiting.get_or_insert(now);
    }

    /// The kernel follows the snapshot of `generation`; `leaving` is what it says of this Node.
    pub fn applied(&self, generation: u64, leaving: bool, now: SystemTime) {
        let mut known = self.lock();
        known.applied = Some(now);
        known.leaving = leaving;
        // What came meanwhile has waited no longer than this one took.
        known.waiting = (known.queued > generation).then_some(now);
    }

    /// Everything, as of `now`.
    pub fn status(&self, now: SystemTime) -> Status {
        Status::of(&self.lock(), &self.connection.borrow(), now)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

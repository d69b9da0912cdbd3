//! What a person must know about an object of the cluster, on its way to the Events of the API server. Anybody
//! tells, `source::kube` writes; where there is no API server the log has said it, and this is dropped.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use model::{Kind, ObjectName};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;

/// Notices that wait to be written. One that is told when so many wait adds nothing that a person would read.
const WAITING_MAX: usize = 256;

/// Something that a person must know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Notice {
    /// What it is about.
    pub subject: Subject,
    /// One word in CamelCase, for machines.
    pub reason: &'static str,
    /// One sentence.
    pub note: String,
}

/// What a notice is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// An object as every node sees it: one node's word is enough.
    Object(Kind, ObjectName),
    /// An object as it is on this node.
    ObjectHere(Kind, ObjectName),
    /// This node.
    Node,
}

/// The notices that wait. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Notices(Arc<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    queue: Mutex<VecDeque<Notice>>,
    came: Notify,
    dropped: Counter,
}

impl Notices {
    /// Registers the metric.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "notices_dropped",
            "Notices that were not written as Events, because too many waited",
            self.0.dropped.clone(),
        );
    }

    /// Tells it, without waiting. Whoever tells has logged it.
    pub fn tell(&self, notice: Notice) {
        let mut queue = self.lock();
        if queue.len() < WAITING_MAX {
            queue.push_back(notice);
            self.0.came.notify_one();
        } else {
            self.0.dropped.inc();
        }
    }

    /// The next one, once there is one. There is one reader.
    pub async fn next(&self) -> Notice {
        loop {
            let next = self.lock().pop_front();
            match next {
                Some(notice) => return notice,
                None => self.0.came.notified().await,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Notice>> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

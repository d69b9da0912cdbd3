//! The task that owns the [`Cluster`]: events in, snapshots out. Events that wait together become one
//! snapshot, so that a burst costs one step.

use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Result;
use model::{Cluster, Event, Snapshot};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::health::Health;

/// Events waiting for the reducer. A source that is faster waits; nothing is dropped.
pub const QUEUE: usize = 1024;
/// Events taken in before a snapshot is made, so that an endless stream cannot starve the readers.
const BATCH: usize = 4096;

/// Reduces events to snapshots until `cancel`, even if the source ends before: that task says why, and this one
/// must not end first with less to say.
pub async fn reduce(
    mut events: mpsc::Receiver<Event>,
    snapshots: watch::Sender<Arc<Snapshot>>,
    health: Health,
    cancel: CancellationToken,
) -> Result<()> {
    let mut cluster = Cluster::new();
    let mut batch = Vec::new();
    loop {
        let received = tokio::select! {
            count = events.recv_many(&mut batch, BATCH) => count,
            () = cancel.cancelled() => return Ok(()),
        };
        if received == 0 {
            cancel.cancelled().await;
            return Ok(());
        }
        for event in batch.drain(..) {
            cluster.apply(event);
        }
        let snapshot = cluster.snapshot();
        snapshots.send_if_modified(|current| {
            let differs = !Arc::ptr_eq(current, &snapshot);
            if differs {
                health.queued(snapshot.generation, SystemTime::now());
            }
            *current = snapshot;
            differs
        });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::notice::Notices;
    use crate::source::Connection;

    #[tokio::test]
    async fn the_source_ends_before_the_reducer() {
        let (events, received) = mpsc::channel(1);
        let (made, _snapshots) = watch::channel(Arc::default());
        let health = Health::new(watch::channel(Connection::default()).1, Notices::default());
        let cancel = CancellationToken::new();
        let mut reducer = Box::pin(reduce(received, made, health, cancel.clone()));
        drop(events);
        assert!((&mut reducer).now_or_never().is_none(), "it ended while the source may still say why");
        cancel.cancel();
        reducer.await.expect("it was asked to end");
    }
}

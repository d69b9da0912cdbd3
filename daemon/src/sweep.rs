//! The sweep of the packet engine's flows, in a task of its own: no change of the cluster waits for it. Spawned by
//! `app`.

use std::time::Duration;

use anyhow::Result;
use proxy::{FlowMetrics, Sweeper};
use tokio::task::block_in_place;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often flows that are over are taken out of the maps.
const SWEEP: Duration = Duration::from_secs(5);

/// Sweeps until `cancel`.
pub(crate) async fn run(mut sweeper: Sweeper, metrics: FlowMetrics, cancel: CancellationToken) -> Result<()> {
    let mut sweeps = tokio::time::interval(SWEEP);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = sweeps.tick() => {}
            () = cancel.cancelled() => return Ok(()),
        }
        match block_in_place(|| sweeper.sweep()) {
            Ok(counts) => metrics.observe(counts),
            Err(error) => tracing::warn!(%error, "flows that are over stay in the kernel"),
        }
    }
}

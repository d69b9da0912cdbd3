//! Whether the source hears from the cluster, and since when it does not. Written by the sources; read by the
//! admin endpoint. It decides nothing: what is known stays served.

use std::time::SystemTime;

/// Whether the source hears from the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Connection {
    /// Nothing has been heard yet.
    #[default]
    Starting,
    /// What is known is what is.
    Connected,
    /// What is known is what was.
    Away {
        /// Since when.
        since: SystemTime,
        /// What went wrong first.
        error: String,
    },
}

impl Connection {
    /// After something was heard.
    pub(super) fn heard(&mut self) -> bool {
        let changed = *self != Self::Connected;
        *self = Self::Connected;
        changed
    }

    /// After an attempt failed at `now`. The first failure counts.
    pub(super) fn failed(&mut self, now: SystemTime, error: &str) -> bool {
        if matches!(self, Self::Away { .. }) {
            return false;
        }
        *self = Self::Away { since: now, error: error.to_owned() };
        true
    }
}

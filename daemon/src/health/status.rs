//! What `/healthz` and `/livez` say (R8), as a value of what is known and the time. Pure. The field names are
//! those of kube-proxy, which load balancers and dashboards read; what a person needs stands beside them.

use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::{Known, LATE};
use crate::source::Connection;

/// How this node is at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The last moment at which the kernel had everything that the cluster said.
    pub last_updated: Option<String>,
    /// Now.
    pub current_time: String,
    /// New traffic may be sent to this node: it is not being deleted.
    pub node_eligible: bool,
    /// What is wrong, one sentence each.
    pub problems: Vec<String>,
    /// Since when the API server is away, and what was heard instead. What is known stays served, so this
    /// alone makes nobody unwell.
    pub api_server_away: Option<Away>,
    /// The first lists are complete and in the kernel.
    #[serde(skip)]
    is_started: bool,
}

/// An API server that is not there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Away {
    /// Since when.
    pub since: String,
    /// What went wrong first.
    pub error: String,
}

impl Status {
    pub(super) fn of(known: &Known, connection: &Connection, now: SystemTime) -> Self {
        let mut problems: Vec<String> =
            known.unwell.iter().map(|(part, sentence)| format!("{}: {sentence}", part.as_str())).collect();
        let is_started = known.applied.is_some();
        let waited = known.waiting.and_then(|since| now.duration_since(since).ok());
        // Before the first lists everything waits, for as long as they take.
        if let Some(waited) = waited.filter(|waited| is_started && *waited > LATE) {
            problems.push(late(waited));
        }
        let up_to_date = is_started && known.waiting.is_none();
        Self {
            last_updated: if up_to_date { Some(now) } else { known.applied }.map(text),
            current_time: text(now),
            node_eligible: !known.leaving,
            problems,
            api_server_away: away(connection),
            is_started,
        }
    }

    /// `/livez`: the daemon does its work, or still waits for the first lists. Starting it anew would
    /// not bring those any sooner.
    pub const fn is_live(&self) -> bool {
        self.problems.is_empty()
    }

    /// Services are served as the cluster wants them.
    pub const fn is_healthy(&self) -> bool {
        self.is_live() && self.is_started
    }

    /// `/healthz`: the same, and the node may be given new traffic.
    pub const fn is_eligible(&self) -> bool {
        self.is_healthy() && self.node_eligible
    }
}

fn late(waited: Duration) -> String {
    format!("a change waits for {} s to be applied", waited.as_secs())
}

fn away(connection: &Connection) -> Option<Away> {
    match connection {
        Connection::Starting | Connection::Connected => None,
        Connection::Away { since, error } => Some(Away { since: text(*since), error: error.clone() }),
    }
}

/// RFC 3339.
fn text(time: SystemTime) -> String {
    Timestamp::try_from(time).map_or_else(|_| "unknown".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use tokio::sync::watch;

    use super::super::{Health, Part};
    use super::*;
    use crate::notice::Notices;

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// Live, healthy, eligible.
    fn verdict(health: &Health, seconds: u64) -> [bool; 3] {
        let status = health.status(at(seconds));
        [status.is_live(), status.is_healthy(), status.is_eligible()]
    }

    fn health() -> (Health, watch::Sender<Connection>) {
        let (sender, connection) = watch::channel(Connection::Starting);
        (Health::new(connection, Notices::default()), sender)
    }

    #[test]
    fn a_node_is_eligible_once_the_first_lists_are_applied() {
        let (health, _connection) = health();
        assert_eq!(verdict(&health, 0), [true, false, false]);
        health.queued(1, at(0));
        assert_eq!(verdict(&health, 1000), [true, false, false], "a start waits for as long as it takes");
        health.applied(1, false, at(1000));
        assert_eq!(verdict(&health, 5000), [true; 3], "nothing waits, so nothing is late");
    }

    #[test]
    fn a_change_that_is_not_applied_in_time_is_unhealthy_until_it_is() {
        let (health, _connection) = health();
        health.applied(1, false, at(100));
        health.queued(2, at(200));
        assert_eq!(verdict(&health, 210), [true; 3]);
        // A later change does not make the first one younger.
        health.queued(3, at(209));
        assert_eq!(verdict(&health, 211), [false; 3]);
        let status = health.status(at(211));
        assert_eq!(status.problems, ["a change waits for 11 s to be applied"]);
        assert_eq!(status.last_updated.as_deref(), Some("1970-01-01T00:01:40Z"));
        health.applied(2, false, at(212));
        assert_eq!(verdict(&health, 213), [true; 3]);
        assert_eq!(verdict(&health, 223), [false; 3], "the third still waits");
        health.applied(3, false, at(224));
        assert_eq!(verdict(&health, 1000), [true; 3]);
    }

    #[test]
    fn a_node_that_leaves_lives_but_is_not_eligible() {
        let (health, _connection) = health();
        health.applied(1, true, at(1));
        assert_eq!(verdict(&health, 2), [true, true, false]);
        assert!(!health.status(at(2)).node_eligible);
    }

    #[test]
    fn an_unwell_part_is_named_until_it_is_well() {
        let (health, _connection) = health();
        health.applied(1, false, at(1));
        health.set(Part::Programs, Err("connect4 is detached".to_owned()));
        assert_eq!(verdict(&health, 2), [false; 3]);
        assert_eq!(health.status(at(2)).problems, ["programs: connect4 is detached"]);
        health.set(Part::Programs, Ok(()));
        assert_eq!(verdict(&health, 3), [true; 3]);
    }

    #[test]
    fn an_api_server_that_is_away_is_told_and_harms_nobody() {
        let (health, connection) = health();
        health.applied(1, false, at(1));
        connection.send_replace(Connection::Away { since: at(60), error: "refused".to_owned() });
        assert_eq!(verdict(&health, 1000), [true; 3]);
        let json = serde_json::to_value(health.status(at(1000))).unwrap();
        let expected = serde_json::json!({
            "lastUpdated": "1970-01-01T00:16:40Z", "currentTime": "1970-01-01T00:16:40Z", "nodeEligible": true,
            "problems": [], "apiServerAway": {"since": "1970-01-01T00:01:00Z", "error": "refused"},
        });
        assert_eq!(json, expected);
    }
}

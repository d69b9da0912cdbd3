//! `fairway get upstreams`: each server that names outside the cluster are asked of, the domain it is asked
//! about, and how it is.

use dns::{UpstreamHealth, UpstreamState};
use serde::{Deserialize, Serialize};

use crate::commands::table::table;

/// One server.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpstreamRow {
    domain: String,
    address: String,
    state: String,
    /// Of late, smoothed.
    round_trip_micros: u64,
}

/// The rows of a forwarder.
pub fn rows(states: &[UpstreamState]) -> Vec<UpstreamRow> {
    let row = |state: &UpstreamState| UpstreamRow {
        domain: state.domain.to_string(),
        address: state.address.to_string(),
        state: match state.health {
            UpstreamHealth::Well => "well",
            UpstreamHealth::Failing => "does not answer",
            UpstreamHealth::Loops => "leads back to this node, and is not asked",
        }
        .to_owned(),
        round_trip_micros: u64::try_from(state.round_trip.as_micros()).unwrap_or(u64::MAX),
    };
    states.iter().map(row).collect()
}

/// The rows as a table.
pub fn text(rows: &[UpstreamRow]) -> String {
    let cells = rows.iter().map(|row| {
        let round_trip = format!("{} us", row.round_trip_micros);
        vec![row.domain.clone(), row.address.clone(), round_trip, row.state.clone()]
    });
    table(&["DOMAIN", "ADDRESS", "ROUND TRIP", "STATE"], &cells.collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_is_said_in_words() {
        let state = UpstreamState {
            domain: dns::DomainName::root(),
            address: "192.0.2.1:53".parse().unwrap(),
            health: UpstreamHealth::Loops,
            round_trip: std::time::Duration::from_micros(250),
        };
        let expected = "DOMAIN  ADDRESS       ROUND TRIP  STATE\n\
                        .       192.0.2.1:53  250 us      leads back to this node, and is not asked\n";
        assert_eq!(text(&rows(&[state])), expected);
    }
}

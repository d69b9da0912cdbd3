//! `fairway get sandboxes` and `fairway sandbox list`: the pods that this node runs by hand. Rows are made from
//! their records; a record whose pause process is gone never gets here.

use std::net::IpAddr;

use sandbox::Record;
use serde::{Deserialize, Serialize};

use crate::commands::table::table;

/// One sandbox.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxRow {
    namespace: String,
    name: String,
    /// `starting`, `ready` or `terminating`.
    state: String,
    addresses: Vec<IpAddr>,
    /// The pause process, in the node's PID namespace.
    pause: u32,
}

/// The rows of the records.
pub fn rows(records: &[Record]) -> Vec<SandboxRow> {
    records.iter().map(row).collect()
}

/// The rows as a table.
pub fn text(rows: &[SandboxRow]) -> String {
    let cells = rows.iter().map(|row| {
        let addresses: Vec<String> = row.addresses.iter().map(ToString::to_string).collect();
        let pod = format!("{}/{}", row.namespace, row.name);
        vec![pod, row.state.clone(), addresses.join(","), row.pause.to_string()]
    });
    table(&["POD", "STATE", "ADDRESS", "PAUSE PID"], &cells.collect::<Vec<_>>())
}

fn row(record: &Record) -> SandboxRow {
    let state = match (record.terminating, record.ready) {
        (true, _) => "terminating",
        (false, true) => "ready",
        (false, false) => "starting",
    };
    SandboxRow {
        namespace: record.pod.namespace.clone(),
        name: record.pod.name.clone(),
        state: state.to_owned(),
        addresses: record.addresses.clone(),
        pause: record.pause,
    }
}

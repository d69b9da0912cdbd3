//! `fairway get connections`: who is connected through which frontend to which backend, now. Rows are made from
//! what the data plane lists, and from who the sockets belong to.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use model::Snapshot;
use proxy::{Connection, Frontend, Tables};
use serde::{Deserialize, Serialize};

use crate::commands::table::table;
use crate::processes::Process;

/// One connection.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionRow {
    /// The pod with the socket's own address, as `namespace/name`.
    pod: Option<String>,
    /// The process that has the socket.
    process: Option<Process>,
    protocol: String,
    local: SocketAddr,
    /// What it dialled.
    frontend: SocketAddr,
    /// The service that the frontend leads to now.
    service: Option<String>,
    backend: SocketAddr,
}

/// The rows of the connections, in order.
pub fn rows(
    connections: &[Connection],
    snapshot: &Snapshot,
    tables: &Tables,
    processes: &HashMap<u32, Process>,
) -> Vec<ConnectionRow> {
    let pods: HashMap<IpAddr, String> = snapshot
        .pods
        .values()
        .filter(|pod| !pod.host_network)
        .flat_map(|pod| pod.addresses.iter().map(|ip| (*ip, pod.name.to_string())))
        .collect();
    let mut rows: Vec<ConnectionRow> = connections
        .iter()
        .map(|found| {
            let frontend = Frontend::new(found.frontend.ip(), found.frontend.port(), found.protocol);
            let target = tables.frontends.get(&frontend).and_then(|target| target.service());
            ConnectionRow {
                pod: pods.get(&found.local.ip()).cloned(),
                process: processes.get(&found.inode).cloned(),
                protocol: found.protocol.to_string(),
                local: found.local,
                frontend: found.frontend,
                service: target.map(|key| key.name.to_string()),
                backend: found.backend,
            }
        })
        .collect();
    rows.sort_by(|one, two| (&one.pod, one.frontend, one.local).cmp(&(&two.pod, two.frontend, two.local)));
    rows
}

/// The rows as a table.
pub fn text(rows: &[ConnectionRow]) -> String {
    let or_none = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let cells = rows.iter().map(|row| {
        vec![
            or_none(row.pod.clone()),
            or_none(row.process.as_ref().map(|process| format!("{} ({})", process.name, process.id))),
            row.protocol.clone(),
            row.local.to_string(),
            row.frontend.to_string(),
            or_none(row.service.clone()),
            row.backend.to_string(),
        ]
    });
    let head = ["POD", "PROCESS", "PROTOCOL", "LOCAL", "FRONTEND", "SERVICE", "BACKEND"];
    table(&head, &cells.collect::<Vec<_>>())
}

//! `fairway get backends`: each backend of each service port, and the connections opened to it and closed. Rows
//! are made from what the owner of the proxy says.

use std::net::{IpAddr, SocketAddr};

use ebpf::backend::{CLUSTER, LOCAL};
use proxy::BackendState;
use serde::{Deserialize, Serialize};

use crate::commands::table::table;

/// One backend of one service port.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendRow {
    namespace: String,
    service: String,
    /// The name of the service port.
    port: String,
    protocol: String,
    /// Where it listens.
    address: IpAddr,
    target_port: u16,
    /// Used where a traffic policy is Local.
    local: bool,
    /// Used where it is Cluster.
    cluster: bool,
    /// Connections, and flows of unconnected UDP sockets, opened to it since it was programmed.
    opened: u64,
    /// Connections to it that their client has closed.
    closed: u64,
}

/// The rows of the data plane.
pub fn rows(states: &[BackendState]) -> Vec<BackendRow> {
    states.iter().map(row).collect()
}

/// The rows as a table.
pub fn text(rows: &[BackendRow]) -> String {
    let cells = rows.iter().map(|row| {
        let port = if row.port.is_empty() { String::new() } else { format!(":{}", row.port) };
        let used = match (row.local, row.cluster) {
            (true, true) => "local, cluster",
            (true, false) => "local",
            (false, true) => "cluster",
            (false, false) => "-",
        };
        vec![
            format!("{}/{}{port}", row.namespace, row.service),
            row.protocol.clone(),
            SocketAddr::new(row.address, row.target_port).to_string(),
            used.to_owned(),
            row.opened.to_string(),
            row.closed.to_string(),
        ]
    });
    table(&["SERVICE", "PROTOCOL", "BACKEND", "USED FOR", "OPENED", "CLOSED"], &cells.collect::<Vec<_>>())
}

fn row(state: &BackendState) -> BackendRow {
    BackendRow {
        namespace: state.service.name.namespace.to_string(),
        service: state.service.name.name.to_string(),
        port: state.service.port.to_string(),
        protocol: state.service.protocol.to_string(),
        address: state.slot.ip,
        target_port: state.slot.port,
        local: state.slot.windows & LOCAL != 0,
        cluster: state.slot.windows & CLUSTER != 0,
        opened: state.count.opened,
        closed: state.count.closed,
    }
}

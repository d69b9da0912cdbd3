//! `fairway get sandboxes` and `fairway sandbox list`: the pods of this node. Those that are run by hand have records,
//! and one whose pause process is gone never gets here; those of a container runtime have attachments alone.

use std::net::IpAddr;

use sandbox::{Attachment, PodId, Record, is_standalone};
use serde::{Deserialize, Serialize};

use crate::commands::table::table;

/// One sandbox.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxRow {
    namespace: String,
    name: String,
    /// `starting`, `ready` or `terminating`; `attached` where a container runtime knows the rest.
    state: String,
    addresses: Vec<IpAddr>,
    /// The pause process, in the node's PID namespace; none where it is the runtime's.
    pause: Option<u32>,
    /// What a container runtime calls it.
    container: Option<String>,
}

/// The rows of the records.
pub fn rows(records: &[Record]) -> Vec<SandboxRow> {
    records.iter().map(row).collect()
}

/// The rows of the attachments that a container runtime asked for.
pub fn attached(attachments: Vec<Attachment>) -> Vec<SandboxRow> {
    let foreign = attachments.into_iter().filter(|attachment| !is_standalone(&attachment.container_id));
    foreign
        .map(|attachment| {
            // Only Kubernetes' runtimes say which pod it is.
            let pod =
                attachment.pod.unwrap_or_else(|| PodId { namespace: "-".to_owned(), name: "-".to_owned() });
            SandboxRow {
                namespace: pod.namespace,
                name: pod.name,
                state: "attached".to_owned(),
                addresses: attachment.addresses,
                pause: None,
                container: Some(attachment.container_id),
            }
        })
        .collect()
}

/// The rows as a table.
pub fn text(rows: &[SandboxRow]) -> String {
    columns(rows, &["POD", "STATE", "ADDRESS", "PAUSE PID", "CONTAINER"])
}

/// The same of pods that are run by hand alone: nobody calls them anything else.
pub fn text_by_hand(rows: &[SandboxRow]) -> String {
    columns(rows, &["POD", "STATE", "ADDRESS", "PAUSE PID"])
}

/// As many columns as there are titles.
fn columns(rows: &[SandboxRow], titles: &[&str]) -> String {
    let cells = rows.iter().map(|row| {
        let addresses: Vec<String> = row.addresses.iter().map(ToString::to_string).collect();
        let pod = format!("{}/{}", row.namespace, row.name);
        let pause = row.pause.map_or_else(|| "-".to_owned(), |pause| pause.to_string());
        let container = row.container.as_deref().unwrap_or("-").to_owned();
        let mut cells = vec![pod, row.state.clone(), addresses.join(","), pause, container];
        cells.truncate(titles.len());
        cells
    });
    table(titles, &cells.collect::<Vec<_>>())
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
        pause: Some(record.pause),
        container: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_a_runtime_are_told_from_those_run_by_hand() {
        let attachment = |container: &str, pod: Option<&str>| Attachment {
            link: sandbox::link_name(container, "eth0"),
            index: 7,
            addresses: vec!["10.1.0.5".parse().unwrap()],
            cookie: 1,
            container_id: container.to_owned(),
            ifname: "eth0".to_owned(),
            pod: pod.map(|pod| pod.parse().unwrap()),
        };
        let by_hand = sandbox::link_name("shop/db", "");
        let rows = attached(vec![
            attachment("4f2a", Some("shop/web")),
            attachment(&by_hand, Some("shop/db")),
            attachment("9c1d", None),
        ]);
        let expected = "POD       STATE     ADDRESS   PAUSE PID  CONTAINER\n\
                        shop/web  attached  10.1.0.5  -          4f2a\n\
                        -/-       attached  10.1.0.5  -          9c1d\n";
        assert_eq!(text(&rows), expected);
        assert!(
            text_by_hand(&rows).lines().all(|line| line.split("  ").count() >= 4 && !line.contains("4f2a"))
        );
    }
}

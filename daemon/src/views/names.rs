//! `fairway get dns`: each name of the cluster with its records, in the order of the zone's dump. A name that
//! cannot be answered has no row.

use dns::Zone;
use serde::{Deserialize, Serialize};

use crate::commands::table::table;

/// One record.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameRow {
    name: String,
    #[serde(rename = "type")]
    rtype: String,
    data: String,
}

/// The rows of a zone.
pub fn rows(zone: &Zone) -> Vec<NameRow> {
    let row = |record: dns::Record| NameRow {
        name: record.owner.to_string(),
        rtype: record.data.rtype().to_string(),
        data: record.data.to_string(),
    };
    zone.records().into_iter().map(row).collect()
}

/// The rows as a table.
pub fn text(rows: &[NameRow]) -> String {
    let cells = rows.iter().map(|row| vec![row.name.clone(), row.rtype.clone(), row.data.clone()]);
    table(&["NAME", "TYPE", "DATA"], &cells.collect::<Vec<_>>())
}

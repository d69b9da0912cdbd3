//! `fairway check --live`: what the self-check of the running daemon found, as rows. It checks nothing itself; the
//! admin socket serves it and the command prints it.

use proxy::Finding;
use serde::{Deserialize, Serialize};

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FindingRow {
    what: String,
    /// What was wrong, in one sentence.
    wrong: Option<String>,
    /// Whether it is right now.
    pub well: bool,
}

/// The rows of the findings.
pub fn rows(findings: &[Finding]) -> Vec<FindingRow> {
    let row = |finding: &Finding| FindingRow {
        what: finding.what.to_owned(),
        wrong: finding.wrong.clone(),
        well: finding.well,
    };
    findings.iter().map(row).collect()
}

/// One line each, as `fairway check` writes them.
pub fn lines(rows: &[FindingRow]) -> Vec<String> {
    let line = |row: &FindingRow| match (&row.wrong, row.well) {
        (None, _) => format!("{:18}  as it should be", row.what),
        (Some(wrong), true) => format!("{:18}  REPAIRED: {wrong}", row.what),
        (Some(wrong), false) => format!("{:18}  WRONG: {wrong}", row.what),
    };
    rows.iter().map(line).collect()
}

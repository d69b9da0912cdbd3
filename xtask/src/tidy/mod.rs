//! `cargo xtask tidy`: the rules of ARCHITECTURE.md and docs/style.md that a program can check.
//!
//! One line for each finding, with file and line. It reads files and `cargo metadata` and changes nothing.

mod arrows;
mod names;
mod source;

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::{say, workspace};

/// Lines that ARCHITECTURE.md may have: a map that does not fit in the head is none.
const ARCHITECTURE_LINES: usize = 150;

/// One thing that breaks a rule.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: PathBuf,
    line: usize,
    what: String,
}

impl Finding {
    fn new(path: &Path, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path.display(), self.line, self.what)
    }
}

/// Checks the workspace.
pub(crate) fn run() -> Result<ExitCode> {
    let mut findings = arrows::check(&arrows::read_metadata()?);
    let files = rust_files(workspace::root())?;
    for file in &files {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let path = workspace::relative(file);
        findings.extend(names::check(&path));
        findings.extend(source::check(&path, &text));
    }
    findings.extend(check_architecture(workspace::root()));
    findings.sort();
    for finding in &findings {
        say::line(finding.to_string());
    }
    say::line(format!("tidy: {} files, {} findings", files.len(), findings.len()));
    Ok(if findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn check_architecture(root: &Path) -> Vec<Finding> {
    let path = Path::new("ARCHITECTURE.md");
    match std::fs::read_to_string(root.join(path)) {
        Ok(text) => check_length(path, &text, ARCHITECTURE_LINES),
        Err(error) => vec![Finding::new(path, 1, format!("cannot be read: {error}"))],
    }
}

fn check_length(path: &Path, text: &str, limit: usize) -> Vec<Finding> {
    let lines = text.lines().count();
    if lines <= limit {
        return Vec::new();
    }
    vec![Finding::new(path, limit + 1, format!("{lines} lines, and the limit is {limit}"))]
}

/// Every .rs file of the tree in order, without what is built or hidden.
fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if name != "target" && !name.starts_with('.') {
                files.extend(rust_files(&entry.path())?);
            }
        } else if name.ends_with(".rs") {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_that_is_too_long_is_found() {
        let path = Path::new("ARCHITECTURE.md");
        assert_eq!(check_length(path, &"line\n".repeat(150), 150), []);
        let found = check_length(path, &"line\n".repeat(151), 150);
        assert_eq!(found[0].to_string(), "ARCHITECTURE.md:151: 151 lines, and the limit is 150");
    }

    #[test]
    fn a_missing_map_is_found() {
        assert_eq!(check_architecture(Path::new("/no/such/folder")).len(), 1);
    }
}

//! What xtask says to a person: plain lines on standard output, one sentence on standard error.
//!
//! A closed pipe (`| head`) is no error, so nothing here panics on a failed write.

use std::io::{IsTerminal, Write};

/// One line on standard output.
pub(crate) fn line(text: impl AsRef<str>) {
    let _ = writeln!(std::io::stdout().lock(), "{}", text.as_ref());
}

/// The last word of a failed command: one sentence with its causes.
pub(crate) fn error(error: &anyhow::Error) {
    let _ = std::io::stdout().flush();
    let _ = writeln!(std::io::stderr().lock(), "xtask: {error:#}");
}

/// A line that is drawn over the previous one on a terminal, and not shown elsewhere.
pub(crate) fn transient(text: &str) {
    if std::io::stdout().is_terminal() {
        let shown: String = text.chars().filter(|c| !c.is_control()).take(78).collect();
        let mut out = std::io::stdout().lock();
        let _ = write!(out, "\r\x1b[2K{shown}");
        let _ = out.flush();
    }
}

/// Takes the transient line away.
pub(crate) fn clear_transient() {
    if std::io::stdout().is_terminal() {
        let mut out = std::io::stdout().lock();
        let _ = write!(out, "\r\x1b[2K");
        let _ = out.flush();
    }
}

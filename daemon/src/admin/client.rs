//! What the commands ask the daemon with: a path, and the escape for what stands in it. It parses no answer.
//! `fairway get`, `top`, `explain` and `check` call it.

use std::path::Path;

use anyhow::Result;

/// Asks for `path` (with its query) and returns the body.
///
/// # Errors
/// One sentence: the daemon does not run, or what it says is wrong with the request.
pub fn fetch(run_dir: &Path, path: &str) -> Result<String> {
    Ok(sandbox::ask(run_dir, path)?.body)
}

/// Escapes a value for the query of a path (RFC 3986 section 2.1).
pub fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte))
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

//! One blocking request to the daemon's admin socket. It never retries and starts no runtime; `fairway get` and
//! `fairway explain` call it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::server::SOCKET;

/// Longer than the slowest answer: one of a node with 50,000 services.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks for `path` (with its query) and returns the body.
///
/// # Errors
/// One sentence: the daemon does not run, or what it says is wrong with the request.
pub fn fetch(run_dir: &Path, path: &str) -> Result<String> {
    let socket = run_dir.join(SOCKET);
    let mut stream = UnixStream::connect(&socket).with_context(|| {
        format!("no daemon answers on {}: start `fairway run`, or name its --run-dir", socket.display())
    })?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    // HTTP/1.0: the body ends with the connection, so there is nothing to parse but the status.
    write!(stream, "GET {path} HTTP/1.0\r\nHost: fairway\r\n\r\n")?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).context("the daemon did not answer in time")?;
    let (head, body) = reply.split_once("\r\n\r\n").context("the daemon's answer is not HTTP")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        bail!("{}", body.trim());
    }
    Ok(body.to_owned())
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

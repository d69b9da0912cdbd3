//! One blocking request to the daemon's admin socket. It never retries and starts no runtime. The runner of a pod
//! and every command of `fairway` that asks the daemon call it.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Pid;

/// The socket in the daemon's run directory.
pub const SOCKET: &str = "admin.sock";
/// Longer than the slowest answer: one of a node with 50,000 services.
const TIMEOUT: Duration = Duration::from_secs(10);
/// 250,000 endpoints, each a line of some hundred bytes, and as much again.
const ANSWER_LIMIT: u64 = 256 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nothing listens.
    #[error("no daemon answers at {0}: start `fairway run` first, or name its directory with --run-dir")]
    NoDaemon(PathBuf),
    /// What the daemon says is wrong with the request.
    #[error("{0}")]
    Refused(String),
    /// The conversation broke off.
    #[error("asking the daemon at {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No daemon of a node of any size says as much.
    #[error("the daemon's answer is longer than {} MiB: ask it for less", ANSWER_LIMIT >> 20)]
    TooLong,
    /// It is not HTTP.
    #[error("the daemon's answer is not understood: {0}")]
    Answer(&'static str),
}

/// What the daemon said.
pub struct Answer {
    /// The body.
    pub body: String,
    /// The daemon's process, where it can be seen.
    pub daemon: Option<Pid>,
}

/// Asks the daemon of `run_dir` for a path with its query.
pub fn ask(run_dir: &Path, target: &str) -> Result<Answer, AskError> {
    let path = run_dir.join(SOCKET);
    let io = |source| AskError::Io { path: path.clone(), source };
    let mut socket = UnixStream::connect(&path).map_err(|error| {
        let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind());
        if nobody { AskError::NoDaemon(path.clone()) } else { io(error) }
    })?;
    let daemon = peer(&socket);
    socket.set_read_timeout(Some(TIMEOUT)).map_err(io)?;
    socket.set_write_timeout(Some(TIMEOUT)).map_err(io)?;
    // 1.0: the answer ends with the connection, never in chunks.
    let request = format!("GET {target} HTTP/1.0\r\nHost: fairway\r\n\r\n");
    socket.write_all(request.as_bytes()).map_err(io)?;
    let answer = read(socket, ANSWER_LIMIT).map_err(io)?.ok_or(AskError::TooLong)?;
    Ok(Answer { body: body(&answer)?, daemon })
}

/// All that is said; None where that is more than `limit`.
fn read(from: impl Read, limit: u64) -> io::Result<Option<String>> {
    let mut said = Vec::new();
    from.take(limit + 1).read_to_end(&mut said)?;
    if said.len() as u64 > limit {
        return Ok(None);
    }
    String::from_utf8(said).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// The process at the other end.
pub(crate) fn peer(socket: &UnixStream) -> Option<Pid> {
    rustix::net::sockopt::socket_peercred(socket).ok().map(|credentials| credentials.pid)
}

fn body(answer: &str) -> Result<String, AskError> {
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(AskError::Answer("it breaks off"))?;
    match head.split_whitespace().nth(1) {
        // A daemon that ended meanwhile.
        Some("200") if announced(head).is_some_and(|length| length != body.len()) => {
            Err(AskError::Answer("it breaks off"))
        }
        Some("200") => Ok(body.to_owned()),
        Some(status) if body.trim().is_empty() => {
            Err(AskError::Refused(format!("the daemon answered with status {status}")))
        }
        Some(_) => Err(AskError::Refused(body.trim().to_owned())),
        None => Err(AskError::Answer("it has no status")),
    }
}

/// How long the body is to be, where the head says it.
fn announced(head: &str) -> Option<usize> {
    let mut fields = head.lines().filter_map(|line| line.split_once(':'));
    let (_, length) = fields.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    length.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let ok = body("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        assert_eq!(ok, "{}");
        let refused =
            body("HTTP/1.1 503 Service Unavailable\r\n\r\nservices are not listed yet\n").unwrap_err();
        assert_eq!(refused.to_string(), "services are not listed yet");
        assert!(matches!(body("HTTP/1.1 200"), Err(AskError::Answer(_))));
    }

    #[test]
    fn an_answer_that_is_cut_is_not_taken_for_whole() {
        let half = "HTTP/1.0 200 OK\r\nContent-Length: 20\r\n\r\n{\"half\":";
        assert!(matches!(body(half), Err(AskError::Answer("it breaks off"))));
        assert_eq!(read(&b"four"[..], 4).unwrap().as_deref(), Some("four"));
        assert_eq!(read(&b"fives"[..], 4).unwrap(), None);
    }
}

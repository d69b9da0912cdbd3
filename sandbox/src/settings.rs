//! What the runner of a pod asks the daemon for, over the admin socket: one blocking HTTP request. The daemon
//! serves the same type, as JSON, on `GET /sandbox-settings?namespace=NS&links=BOOL`.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::environment::Variable;
use crate::namespace::NetworkNamespace;

/// The daemon answers from memory; longer than this, it hangs.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A namespace of ten thousand services has an environment of about ten megabytes.
const ANSWER_LIMIT: u64 = 64 << 20;

/// Facts of the node that every pod of a namespace needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    /// The node's name.
    pub node_name: String,
    /// Its addresses, the primary one of each family first.
    pub node_addresses: Vec<IpAddr>,
    /// The ranges that pods get their addresses from.
    pub pod_cidrs: Vec<IpNet>,
    /// Where pods ask for names.
    pub cluster_dns: Vec<IpAddr>,
    /// For example `cluster.local`.
    pub cluster_domain: String,
    /// The node's cgroup, an absolute path in the v2 hierarchy.
    pub cgroup: PathBuf,
    /// Where the daemon pins its maps.
    pub bpf_dir: PathBuf,
    /// The MTU of pods' links.
    pub mtu: u32,
    /// The `resolv.conf` of the node's real upstreams, without loopback nameservers: see
    /// [`crate::upstreams`].
    pub resolv_conf: String,
    /// The service environment of the namespace that was asked for: see [`crate::service_environment`].
    pub environment: Vec<Variable>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Nothing listens.
    #[error("no daemon answers at {0}: start `fairway run` first, or name its directory with --run-dir")]
    NoDaemon(PathBuf),
    /// The daemon refused, with its reason.
    #[error("the daemon refused: {0}")]
    Refused(String),
    /// The conversation broke off.
    #[error("asking the daemon at {path}: {source}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The answer is not what this version expects.
    #[error("the daemon's answer is not understood: {0}")]
    Answer(String),
}

/// Asks the daemon of `run_dir`. The namespace is that of the daemon, where it can be seen: the pod belongs to
/// the daemon's node, wherever the command was typed.
pub fn fetch_settings(
    run_dir: &Path,
    namespace: &str,
    links: bool,
) -> Result<(Settings, Option<NetworkNamespace>), SettingsError> {
    let path = run_dir.join("admin.sock");
    let target = format!("/sandbox-settings?namespace={namespace}&links={links}");
    let (body, daemon) = request(&path, &target)?;
    let settings = serde_json::from_slice(&body).map_err(|error| SettingsError::Answer(error.to_string()))?;
    let node = daemon.and_then(|pid| NetworkNamespace::open(Path::new(&format!("/proc/{pid}/ns/net"))).ok());
    Ok((settings, node))
}

/// The network namespace of the daemon of `run_dir`: that of the node. None where no daemon is seen.
pub(crate) fn node_namespace(run_dir: &Path) -> Option<NetworkNamespace> {
    let socket = UnixStream::connect(run_dir.join("admin.sock")).ok()?;
    let credentials = rustix::net::sockopt::socket_peercred(&socket).ok()?;
    NetworkNamespace::open(Path::new(&format!("/proc/{}/ns/net", credentials.pid.as_raw_nonzero()))).ok()
}

/// The body of the answer, and the daemon's process.
fn request(path: &Path, target: &str) -> Result<(Vec<u8>, Option<i32>), SettingsError> {
    let io = |source| SettingsError::Io { path: path.to_path_buf(), source };
    let mut socket = UnixStream::connect(path).map_err(|error| {
        let nobody = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused].contains(&error.kind());
        if nobody { SettingsError::NoDaemon(path.to_path_buf()) } else { io(error) }
    })?;
    let daemon = rustix::net::sockopt::socket_peercred(&socket).ok();
    let daemon = daemon.map(|credentials| credentials.pid.as_raw_nonzero().get());
    socket.set_read_timeout(Some(TIMEOUT)).map_err(io)?;
    socket.set_write_timeout(Some(TIMEOUT)).map_err(io)?;
    // 1.0: the answer ends with the connection, never in chunks.
    let request = format!("GET {target} HTTP/1.0\r\nHost: fairway\r\n\r\n");
    socket.write_all(request.as_bytes()).map_err(io)?;
    let mut answer = Vec::new();
    socket.take(ANSWER_LIMIT).read_to_end(&mut answer).map_err(io)?;
    Ok((body(&answer)?, daemon))
}

fn body(answer: &[u8]) -> Result<Vec<u8>, SettingsError> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let end = end.ok_or_else(|| SettingsError::Answer("it breaks off".to_owned()))?;
    let (head, body) = (&answer[..end], &answer[end + 4..]);
    let status = String::from_utf8_lossy(head).split_whitespace().nth(1).map(str::to_owned);
    match status.as_deref() {
        Some("200") => Ok(body.to_vec()),
        Some(status) => {
            let reason = String::from_utf8_lossy(body).trim().to_owned();
            Err(SettingsError::Refused(if reason.is_empty() { format!("status {status}") } else { reason }))
        }
        None => Err(SettingsError::Answer("it has no status".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let ok = body(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        assert_eq!(ok, b"{}");
        let refused =
            body(b"HTTP/1.1 503 Service Unavailable\r\n\r\nservices are not listed yet\n").unwrap_err();
        assert_eq!(refused.to_string(), "the daemon refused: services are not listed yet");
        assert!(matches!(body(b"HTTP/1.1 200"), Err(SettingsError::Answer(_))));
    }

    #[test]
    fn a_daemon_is_asked_for_a_namespace() {
        let folder = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(folder.path().join("admin.sock")).unwrap();
        let settings = Settings {
            node_name: "n".into(),
            node_addresses: vec!["192.0.2.7".parse().unwrap()],
            pod_cidrs: vec!["10.1.0.0/24".parse().unwrap(), "fd00::/64".parse().unwrap()],
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".into(),
            cgroup: "/c".into(),
            bpf_dir: "/b".into(),
            mtu: 1450,
            resolv_conf: String::new(),
            environment: vec![("A".into(), "b".into())],
        };
        let body = serde_json::to_string(&settings).unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let count = socket.read(&mut request).unwrap();
            write!(socket, "HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{body}").unwrap();
            String::from_utf8_lossy(&request[..count]).into_owned()
        });
        let (found, node) = fetch_settings(folder.path(), "shop", false).unwrap();
        assert_eq!(found, settings);
        assert!(node.is_some(), "the daemon's namespace is known");
        let line = "GET /sandbox-settings?namespace=shop&links=false HTTP/1.0\r\n";
        assert!(daemon.join().unwrap().starts_with(line));
    }

    #[test]
    fn without_a_daemon_it_says_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let error = fetch_settings(folder.path(), "default", true).unwrap_err();
        let socket = folder.path().join("admin.sock");
        let expected = format!(
            "no daemon answers at {}: start `fairway run` first, or name its directory with --run-dir",
            socket.display()
        );
        assert_eq!(error.to_string(), expected);
    }
}

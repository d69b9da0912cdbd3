//! What the runner of a pod asks the daemon for, over the admin socket. The daemon serves the same type, as JSON,
//! on `GET /sandbox-settings?namespace=NS&links=BOOL`.

use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::ask::{AskError, SOCKET, ask, peer};
use crate::environment::Variable;
use crate::namespace::NetworkNamespace;

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
    /// The daemon did not answer.
    #[error(transparent)]
    Ask(#[from] AskError),
    /// The answer is not what this version expects.
    #[error("the daemon's answer is not understood: {0}")]
    Unknown(#[from] serde_json::Error),
}

/// Asks the daemon of `run_dir`. The namespace is that of the daemon, where it can be seen: the pod belongs to
/// the daemon's node, wherever the command was typed.
pub fn fetch_settings(
    run_dir: &Path,
    namespace: &str,
    links: bool,
) -> Result<(Settings, Option<NetworkNamespace>), SettingsError> {
    let answer = ask(run_dir, &format!("/sandbox-settings?namespace={namespace}&links={links}"))?;
    Ok((serde_json::from_str(&answer.body)?, answer.daemon.and_then(namespace_of)))
}

/// The network namespace of the daemon of `run_dir`: that of the node. None where no daemon is seen.
pub(crate) fn node_namespace(run_dir: &Path) -> Option<NetworkNamespace> {
    let socket = UnixStream::connect(run_dir.join(SOCKET)).ok()?;
    namespace_of(peer(&socket)?)
}

fn namespace_of(process: Pid) -> Option<NetworkNamespace> {
    NetworkNamespace::open(Path::new(&format!("/proc/{}/ns/net", process.as_raw_nonzero()))).ok()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

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

//! Which process has which socket, from `/proc`: for people who ask. It costs a look at every open file of the
//! node, so nothing that runs by itself may call it.

use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;

use serde::{Deserialize, Serialize};

/// A process of the node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id, in the PID namespace of the daemon.
    pub id: u32,
    /// Its name.
    pub name: String,
}

/// The process of every socket, by the socket's inode; of several that share it, the first. Processes that may
/// not be looked into are left out.
pub fn by_socket() -> HashMap<u32, Process> {
    let mut found = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok) {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
        let files = std::fs::read_dir(entry.path().join("fd")).into_iter().flatten().filter_map(Result::ok);
        for inode in files.filter_map(|file| inode(&std::fs::read_link(file.path()).ok()?)) {
            found.entry(inode).or_insert_with(|| Process { id, name: name.trim().to_owned() });
        }
    }
    found
}

/// The number in `socket:[4711]`.
fn inode(link: &std::path::Path) -> Option<u32> {
    let text = std::str::from_utf8(link.as_os_str().as_bytes()).ok()?;
    text.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn an_own_socket_is_found() {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let file = std::fs::metadata(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&socket)));
        let inode = u32::try_from(file.unwrap().ino()).unwrap();
        assert_eq!(by_socket()[&inode].id, std::process::id());
    }
}

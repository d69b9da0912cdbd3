//! One walk over all namespaces of the node and the recorded sockets in each. It must run on a thread of its
//! own: what could not come back to its namespace must not do anything else. Called by the terminator and for
//! `fairway get connections`.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use ebpf::reverse::Record;
use model::Protocol;

use super::diag::{Diag, Socket};
use super::namespaces;
use crate::sys;

/// One socket that went through a frontend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Its protocol.
    pub protocol: Protocol,
    /// Its own address.
    pub local: SocketAddr,
    /// What it dialled.
    pub frontend: SocketAddr,
    /// Where that led.
    pub backend: SocketAddr,
    /// The cookie of its network namespace.
    pub netns: u64,
    /// Its number in `/proc/PID/fd`; 0 if no process has it any more.
    pub inode: u32,
}

/// What a walk could not see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unseen {
    /// How many namespaces could not be entered.
    pub namespaces: usize,
    /// Why the last of them could not.
    pub reason: Option<String>,
}

/// Lists connections. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connections(Arc<OwnedFd>);

/// The records of all sockets, by cookie.
pub(crate) type Records = HashMap<u64, Record>;

/// One namespace during a walk.
pub(super) struct Place {
    pub(super) diag: Diag,
    /// The cookie of the namespace.
    pub(super) cookie: u64,
}

impl Connections {
    pub(crate) fn new(reverse: OwnedFd) -> Self {
        Self(Arc::new(reverse))
    }

    /// What every connected socket dialled, and where that led.
    pub(crate) fn records(&self) -> io::Result<Records> {
        let elements = sys::elements::<u64, Record>(self.0.as_fd())?;
        Ok(elements.into_iter().filter(|(_, record)| record.is_known()).collect())
    }

    /// Removes the record of a socket that is no more.
    pub(super) fn forget(&self, cookie: u64) -> io::Result<()> {
        sys::remove(self.0.as_fd(), &cookie)
    }

    /// Every connection of the node, in the order of the namespaces, and what could not be seen.
    ///
    /// # Errors
    ///
    /// If not even the own namespace can be seen.
    pub fn list(&self) -> io::Result<(Vec<Connection>, Unseen)> {
        let records = self.records()?;
        let walk_all = || {
            let mut found = Vec::new();
            let unseen = walk(|place| {
                for protocol in [Protocol::Tcp, Protocol::Udp] {
                    place.diag.connected(protocol, |socket| {
                        let record = records.get(&socket.cookie());
                        found.extend(record.map(|record| connection(&socket, record, place.cookie)));
                    })?;
                }
                Ok(())
            })?;
            Ok((found, unseen))
        };
        std::thread::scope(|scope| {
            scope.spawn(walk_all).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

/// Visits the own namespace and then every other one, and comes back.
pub(super) fn walk(mut visit: impl FnMut(&Place) -> io::Result<()>) -> io::Result<Unseen> {
    let mut visit_here = || visit(&Place { diag: Diag::open()?, cookie: sys::netns_cookie()? });
    visit_here()?;
    let own = namespaces::own()?;
    let mut visit_at = |path: &Path| {
        namespaces::enter(&File::open(path)?)?;
        let visited = visit_here();
        namespaces::enter(&own)?;
        visited
    };
    let mut others = namespaces::others();
    others.retain(|_, path| visit_at(path).is_err());
    let mut unseen = Unseen::default();
    if others.is_empty() {
        return Ok(unseen);
    }
    // What led there may have ended under our eyes: a process, a mount. A namespace that is still there has
    // another way now; one that is not has taken its sockets with it.
    for path in namespaces::others()
        .into_iter()
        .filter_map(|(number, path)| others.contains_key(&number).then_some(path))
    {
        if let Err(error) = visit_at(&path) {
            unseen.namespaces += 1;
            unseen.reason = Some(format!("{}: {error}", path.display()));
        }
    }
    Ok(unseen)
}

fn connection(socket: &Socket, record: &Record, netns: u64) -> Connection {
    Connection {
        protocol: socket.protocol,
        local: socket.local(),
        frontend: frontend(record),
        backend: socket.remote(),
        netns,
        inode: socket.inode,
    }
}

/// What a socket dialled.
pub(super) fn frontend(record: &Record) -> SocketAddr {
    SocketAddr::new((*record.address()).into(), record.port().number())
}

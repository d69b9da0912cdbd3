//! One walk over all namespaces of the node and the recorded sockets in each. It must run on a thread of its
//! own: what could not come back to its namespace must not do anything else. Called by the terminator and for
//! `fairway get connections`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use ebpf::reverse::Record;
use model::Protocol;

use super::diag::{Diag, Socket};
use super::namespaces;
use super::records::RecordMaps;
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
pub struct Connections(RecordMaps);

/// One namespace during a walk.
pub(super) struct Place {
    pub(super) diag: Diag,
    /// The cookie of the namespace.
    pub(super) cookie: u64,
}

impl Connections {
    pub(crate) const fn new(records: RecordMaps) -> Self {
        Self(records)
    }

    /// Every connection of the node, in the order of the namespaces, and what could not be seen.
    ///
    /// # Errors
    ///
    /// If not even the own namespace can be seen.
    pub fn list(&self) -> io::Result<(Vec<Connection>, Unseen)> {
        let records = self.0.read()?;
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

/// What came of one way to a namespace.
enum Went {
    There,
    /// It is there, but cannot be looked at.
    InVain(io::Error),
    Nowhere(io::Error),
}

/// Visits the own namespace and then every other one, each once, and comes back; the error is that of the own one.
pub(super) fn walk(mut visit: impl FnMut(&Place) -> io::Result<()>) -> io::Result<Unseen> {
    let mut visit_here = || visit(&Place { diag: Diag::open()?, cookie: sys::netns_cookie()? });
    visit_here()?;
    let own = namespaces::own()?;
    let mut go = |path: &Path| -> io::Result<Went> {
        if let Err(error) = File::open(path).and_then(|namespace| namespaces::enter(&namespace)) {
            return Ok(Went::Nowhere(error));
        }
        let visited = visit_here();
        namespaces::enter(&own)?;
        Ok(visited.map_or_else(Went::InVain, |()| Went::There))
    };
    let (mut unseen, mut lost) = (Unseen::default(), BTreeSet::new());
    for (number, path) in namespaces::others() {
        match go(&path)? {
            Went::There => {}
            Went::InVain(error) => unseen.note(&path, &error),
            Went::Nowhere(_) => drop(lost.insert(number)),
        }
    }
    if lost.is_empty() {
        return Ok(unseen);
    }
    // What led there may have ended under our eyes: a process, a mount. A namespace that is still there has
    // another way now; one that is not has taken its sockets with it.
    for (_, path) in namespaces::others().into_iter().filter(|(number, _)| lost.contains(number)) {
        match go(&path)? {
            Went::There => {}
            Went::InVain(error) | Went::Nowhere(error) => unseen.note(&path, &error),
        }
    }
    Ok(unseen)
}

impl Unseen {
    fn note(&mut self, path: &Path, error: &io::Error) {
        self.namespaces += 1;
        self.reason = Some(format!("{}: {error}", path.display()));
    }
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
    SocketAddr::new(record.address().into(), record.port().number())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    /// What a visit of all namespaces comes to where that of every other one fails: visits by cookie.
    fn fail_elsewhere() -> io::Result<(HashMap<u64, usize>, Unseen)> {
        let own = sys::netns_cookie()?;
        let mut visits: HashMap<u64, usize> = HashMap::new();
        let unseen = walk(|place| {
            *visits.entry(place.cookie).or_default() += 1;
            if place.cookie == own { Ok(()) } else { Err(io::Error::other("no")) }
        })?;
        Ok((visits, unseen))
    }

    #[test]
    fn a_namespace_that_cannot_be_looked_at_is_visited_once_and_told() {
        let mut process = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo there; read end"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare of util-linux");
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let walked = (!line.is_empty()).then(|| std::thread::spawn(fail_elsewhere).join());
        drop(process.stdin.take());
        process.wait().expect("it ends with its input");
        let Some(walked) = walked else {
            assert!(std::env::var_os("CI").is_none(), "this test needs root");
            eprintln!("SKIP: a namespace needs root");
            return;
        };
        let (visits, unseen) = walked.expect("no panic").expect("the own namespace can be looked at");
        assert!(visits.len() > 1 && visits.values().all(|count| *count == 1), "{visits:?}");
        // Others may come and go on this machine.
        assert!(unseen.namespaces >= 1 && unseen.reason.is_some_and(|reason| reason.ends_with(": no")));
    }
}

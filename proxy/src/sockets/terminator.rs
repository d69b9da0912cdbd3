//! Ends sockets that have lost their endpoint and finds pods, on a thread of its own: a node with thousands of
//! sockets must not keep the control loop waiting. Pictures that arrive meanwhile coalesce. Owned by the proxy.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ebpf::maps::RECORDS_ENTRIES;
use ebpf::reverse::Record;
use model::{Protocol, Snapshot};

use super::diag::Socket;
use super::host_ports::HostPorts;
use super::pods::Finding;
use super::records::{RecordMaps, Records};
use super::scan::{Connections, Place, Unseen, frontend, walk};
use super::stale::{Gone, Judge, Picture, concerns_datagrams};
use crate::tables::Tables;

/// A socket in the middle of connect() when the endpoint went is not in a dump yet, so each picture is looked
/// at twice. R9 wants the second look well within a second.
const SECOND_LOOK: Duration = Duration::from_millis(500);
/// The least time between two walks: churn must not occupy a CPU.
const PAUSE: Duration = Duration::from_millis(100);

/// What has been ended so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// UDP sockets.
    pub datagrams: u64,
    /// TCP connections.
    pub streams: u64,
    /// What the last walk could not see.
    pub unseen: Unseen,
}

/// The thread and the way to it.
#[derive(Debug)]
pub(crate) struct Terminator {
    shared: Arc<Shared>,
    records: RecordMaps,
    thread: Option<JoinHandle<()>>,
    /// Kept only if TCP connections are to be ended.
    gone: Option<Gone>,
}

#[derive(Debug, Default)]
struct Shared {
    inbox: Mutex<Inbox>,
    filled: Condvar,
    datagrams: AtomicU64,
    streams: AtomicU64,
    unseen: Mutex<Unseen>,
}

#[derive(Debug, Default)]
struct Inbox {
    latest: Option<Picture>,
    ending: bool,
}

/// The pinned maps that speak of sockets.
#[derive(Debug)]
pub(crate) struct SocketMaps {
    /// What each socket dialled.
    pub(crate) records: RecordMaps,
    /// Pods of other runtimes.
    pub(crate) found: OwnedFd,
    /// Ports of the node that lead to pods.
    pub(crate) host_ports: OwnedFd,
    /// The addresses of pods.
    pub(crate) pods: OwnedFd,
    /// The addresses of the node.
    pub(crate) ranges: OwnedFd,
}

/// The same as the thread reads and writes them.
struct Maps {
    records: RecordMaps,
    found: OwnedFd,
    host_ports: HostPorts,
}

/// What the thread waited for.
enum Due {
    Picture(Picture),
    SecondLook,
    End,
}

impl Terminator {
    /// Starts the thread in the network namespace of this one. `streams` says whether TCP connections to pods that
    /// are gone are ended, too.
    pub(crate) fn start(maps: SocketMaps, streams: bool) -> io::Result<Self> {
        let SocketMaps { records, found, host_ports, pods, ranges } = maps;
        let shared = Arc::new(Shared::default());
        let host_ports = HostPorts::new(host_ports, pods, ranges)?;
        let inside = Arc::clone(&shared);
        let maps = Maps { records: records.clone(), found, host_ports };
        let thread = std::thread::Builder::new().name("terminator".into());
        let thread = thread.spawn(move || run(&inside, &maps))?;
        Ok(Self { shared, records, thread: Some(thread), gone: streams.then(Gone::default) })
    }

    /// Has the sockets judged anew and pods found, if what changed between two snapshots may have left a socket
    /// behind, or is a pod. After a start it may always have.
    pub(crate) fn follow(&mut self, before: &Snapshot, after: &Arc<Snapshot>, tables: &Tables) {
        let went = self.gone.as_mut().is_some_and(|gone| gone.follow(before, after));
        let same_pods = before.pods.diff(&after.pods).next().is_none();
        if before.is_complete() && same_pods && !went && !concerns_datagrams(before, after) {
            return;
        }
        self.look(after, tables);
    }

    /// Has every socket judged.
    pub(crate) fn look(&self, snapshot: &Arc<Snapshot>, tables: &Tables) {
        let gone = self.gone.as_ref().map(Gone::addresses);
        let picture = Picture { snapshot: Arc::clone(snapshot), tables: tables.clone(), gone };
        self.shared.inbox().latest = Some(picture);
        self.shared.filled.notify_one();
    }

    pub(crate) fn ended(&self) -> Ended {
        Ended {
            datagrams: self.shared.datagrams.load(Ordering::Relaxed),
            streams: self.shared.streams.load(Ordering::Relaxed),
            unseen: self.shared.unseen().clone(),
        }
    }

    pub(crate) fn connections(&self) -> Connections {
        Connections::new(self.records.clone())
    }

    /// What every connected socket dialled.
    pub(crate) fn records(&self) -> io::Result<Records> {
        self.records.read()
    }
}

impl Drop for Terminator {
    fn drop(&mut self) {
        self.shared.inbox().ending = true;
        self.shared.filled.notify_one();
        // A panic of the thread has been reported by itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn inbox(&self) -> std::sync::MutexGuard<'_, Inbox> {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unseen(&self) -> std::sync::MutexGuard<'_, Unseen> {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for a picture, and no longer than `patience` if that is given.
    fn wait(&self, patience: Option<Duration>) -> Due {
        let idle = |inbox: &mut Inbox| inbox.latest.is_none() && !inbox.ending;
        let inbox = self.inbox();
        let mut inbox = match patience {
            Some(patience) => {
                let waited = self.filled.wait_timeout_while(inbox, patience, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.filled.wait_while(inbox, idle).unwrap_or_else(PoisonError::into_inner),
        };
        match (inbox.ending, inbox.latest.take()) {
            (true, _) => Due::End,
            (false, Some(picture)) => Due::Picture(picture),
            (false, None) => Due::SecondLook,
        }
    }
}

fn run(shared: &Shared, maps: &Maps) {
    let (mut again, mut sweep) = (None, Sweep::First);
    loop {
        let (picture, first) = match (shared.wait(again.is_some().then_some(SECOND_LOOK)), again.take()) {
            (Due::End, _) => return,
            (Due::Picture(picture), _) => (picture, true),
            (Due::SecondLook, Some(picture)) => (picture, false),
            (Due::SecondLook, None) => continue,
        };
        if let Err(error) = look(shared, maps, &picture, &mut sweep) {
            tracing::warn!(%error, "the sockets of this node could not be looked at");
        }
        again = first.then_some(picture);
        std::thread::sleep(PAUSE);
    }
}

/// One walk: whatever is stale by `picture` is ended, and pods are found.
fn look(shared: &Shared, maps: &Maps, picture: &Picture, sweep: &mut Sweep) -> io::Result<()> {
    let records = maps.records.read()?;
    let mut pods = Finding::new(&picture.snapshot);
    let (mut judge, mut seen) = (Judge::new(picture), HashSet::new());
    let streams = picture.gone.is_some() || sweep.is_due(&records);
    let host_ports = maps.host_ports.numbers()?;
    let unseen = walk(|place| {
        pods.look(place.cookie)?;
        let mut is_stale = |protocol, record: Option<&Record>, remote: SocketAddr| match (record, protocol) {
            (Some(record), _) if !record.is_of_host_port() => {
                Ok(judge.is_stale(protocol, frontend(record), remote))
            }
            (Some(record), Protocol::Udp) => {
                maps.host_ports.lead(frontend(record), remote).map(|leads| !leads)
            }
            // Connected before its pod came, it would never reach it. A Service wins over the pod.
            (None, Protocol::Udp) if host_ports.contains(&remote.port()) && !judge.is_frontend(remote) => {
                maps.host_ports.have_come(remote, place.cookie)
            }
            // As those through a service live on in an address that left its slices.
            (Some(_), Protocol::Tcp | Protocol::Sctp) | (None, _) => Ok(false),
        };
        end_stale(&mut is_stale, (&records, &mut seen), place, Protocol::Udp, &shared.datagrams)?;
        if streams {
            end_stale(&mut is_stale, (&records, &mut seen), place, Protocol::Tcp, &shared.streams)?;
        }
        Ok(())
    })?;
    pods.write(&maps.found)?;
    if unseen.namespaces == 0 && sweep.is_due(&records) {
        sweep.step(&maps.records, records.into_keys().filter(|cookie| !seen.contains(cookie)).collect())?;
    }
    let mut known = shared.unseen();
    if let Some(reason) = &unseen.reason
        && known.namespaces == 0
    {
        tracing::warn!(
            namespaces = unseen.namespaces,
            reason,
            "sockets of some pods cannot be ended: entering their network namespaces needs CAP_SYS_ADMIN"
        );
    }
    *known = unseen;
    Ok(())
}

/// Records whose socket was closed while no program saw it: after a start there may be some, and when the map
/// fills up. A socket in the middle of connect() cannot be seen, so only what two looks miss is removed.
enum Sweep {
    First,
    Second(HashSet<u64>),
    Done,
}

impl Sweep {
    fn is_due(&self, records: &Records) -> bool {
        match self {
            Self::First | Self::Second(_) => true,
            Self::Done => records.len() > RECORDS_ENTRIES as usize / 2,
        }
    }

    fn step(&mut self, records: &RecordMaps, missing: HashSet<u64>) -> io::Result<()> {
        match std::mem::replace(self, Self::Done) {
            Self::First | Self::Done => *self = Self::Second(missing),
            Self::Second(before) => records.forget(missing.intersection(&before))?,
        }
        Ok(())
    }
}

fn end_stale(
    is_stale: &mut impl FnMut(Protocol, Option<&Record>, SocketAddr) -> io::Result<bool>,
    (records, seen): (&Records, &mut HashSet<u64>),
    place: &Place,
    protocol: Protocol,
    counter: &AtomicU64,
) -> io::Result<()> {
    let (mut stale, mut failed): (Vec<Socket>, _) = (Vec::new(), None);
    place.diag.connected(protocol, |socket| {
        let record = records.get(&socket.cookie());
        // One that is closed and still says goodbye to its peer needs its record no more.
        if record.is_some() && socket.inode != 0 {
            seen.insert(socket.cookie());
        }
        match is_stale(protocol, record, socket.remote()) {
            Ok(true) => stale.push(socket),
            Ok(false) => {}
            Err(error) => failed = Some(error),
        }
    })?;
    let ended = place.diag.destroy(&stale)?;
    if ended > 0 {
        tracing::info!(ended, protocol = %protocol, netns = place.cookie, "ended sockets whose endpoint is gone");
        counter.fetch_add(ended as u64, Ordering::Relaxed);
    }
    failed.map_or(Ok(()), Err)
}

//! The sandboxes that run on this node, as their records say: reads `<run-dir>/pods/*/pod.json` and notices
//! at once when a pause process is gone, whoever ended it. The shell in `watch.rs` calls it.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use sandbox::{PodId, Record};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::{AbortHandle, JoinSet};

use crate::source::report::{Problem, Reason};

/// The file of one sandbox in its directory.
const RECORD: &str = "pod.json";
/// Held by whoever runs the sandbox.
const LOCK: &str = "lock";

/// The running sandboxes.
#[derive(Debug)]
pub(crate) struct Records {
    run_dir: PathBuf,
    folder: PathBuf,
    /// By directory name.
    running: BTreeMap<String, Record>,
    /// A task for each pause process, which ends with it.
    deaths: JoinSet<()>,
    awaited: BTreeMap<u32, AbortHandle>,
}

impl Records {
    /// The records under a run directory, none of them read yet.
    pub(crate) fn new(run_dir: &Path) -> Self {
        Self {
            run_dir: run_dir.to_owned(),
            folder: run_dir.join("pods"),
            running: BTreeMap::new(),
            deaths: JoinSet::new(),
            awaited: BTreeMap::new(),
        }
    }

    /// Where the directories of the sandboxes are.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where the records are now: the directories of the sandboxes.
    pub(crate) fn directories(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
    }

    /// The records of the sandboxes that run, by name.
    pub(crate) fn list(&self) -> Vec<Record> {
        self.running.values().cloned().collect()
    }

    /// Reads all records again. One that cannot be read, because it is being written, stays as it was for as
    /// long as its process lives.
    pub(crate) fn scan(&mut self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut running = BTreeMap::new();
        let mut processes = BTreeMap::new();
        let held: BTreeSet<PodId> =
            sandbox::records(&self.run_dir).into_iter().map(|record| record.pod).collect();
        for directory in self.directories() {
            let key = directory.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let record = match read(&directory.join(RECORD)) {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(fault) => {
                    let text = format!("{}/{RECORD}: {fault}", directory.display());
                    problems.push(Problem::new(Reason::Unreadable, text));
                    let Some(known) = self.running.get(&key) else { continue };
                    known.clone()
                }
            };
            // What a killed runner left behind, with a process number that somebody else may have by now.
            if directory.join(LOCK).exists() && !held.contains(&record.pod) {
                continue;
            }
            if let Some(process) = open(record.pause) {
                processes.insert(record.pause, process);
                running.insert(key, record);
            }
        }
        self.running = running;
        self.await_deaths(processes);
        problems
    }

    /// Waits until a pause process has ended; the records are to be read again then.
    pub(crate) async fn death(&mut self) {
        if self.deaths.is_empty() {
            std::future::pending::<()>().await;
        }
        self.deaths.join_next().await;
    }

    fn await_deaths(&mut self, processes: BTreeMap<u32, OwnedFd>) {
        while self.deaths.try_join_next().is_some() {}
        let wanted: BTreeSet<u32> = processes.keys().copied().collect();
        self.awaited.retain(|pause, task| {
            let keep = wanted.contains(pause) && !task.is_finished();
            if !keep {
                task.abort();
            }
            keep
        });
        for (pause, process) in processes {
            self.awaited.entry(pause).or_insert_with(|| self.deaths.spawn(end_of(process)));
        }
    }
}

/// Ends when the process has.
async fn end_of(process: OwnedFd) {
    // SAFETY: an OwnedFd is open, and the same descriptor, for as long as it lives; it is moved in here.
    let registered = unsafe { AsyncFd::register_with_interest(process, Interest::READABLE) };
    // A pidfd becomes readable when its process ends.
    match registered {
        Ok(process) => {
            let _ended = process.readable().await;
        }
        // No descriptors are left: the next scan, whatever causes it, asks about the process again.
        Err(_) => std::future::pending().await,
    }
}

/// A record; None where the directory has none (yet).
fn read(path: &Path) -> Result<Option<Record>, String> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// A handle of a process that is alive.
fn open(pause: u32) -> Option<OwnedFd> {
    let pid = Pid::from_raw(i32::try_from(pause).ok()?)?;
    let process = pidfd_open(pid, PidfdFlags::NONBLOCK).ok()?;
    let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
    // A zombie still has a number, but its pidfd is readable.
    let ended = rustix::event::poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&now));
    matches!(ended, Ok(0)).then_some(process)
}

//! The directory of a pod, `<run-dir>/pods/<namespace>_<name>`: its record, its files and its volumes. Whoever
//! runs the pod holds a lock on it; the kernel drops the lock with the process, so a directory without a holder
//! is a leftover, whatever it says.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::record::{PodId, Record};

const RECORD: &str = "pod.json";
const RUNNER: &str = "runner.json";

/// A file of a pod could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct DirectoryError {
    path: PathBuf,
    source: io::Error,
}

/// What `exec` and `delete` need to know of a running pod, beyond its record.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Runner {
    /// The process that holds the lock.
    pub(crate) runner: i32,
    /// The node's cgroup.
    pub(crate) cgroup: PathBuf,
    /// Where the daemon pins its maps.
    pub(crate) bpf_dir: PathBuf,
    /// How long the pod may take to end.
    pub(crate) grace_seconds: u64,
    /// Its PID namespace is its own.
    pub(crate) shares_processes: bool,
    /// Names and processes of the containers that were started and stay.
    pub(crate) containers: Vec<(String, i32)>,
}

/// The directory of a pod.
#[derive(Clone, Debug)]
pub(crate) struct PodDirectory {
    path: PathBuf,
}

/// The lock on a pod's directory, held as long as this value lives.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// The records of the pods that run.
pub fn records(run_dir: &Path) -> Vec<Record> {
    let Ok(entries) = fs::read_dir(run_dir.join("pods")) else { return Vec::new() };
    let mut found: Vec<Record> = entries
        .flatten()
        .map(|entry| PodDirectory { path: entry.path() })
        .filter(PodDirectory::is_held)
        .filter_map(|directory| directory.record().ok())
        .filter(|record| Path::new(&format!("/proc/{}", record.pause)).exists())
        .collect();
    found.sort_by(|a, b| a.pod.cmp(&b.pod));
    found
}

impl PodDirectory {
    pub(crate) fn of(run_dir: &Path, pod: &PodId) -> Self {
        Self { path: run_dir.join("pods").join(directory_name(pod)) }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn exists(&self) -> bool {
        self.path.exists()
    }

    /// Takes the directory, and makes it; None if it is held.
    pub(crate) fn claim(&self) -> Result<Option<Lock>, DirectoryError> {
        loop {
            fs::create_dir_all(&self.path).map_err(|source| self.error(source))?;
            let path = self.path.join("lock");
            let opened = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let file = match opened {
                Ok(file) => file,
                // The holder before has just removed it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(DirectoryError { path, source }),
            };
            if !set_lock(&file).map_err(|source| DirectoryError { path: path.clone(), source })? {
                return Ok(None);
            }
            let same = |known: fs::Metadata| file.metadata().is_ok_and(|mine| mine.ino() == known.ino());
            if fs::metadata(&path).is_ok_and(same) {
                return Ok(Some(Lock { _file: file }));
            }
        }
    }

    /// Somebody runs the pod.
    pub(crate) fn is_held(&self) -> bool {
        File::open(self.path.join("lock")).is_ok_and(|file| is_locked(&file))
    }

    pub(crate) fn record(&self) -> Result<Record, DirectoryError> {
        self.read_json(RECORD)
    }

    pub(crate) fn runner(&self) -> Result<Runner, DirectoryError> {
        self.read_json(RUNNER)
    }

    pub(crate) fn write_record(&self, record: &Record) -> Result<(), DirectoryError> {
        self.write_json(RECORD, record)
    }

    pub(crate) fn write_runner(&self, runner: &Runner) -> Result<(), DirectoryError> {
        self.write_json(RUNNER, runner)
    }

    /// Writes a file of the pod; its path.
    pub(crate) fn write(&self, name: &str, text: &str) -> Result<PathBuf, DirectoryError> {
        let path = self.path.join(name);
        match fs::write(&path, text) {
            Ok(()) => Ok(path),
            Err(source) => Err(DirectoryError { path, source }),
        }
    }

    /// Makes a directory of the pod, for example a volume; its path.
    pub(crate) fn make(&self, name: &str) -> Result<PathBuf, DirectoryError> {
        let path = self.path.join(name);
        match fs::create_dir_all(&path) {
            Ok(()) => Ok(path),
            Err(source) => Err(DirectoryError { path, source }),
        }
    }

    /// Removes everything but the lock that is held.
    pub(crate) fn empty(&self) -> Result<(), DirectoryError> {
        let entries = fs::read_dir(&self.path).map_err(|source| self.error(source))?;
        for entry in entries.flatten().filter(|entry| entry.file_name() != "lock") {
            let path = entry.path();
            let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|source| DirectoryError { path, source })?;
        }
        Ok(())
    }

    pub(crate) fn remove(&self) -> Result<(), DirectoryError> {
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result.map_err(|source| self.error(source)),
        }
    }

    fn read_json<T: DeserializeOwned>(&self, name: &str) -> Result<T, DirectoryError> {
        let path = self.path.join(name);
        let value = fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
        value.map_err(|source| DirectoryError { path, source })
    }

    /// A reader sees the old file or the new one.
    fn write_json<T: Serialize>(&self, name: &str, value: &T) -> Result<(), DirectoryError> {
        let (path, fresh) = (self.path.join(name), self.path.join(format!(".{name}")));
        let write = || -> io::Result<()> {
            let mut file = File::create(&fresh)?;
            file.write_all(&serde_json::to_vec(value)?)?;
            fs::rename(&fresh, &path)
        };
        write().map_err(|source| DirectoryError { path: path.clone(), source })
    }

    fn error(&self, source: io::Error) -> DirectoryError {
        DirectoryError { path: self.path.clone(), source }
    }
}

/// The name of a pod's directory, here and among cgroups. Neither part can contain an underscore.
pub(crate) fn directory_name(pod: &PodId) -> String {
    format!("{}_{}", pod.namespace, pod.name)
}

/// True if the lock was free. The lock belongs to the open file, not to the process: threads count too.
fn set_lock(file: &File) -> io::Result<bool> {
    let mut lock = whole_file();
    // SAFETY: the structure is whole and outlives the call, which does not keep it.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw mut lock) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    let busy = [libc::EAGAIN, libc::EACCES].map(Some).contains(&error.raw_os_error());
    if busy { Ok(false) } else { Err(error) }
}

/// Asks without taking: a reader never makes a runner fail.
fn is_locked(file: &File) -> bool {
    let mut lock = whole_file();
    // SAFETY: the structure is whole and outlives the call, which writes the lock in the way into it.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_GETLK, &raw mut lock) };
    result == 0 && i32::from(lock.l_type) != libc::F_UNLCK
}

#[expect(clippy::cast_possible_truncation, reason = "both constants are small")]
const fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as i16,
        l_whence: libc::SEEK_SET as i16,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_holder() {
        let folder = tempfile::tempdir().unwrap();
        let pod = PodId { namespace: "shop".into(), name: "web".into() };
        let directory = PodDirectory::of(folder.path(), &pod);
        assert!(!directory.is_held());
        let lock = directory.claim().unwrap().expect("it is free");
        assert!(directory.is_held());
        assert!(directory.claim().unwrap().is_none());
        drop(lock);
        assert!(!directory.is_held());
        let _lock = directory.claim().unwrap().expect("it is free again");
        directory.write("hosts", "x").unwrap();
        directory.empty().unwrap();
        assert!(directory.is_held() && !folder.path().join("pods/shop_web/hosts").exists());
        directory.remove().unwrap();
        assert!(!directory.exists());
    }

    #[test]
    fn records_without_a_holder_or_a_pause_process_are_void() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, pause: u32| {
            let pod = PodId { namespace: "shop".into(), name: name.into() };
            let directory = PodDirectory::of(folder.path(), &pod);
            let lock = directory.claim().unwrap();
            let record = Record {
                pod,
                labels: std::collections::BTreeMap::new(),
                addresses: Vec::new(),
                ports: Vec::new(),
                hostname: None,
                subdomain: None,
                host_network: false,
                ready: true,
                terminating: false,
                pause,
            };
            directory.write_record(&record).unwrap();
            lock
        };
        let names = || records(folder.path()).into_iter().map(|record| record.pod.name).collect::<Vec<_>>();
        let held = write("b", std::process::id());
        let _also = write("a", std::process::id());
        let _gone = write("c", u32::MAX);
        assert_eq!(names(), ["a", "b"]);
        drop(held);
        assert_eq!(names(), ["a"]);
    }
}

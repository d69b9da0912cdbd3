//! The cgroup of a pod: `<node cgroup>/fairway/<pod>` of the v2 hierarchy. Every process of the pod joins it before
//! it runs anything, because a socket keeps the cgroup it was made in and that is how the kernel programs see it.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const CGROUP2_MAGIC: i64 = 0x6367_7270;
/// Killed processes leave their cgroup within milliseconds, unless the kernel waits for a device.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(5);
const EMPTY_POLL: Duration = Duration::from_millis(2);

/// A cgroup could not be used.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// A file of it.
    #[error("cgroup {path}: {source}")]
    Io {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not in the v2 hierarchy.
    #[error("{0} is not a directory of the cgroup v2 hierarchy")]
    NotV2(PathBuf),
}

/// The cgroup of a pod.
#[derive(Clone, Debug)]
pub(crate) struct PodCgroup {
    path: PathBuf,
}

impl PodCgroup {
    pub(crate) fn of(node: &Path, directory: &str) -> Self {
        Self { path: node.join("fairway").join(directory) }
    }

    pub(crate) fn create(&self) -> Result<(), CgroupError> {
        // Another pod's end may remove the directory above in between.
        let made = fs::create_dir_all(&self.path).or_else(|_| fs::create_dir_all(&self.path));
        made.map_err(|source| self.error(source))?;
        let kind = rustix::fs::statfs(&self.path).map_err(|error| self.error(error.into()))?.f_type;
        if kind == CGROUP2_MAGIC { Ok(()) } else { Err(CgroupError::NotV2(self.path.clone())) }
    }

    /// The file to which a process writes "0" to join.
    pub(crate) fn entrance(&self) -> Result<File, CgroupError> {
        let file = OpenOptions::new().write(true).open(self.path.join("cgroup.procs"));
        file.map_err(|source| self.error(source))
    }

    /// Kills whatever is in it and removes it. Fine if it is not there.
    pub(crate) fn remove(&self) -> Result<(), CgroupError> {
        match fs::write(self.path.join("cgroup.kill"), "1") {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            result => result.map_err(|source| self.error(source))?,
        }
        let deadline = Instant::now() + EMPTY_TIMEOUT;
        loop {
            match fs::remove_dir(&self.path) {
                Ok(()) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < deadline => {
                    std::thread::sleep(EMPTY_POLL);
                }
                Err(source) => return Err(self.error(source)),
            }
        }
        // The last pod of a node takes the directory above with it.
        if let Some(parent) = self.path.parent() {
            let _ = fs::remove_dir(parent);
        }
        Ok(())
    }

    fn error(&self, source: io::Error) -> CgroupError {
        CgroupError::Io { path: self.path.clone(), source }
    }
}

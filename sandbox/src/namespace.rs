//! Namespaces as open files. A thread enters one for the length of a closure and is back in its own afterwards; the
//! process ends rather than go on with a thread in a pod's namespace.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use rustix::fs::{fstat, fstatfs};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// Files of namespaces live on this file system; on kernels of old they lived on proc.
const NSFS_MAGIC: i64 = 0x6e73_6673;
const PROC_MAGIC: i64 = 0x9fa0;

/// A namespace could not be opened or entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// The file is not there or not readable.
    #[error("network namespace {path}: {source}")]
    Open {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is an ordinary one.
    #[error("{0} is not a network namespace")]
    Other(PathBuf),
    /// The kernel refused.
    #[error("entering a network namespace: {0}")]
    Enter(#[from] io::Error),
}

/// A network namespace that is kept alive by being open.
#[derive(Debug)]
pub struct NetworkNamespace {
    file: OwnedFd,
}

impl NetworkNamespace {
    /// Opens a namespace file, for example `/proc/PID/ns/net` or `/run/netns/NAME`.
    pub fn open(path: &Path) -> Result<Self, NamespaceError> {
        let failed = |source| NamespaceError::Open { path: path.to_path_buf(), source };
        let file = File::open(path).map_err(failed)?;
        let kind = fstatfs(&file).map_err(|error| failed(error.into()))?.f_type;
        if ![NSFS_MAGIC, PROC_MAGIC].contains(&kind) {
            return Err(NamespaceError::Other(path.to_path_buf()));
        }
        Ok(Self { file: file.into() })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, NamespaceError> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// A new, empty namespace.
    pub fn create() -> Result<Self, NamespaceError> {
        let made = std::thread::spawn(|| {
            // SAFETY: only the network namespace of this new thread changes; no file descriptors are unshared.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)?;
            Self::current()
        });
        match made.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Runs `work` in the namespace, on the calling thread: one of its own would cost a pod's ADD more than all that
    /// is done inside.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> Result<T, NamespaceError> {
        let own = Self::current()?;
        self.move_into().map_err(NamespaceError::Enter)?;
        let _back = Return(own);
        Ok(work())
    }

    fn move_into(&self) -> io::Result<()> {
        Ok(move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    /// Whether it is that of the calling thread.
    pub fn is_current(&self) -> Result<bool, NamespaceError> {
        let identity = |namespace: &Self| -> Result<(u64, u64), NamespaceError> {
            let file = fstat(&namespace.file).map_err(|error| NamespaceError::Enter(error.into()))?;
            Ok((file.st_dev, file.st_ino))
        };
        Ok(identity(self)? == identity(&Self::current()?)?)
    }

    /// The number by which eBPF programs know the namespace (`bpf_get_netns_cookie`). Never used twice
    /// between two boots.
    pub fn cookie(&self) -> Result<u64, NamespaceError> {
        self.enter(current_cookie)?.map_err(NamespaceError::Enter)
    }
}

/// The namespace of a thread that is elsewhere for a while.
struct Return(NetworkNamespace);

impl Drop for Return {
    fn drop(&mut self) {
        if let Err(error) = self.0.move_into() {
            // Whoever could leave its namespace can come back, unless its privileges were taken meanwhile.
            tracing::error!(%error, "coming back from a network namespace");
            std::process::abort();
        }
    }
}

impl AsFd for NetworkNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// The cookie of the calling thread's network namespace.
pub fn current_cookie() -> io::Result<u64> {
    // Any socket carries the namespace that it was made in; this kind is the cheapest.
    let socket = UnixDatagram::unbound()?;
    let mut cookie = 0u64;
    let mut length: libc::socklen_t = 8;
    let value = (&raw mut cookie).cast();
    // SAFETY: the value and its length are those of a u64 that outlives the call.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, value, &raw mut length)
    };
    if result == 0 { Ok(cookie) } else { Err(io::Error::last_os_error()) }
}

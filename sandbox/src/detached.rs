//! A pod that runs on after its command has returned: the same program is started again in a session of its own,
//! with an open pipe on which it says that the pod is up. Until then its complaints go to the terminal; afterwards
//! to a file in the pod's directory.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::io::{FdFlags, fcntl_setfd};
use rustix::pipe::{PipeFlags, pipe_with};

/// Names the pipe for the program that is started again.
const VARIABLE: &str = "FAIRWAY_NOTIFY_FD";

/// What became of a detached pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detached {
    /// It is up; the process that runs it.
    Up(u32),
    /// It ended before; the exit code. It has said why.
    Ended(i32),
}

/// A promise to say that the pod is up.
pub(crate) struct Notice {
    pipe: File,
}

/// This process was started by [`run_detached`].
pub fn is_detached() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// Starts `program` with `arguments` (those that this process was started with) and waits until its pod is up or
/// has failed. The program must come to [`crate::run`] by the same arguments; see [`is_detached`].
pub fn run_detached(program: &Path, arguments: &[OsString]) -> io::Result<Detached> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command.env(VARIABLE, writer.as_raw_fd().to_string());
    let inherited = writer.as_raw_fd();
    let prepare = move || {
        rustix::process::setsid()?;
        // SAFETY: the descriptor is open: the parent holds it until after the start.
        let pipe = unsafe { std::os::fd::BorrowedFd::borrow_raw(inherited) };
        Ok(fcntl_setfd(pipe, FdFlags::empty())?)
    };
    // SAFETY: two system calls, as is allowed after fork.
    unsafe { command.pre_exec(prepare) };
    let mut child = command.spawn()?;
    drop(writer);
    let mut byte = [0];
    if File::from(reader).read(&mut byte)? == 1 {
        return Ok(Detached::Up(child.id()));
    }
    Ok(Detached::Ended(child.wait()?.code().unwrap_or(1)))
}

impl Notice {
    /// The promise that this process was started with, if any.
    pub(crate) fn of_environment() -> Option<Self> {
        let raw: RawFd = std::env::var(VARIABLE).ok()?.parse().ok().filter(|raw| *raw > 2)?;
        // SAFETY: the parent left this descriptor open for this purpose alone, and it is taken once.
        let pipe = File::from(unsafe { OwnedFd::from_raw_fd(raw) });
        fcntl_setfd(&pipe, FdFlags::CLOEXEC).ok()?;
        Some(Self { pipe })
    }

    pub(crate) fn give(mut self) -> io::Result<()> {
        self.pipe.write_all(b"1")
    }
}

/// The file for what a detached pod prints.
pub(crate) fn open_log(directory: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(directory.join("log"))
}

/// Sends what this process prints to a file.
pub(crate) fn redirect_to(log: &File) -> io::Result<()> {
    for stream in [libc::STDOUT_FILENO, libc::STDERR_FILENO] {
        // SAFETY: both descriptors are open, and replacing a standard stream invalidates nothing.
        if unsafe { libc::dup2(log.as_raw_fd(), stream) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

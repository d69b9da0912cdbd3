//! SIGINT, SIGTERM and SIGHUP as something to wait for. A handler writes a byte to a pipe: unlike a blocked signal
//! this needs nothing of the other threads of the process.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

use rustix::pipe::{PipeFlags, pipe_with};

const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];

/// Where the handler writes; -1 while nobody waits.
static WRITER: AtomicI32 = AtomicI32::new(-1);

/// Catches the signals that ask to end, as long as it lives. One at a time in a process.
pub(crate) struct Stop {
    reader: OwnedFd,
    _writer: OwnedFd,
    before: Vec<(libc::c_int, libc::sigaction)>,
}

impl Stop {
    pub(crate) fn catch() -> io::Result<Self> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        WRITER.store(writer.as_raw_fd(), Ordering::Release);
        let mut stop = Self { reader, _writer: writer, before: Vec::new() };
        for signal in SIGNALS {
            stop.before.push((signal, install(signal, handler_action())?));
        }
        Ok(stop)
    }

    /// The next signal that has come.
    pub(crate) fn take(&self) -> Option<libc::c_int> {
        let mut byte = [0];
        let count = rustix::io::read(&self.reader, &mut byte).ok()?;
        (count == 1).then(|| libc::c_int::from(byte[0]))
    }
}

impl AsFd for Stop {
    /// Readable when a signal has come.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.reader.as_fd()
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        for (signal, action) in self.before.drain(..) {
            let _ = install(signal, action);
        }
        WRITER.store(-1, Ordering::Release);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the three signals are small numbers")]
extern "C" fn handle(signal: libc::c_int) {
    let file = WRITER.load(Ordering::Acquire);
    let byte = [signal as u8];
    // SAFETY: write(2) may be called from a handler; a full pipe or a closed one loses nothing that matters.
    unsafe { libc::write(file, byte.as_ptr().cast(), 1) };
}

fn handler_action() -> libc::sigaction {
    // SAFETY: all zeroes is an action: the default one, with an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    let handler: extern "C" fn(libc::c_int) = handle;
    action.sa_sigaction = handler as libc::sighandler_t;
    action.sa_flags = libc::SA_RESTART;
    action
}

fn install(signal: libc::c_int, action: libc::sigaction) -> io::Result<libc::sigaction> {
    // SAFETY: all zeroes is an action, and it is overwritten.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: both structures are whole and outlive the call.
    let result = unsafe { libc::sigaction(signal, &raw const action, &raw mut before) };
    if result == 0 { Ok(before) } else { Err(io::Error::last_os_error()) }
}

//! The pause program by itself: what it prints, how it ends. As the first process of a PID namespace it is tested
//! with pods. Needs no privilege.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};
use sandbox::PAUSE_PROGRAM;

const WARNING: [u8; 43] = *b"Warning: pause should be the first process\n";

/// One test at a time: a file that another thread's child inherited for writing cannot be executed.
static ALONE: Mutex<()> = Mutex::new(());

/// The program as a file, removed with the folder.
fn pause() -> ((tempfile::TempDir, MutexGuard<'static, ()>), Command) {
    let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pause");
    fs::write(&path, PAUSE_PROGRAM).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    let command = Command::new(path);
    ((folder, alone), command)
}

#[test]
fn it_tells_its_version() {
    let (_folder, mut pause) = pause();
    let output = pause.args(["ignored", "-v"]).output().unwrap();
    let expected = concat!("pause (fairway) ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!(
        (String::from_utf8(output.stdout).unwrap().as_str(), output.status.code()),
        (expected, Some(0))
    );
}

fn ends(signal: Signal, line: &str) {
    let (_folder, mut pause) = pause();
    let mut child = pause.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut warning = [0; WARNING.len()];
    // It warns once it is ready for signals.
    child.stderr.as_mut().unwrap().read_exact(&mut warning).unwrap();
    assert_eq!(warning, WARNING);
    kill_process(Pid::from_child(&child), signal).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!((String::from_utf8(output.stdout).unwrap().as_str(), output.status.code()), (line, Some(0)));
}

#[test]
fn an_interrupt_ends_it() {
    ends(Signal::INT, "Shutting down, got signal: Interrupt\n");
}

#[test]
fn a_termination_ends_it() {
    ends(Signal::TERM, "Shutting down, got signal: Terminated\n");
}

//! What the machine offers to the bench: root, the cgroup v2 hierarchy, and where the built programs are.
//!
//! Nothing here changes the machine.

use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, PoisonError};

use anyhow::{Context, Result, bail};

/// Nodes that one test program runs at once; each has a daemon and some pods, and CI has two cores.
const NODES_AT_ONCE: usize = 4;

static RUNNING: Mutex<usize> = Mutex::new(0);
static ENDED: Condvar = Condvar::new();

/// Whether privileged tests can run. Without root they skip loudly; in CI they must not.
///
/// # Panics
/// In CI without root.
pub fn root_or_skip() -> bool {
    if rustix::process::geteuid().is_root() {
        return true;
    }
    assert!(std::env::var_os("CI").is_none(), "not root, and in CI no test may be skipped");
    say_skip();
    false
}

/// The test runner counts a test that says this as skipped.
#[expect(clippy::print_stdout, reason = "the test's own output, which libtest captures")]
fn say_skip() {
    println!("SKIP: not root");
}

/// One of the places for a node; waits for one, and gives it back when dropped.
pub struct Place(());

/// Waits until fewer than [`NODES_AT_ONCE`] nodes run in this process.
pub fn bound_concurrency() -> Place {
    let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
    while *running >= NODES_AT_ONCE {
        running = ENDED.wait(running).unwrap_or_else(PoisonError::into_inner);
    }
    *running += 1;
    Place(())
}

impl Drop for Place {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        ENDED.notify_one();
    }
}

/// The root of the cgroup v2 hierarchy: /sys/fs/cgroup, or below it on a hybrid machine.
///
/// # Errors
/// No such hierarchy is mounted.
pub fn cgroup_root() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|words| words.get(2) == Some(&"cgroup2"))
        .and_then(|words| words.get(1).map(PathBuf::from))
        .context("no cgroup v2 hierarchy is mounted")
}

/// A program of the workspace, found beside the running one: in the same folder of the target directory.
///
/// # Errors
/// It is not built.
pub fn program(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell the own path")?;
    // A test program is in `deps`, a binary beside it.
    let folders = own.ancestors().skip(1).take(2);
    for folder in folders.map(Path::to_owned) {
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!("{name} is not built beside {}: `cargo xtask test` builds it", own.display())
}

//! Starting programs inside a node: in its network namespace and in its cgroup, and nothing else of it.
//!
//! Only the network namespace is entered: the file systems stay the machine's, so cgroups and pins are seen.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Longer than any command of a test; a hanging one must not hang the run.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(60);

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// What was typed.
    pub line: String,
    /// Its exit code; None if a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Finished {
    /// Itself, if the exit code is 0.
    ///
    /// # Errors
    /// One that shows the command and what it said.
    pub fn success(self) -> Result<Self> {
        if self.code == Some(0) {
            return Ok(self);
        }
        bail!("`{}` ended with {:?}: {}{}", self.line, self.code, self.stderr, self.stdout)
    }
}

/// A program that runs until it is dropped.
#[derive(Debug)]
pub struct Background {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Background {
    /// Starts it with its standard input and output in our hands.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(mut command: Command, namespace: Option<&Path>) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = spawn(command, namespace)?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        Ok(Self { stdin: child.stdin.take(), stdout: BufReader::new(stdout), child })
    }

    /// Writes one line to it.
    ///
    /// # Errors
    /// It has gone.
    pub fn write_line(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("standard input is open")?;
        writeln!(stdin, "{line}").context("the program has gone")
    }

    /// Reads one line from it.
    ///
    /// # Errors
    /// It has ended.
    pub fn read_line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            bail!("the program ended ({:?}) instead of saying something", self.child.try_wait()?);
        }
        Ok(line)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A command that joins the cgroup before it becomes `program`, so that every socket of it is the node's.
pub(crate) fn in_cgroup(cgroup: &Path, program: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(r#"echo 0 > "$0/cgroup.procs" && exec "$@""#).arg(cgroup).arg(program);
    command
}

/// Starts a command in a network namespace: a thread enters it and is the parent.
///
/// # Errors
/// The namespace is not there, or the program is not.
pub(crate) fn spawn(mut command: Command, namespace: Option<&Path>) -> Result<Child> {
    let line = line_of(&command);
    let spawned = std::thread::scope(|scope| {
        scope
            .spawn(|| -> Result<Child> {
                if let Some(path) = namespace {
                    let file = std::fs::File::open(path)
                        .with_context(|| format!("no namespace {}", path.display()))?;
                    move_into_link_name_space(
                        std::os::fd::AsFd::as_fd(&file),
                        Some(LinkNameSpaceType::Network),
                    )
                    .context("cannot enter the network namespace")?;
                }
                command.spawn().context("cannot be started")
            })
            .join()
    });
    match spawned {
        Ok(child) => child.with_context(|| format!("`{line}`")),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs a command to its end and returns everything it said.
///
/// # Errors
/// It cannot be started, or does not end in time.
pub(crate) fn finish(mut command: Command, namespace: Option<&Path>) -> Result<Finished> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let line = line_of(&command);
    let child = spawn(command, namespace)?;
    let watch = Watch::start(child.id());
    let output = child.wait_with_output().with_context(|| format!("`{line}`"))?;
    if watch.stop() {
        bail!("`{line}` was still running after {} s", COMMAND_TIMEOUT.as_secs());
    }
    Ok(Finished {
        line,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// Kills a child that takes too long. Its parent has not reaped it before `stop`, so the id is still its own.
struct Watch {
    stop: std::sync::mpsc::Sender<()>,
    thread: std::thread::JoinHandle<bool>,
}

impl Watch {
    fn start(id: u32) -> Self {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let deadline = Instant::now() + COMMAND_TIMEOUT;
        let thread = std::thread::spawn(move || {
            let left = deadline.saturating_duration_since(Instant::now());
            let late = stopped.recv_timeout(left) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            if late {
                kill(id);
            }
            late
        });
        Self { stop, thread }
    }

    fn stop(self) -> bool {
        drop(self.stop);
        self.thread.join().unwrap_or(false)
    }
}

/// Kills one process that we started.
pub(crate) fn kill(id: u32) {
    let pid = i32::try_from(id).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

/// What a person would have typed: without the shell that joins the cgroup.
fn line_of(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    let skip = if words.first().is_some_and(|word| *word == "/bin/sh") { 4 } else { 0 };
    let shown: Vec<_> = words.into_iter().skip(skip).map(std::ffi::OsStr::to_string_lossy).collect();
    shown.join(" ")
}

//! One run of `fairway run`: started inside a node, awaited until ready, its log kept, killed by its id.
//!
//! Whatever it says goes to a file of the node's directory; the admin socket is asked over plain HTTP/1.0.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::process;
use crate::until::{DEADLINE, until, until_within};

const ADMIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Lines of the log that a failure shows.
const TAIL: usize = 60;

/// A running daemon. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Daemon {
    /// Starts the command, which must be `fairway run ...`.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn spawn(mut command: Command, namespace: &Path, run_dir: &Path, log: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(log).context("cannot open the log")?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = process::spawn(command, Some(namespace))?;
        Ok(Self { child, socket: run_dir.join("admin.sock"), log: log.to_owned() })
    }

    /// Waits until it is ready.
    ///
    /// # Errors
    /// It ended, or did not become ready; with the end of its log.
    pub fn await_ready(&mut self) -> Result<()> {
        self.await_ready_within(DEADLINE)
    }

    /// As [`Daemon::await_ready`], for a cluster that takes longer than a test may.
    ///
    /// # Errors
    /// As there.
    pub fn await_ready_within(&mut self, limit: Duration) -> Result<()> {
        let ready = until_within(limit, "the daemon to be ready", || match self.child.try_wait()? {
            Some(status) => Ok(Err(status)),
            None => self.fetch("/readyz").map(Ok),
        });
        match ready {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(status)) => bail!("the daemon ended with {status}:\n{}", self.log_tail()),
            Err(error) => Err(error.context(format!("the daemon said:\n{}", self.log_tail()))),
        }
    }

    /// The body that the admin socket answers for a path.
    ///
    /// # Errors
    /// Anything but status 200.
    pub fn fetch(&self, path: &str) -> Result<String> {
        let mut stream = UnixStream::connect(&self.socket).context("the admin socket does not answer")?;
        stream.set_read_timeout(Some(ADMIN_TIMEOUT))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: fairway\r\n\r\n")?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        let (head, body) = reply.split_once("\r\n\r\n").context("the admin socket does not speak HTTP")?;
        if head.split(' ').nth(1) != Some("200") {
            bail!("{path}: {}: {}", head.lines().next().unwrap_or_default(), body.trim());
        }
        Ok(body.to_owned())
    }

    /// The value of a metric, summed over its labels that contain `labels`.
    ///
    /// # Errors
    /// The daemon does not answer, or it has no such metric.
    pub fn metric(&self, name: &str, labels: &str) -> Result<f64> {
        let text = self.fetch("/metrics")?;
        let values: Vec<f64> = text
            .lines()
            .filter_map(|line| {
                let (series, value) = line.rsplit_once(' ')?;
                let (metric, rest) = series.split_once('{').unwrap_or((series, ""));
                (metric == name && rest.contains(labels)).then(|| value.parse().ok())?
            })
            .collect();
        // A name that is mistyped must not count as nothing having happened.
        ensure!(!values.is_empty(), "no metric {name} with {labels:?}");
        Ok(values.iter().sum())
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// It cannot be awaited.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without a chance to clean up, as the kernel's out-of-memory killer would.
    ///
    /// # Errors
    /// It cannot be awaited.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        self.child.kill()?;
        Ok(self.child.wait()?)
    }

    /// Asks it to end, and waits for that.
    ///
    /// # Errors
    /// It does not end.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        until("the daemon to end", || self.child.try_wait()?.context("it still runs"))
    }

    /// What it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of what it logged.
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(TAIL)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

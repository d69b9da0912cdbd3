//! Runs a command inside a pod that somebody else runs, and ends such a pod. Called by `fairway sandbox exec` and
//! `delete`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::cgroup::{CgroupError, PodCgroup};
use crate::directory::{DirectoryError, PodDirectory, Runner, directory_name};
use crate::launch::{Bind, Entry, Launch, LaunchError, View, c_path};
use crate::namespace::NamespaceError;
use crate::record::PodId;
use crate::sandbox::{SandboxError, clean, open_process};
use crate::settings::node_namespace;
use crate::signals::Stop;

/// What a runner may take beyond the pod's grace period.
const END_MARGIN: Duration = Duration::from_secs(10);

/// What to run in a pod.
pub struct ExecOptions {
    /// The daemon's directory.
    pub run_dir: PathBuf,
    /// The pod.
    pub pod: PodId,
    /// The container whose file tree and environment are meant; the first one by default.
    pub container: Option<String>,
    /// The program and its arguments.
    pub command: Vec<String>,
}

/// A pod could not be entered or ended.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// It is not there.
    #[error("there is no pod {0} on this node")]
    NoPod(PodId),
    /// It has no such container, or not any more.
    #[error("pod {pod} runs no container {container}")]
    NoContainer {
        /// The pod.
        pod: PodId,
        /// The container.
        container: String,
    },
    /// Its runner does not end.
    #[error("the process that runs pod {0} does not end")]
    Stuck(PodId),
    /// Its directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// Its cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Its leftovers.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    /// The node's namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The command.
    #[error(transparent)]
    Launch(#[from] LaunchError),
    /// A call that hardly fails.
    #[error("entering a pod: {0}")]
    Io(#[from] io::Error),
}

/// Runs a command in a pod, with the standard streams of this process; its exit code.
pub fn exec(options: &ExecOptions) -> Result<u8, ExecError> {
    let pod = &options.pod;
    let directory = PodDirectory::of(&options.run_dir, pod);
    if !directory.is_held() {
        return Err(ExecError::NoPod(pod.clone()));
    }
    let (record, runner) = (directory.record()?, directory.runner()?);
    let place = Place::find(options, &directory, &runner)?;
    let launch = Launch {
        command: options.command.clone(),
        environment: place.environment,
        entry: Entry {
            cgroup: PodCgroup::of(&runner.cgroup, &directory_name(pod)).entrance()?,
            dies_with_parent: true,
            own_session: false,
            joins: namespaces(record.pause, place.container)?,
            makes: if place.view.is_some() { UnshareFlags::NEWNS } else { UnshareFlags::empty() },
            hostname: None,
            view: place.view,
            directory: place.directory,
        },
        streams: [Stdio::inherit(), Stdio::inherit(), Stdio::inherit()],
    };
    let stop = Stop::catch()?;
    if !runner.shares_processes {
        return wait(launch.start()?, &stop);
    }
    let processes = File::open(format!("/proc/{}/ns/pid", record.pause))?;
    wait(launch.start_among(processes.as_fd())?, &stop)
}

/// Where in a pod a command runs.
struct Place {
    /// The process whose file tree it shares.
    container: Option<i32>,
    environment: BTreeMap<String, String>,
    view: Option<View>,
    directory: Option<std::ffi::CString>,
}

impl Place {
    fn find(options: &ExecOptions, directory: &PodDirectory, runner: &Runner) -> Result<Self, ExecError> {
        let wanted = options.container.as_deref();
        let found = runner.containers.iter().find(|(name, _)| wanted.is_none_or(|wanted| wanted == name));
        match (found, wanted) {
            (Some((_, process)), _) => Self::of_container(*process),
            (None, None) => Self::of_pause(directory),
            (None, Some(container)) => {
                Err(ExecError::NoContainer { pod: options.pod.clone(), container: container.to_owned() })
            }
        }
    }

    fn of_container(process: i32) -> Result<Self, ExecError> {
        let bytes = std::fs::read(format!("/proc/{process}/environ"))?;
        let text = String::from_utf8_lossy(&bytes);
        let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
        let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let start = std::fs::read_link(format!("/proc/{process}/cwd"))?;
        Ok(Self { container: Some(process), environment, view: None, directory: Some(c_path(&start)?) })
    }

    /// A pod without containers has no file tree to share: the command gets one of its own.
    fn of_pause(directory: &PodDirectory) -> Result<Self, ExecError> {
        let mut binds = Vec::new();
        for name in ["hosts", "resolv.conf", "hostname"] {
            binds.push(Bind::new(&directory.path().join(name), &format!("/etc/{name}"), false)?);
        }
        let environment =
            std::env::vars().filter(|(name, _)| ["PATH", "HOME", "TERM"].contains(&name.as_str()));
        let view = View { root: None, own_processes: false, binds };
        Ok(Self { container: None, environment: environment.collect(), view: Some(view), directory: None })
    }
}

fn namespaces(pause: u32, container: Option<i32>) -> io::Result<Vec<(Arc<OwnedFd>, LinkNameSpaceType)>> {
    let mut list = Vec::new();
    let mut open = |process: i64, name: &str, kind| -> io::Result<()> {
        let file = File::open(format!("/proc/{process}/ns/{name}"))?;
        list.push((Arc::new(file.into()), kind));
        Ok(())
    };
    open(pause.into(), "net", LinkNameSpaceType::Network)?;
    open(pause.into(), "ipc", LinkNameSpaceType::InterProcessCommunication)?;
    open(pause.into(), "uts", LinkNameSpaceType::HostNameAndNISDomainName)?;
    if let Some(container) = container {
        // The last one: it changes what /proc means.
        open(container.into(), "mnt", LinkNameSpaceType::Mount)?;
    }
    Ok(list)
}

/// Ctrl-C reaches the command by the terminal; what was sent to this process alone is passed on.
fn wait(mut child: std::process::Child, stop: &Stop) -> Result<u8, ExecError> {
    let end = open_process(child.id())?;
    loop {
        let mut files = [PollFd::new(&end, PollFlags::IN), PollFd::new(stop, PollFlags::IN)];
        match poll(&mut files, None) {
            Err(rustix::io::Errno::INTR) => {}
            result => {
                result.map_err(io::Error::from)?;
            }
        }
        while let Some(signal) = stop.take() {
            if signal != libc::SIGINT {
                pidfd_send_signal(&end, Signal::TERM).map_err(io::Error::from)?;
            }
        }
        if let Some(status) = child.try_wait()? {
            let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            return Ok(u8::try_from(code).unwrap_or(u8::MAX));
        }
    }
}

/// Ends a pod in order, and removes whatever a killed runner has left of it.
pub fn delete(run_dir: &Path, pod: &PodId) -> Result<(), ExecError> {
    let directory = PodDirectory::of(run_dir, pod);
    if !directory.exists() {
        return Err(ExecError::NoPod(pod.clone()));
    }
    if directory.is_held()
        && let Ok(runner) = directory.runner()
    {
        end_runner(&directory, &runner)?;
    }
    // A runner that ends in order removes its directory itself.
    if !directory.exists() {
        return Ok(());
    }
    let Some(_lock) = directory.claim()? else { return Err(ExecError::Stuck(pod.clone())) };
    if let Ok(runner) = directory.runner() {
        let clean = || clean(pod, &runner.cgroup, &runner.bpf_dir);
        match node_namespace(run_dir) {
            Some(node) => node.enter(clean)??,
            None => clean()?,
        }
    }
    Ok(directory.remove()?)
}

fn end_runner(directory: &PodDirectory, runner: &Runner) -> Result<(), ExecError> {
    let Some(process) = Pid::from_raw(runner.runner) else { return Ok(()) };
    let Ok(end) = pidfd_open(process, PidfdFlags::empty()) else { return Ok(()) };
    // The number may have been given to another process: the lock says whether the runner was alive just now.
    if !directory.is_held() {
        return Ok(());
    }
    let _ = pidfd_send_signal(&end, Signal::TERM);
    let patience = Duration::from_secs(runner.grace_seconds) + END_MARGIN;
    if !ends_within(&end, patience)? {
        let _ = kill_process(process, Signal::KILL);
        ends_within(&end, END_MARGIN)?;
    }
    Ok(())
}

fn ends_within(end: &OwnedFd, patience: Duration) -> io::Result<bool> {
    let timeout = Timespec::try_from(patience).map_err(io::Error::other)?;
    let mut files = [PollFd::new(end, PollFlags::IN)];
    Ok(poll(&mut files, Some(&timeout))? > 0)
}

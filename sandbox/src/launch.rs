//! Starts a process inside a pod. Between fork and exec the child only makes system calls on what was prepared
//! before: no allocation, no lock. Each step writes a byte to a pipe, so that a failure can be named. Knows
//! namespaces and mounts; knows nothing of Pods.

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount,
    mount_bind_recursive, mount_change, mount_remount, move_mount, open_tree, unmount,
};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, chdir, pivot_root, set_parent_process_death_signal, setsid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// A process could not be started.
#[derive(Debug, thiserror::Error)]
#[error("{step}: {source}")]
pub struct LaunchError {
    step: String,
    source: io::Error,
}

impl LaunchError {
    pub(crate) fn new(step: impl Into<String>, source: io::Error) -> Self {
        Self { step: step.into(), source }
    }
}

/// What to run, and how it comes to where it runs.
pub(crate) struct Launch {
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// Its whole environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// Its way into the pod.
    pub(crate) entry: Entry,
    /// Its standard input, output and errors.
    pub(crate) streams: [Stdio; 3],
}

/// The steps between fork and exec, in the order of the fields.
pub(crate) struct Entry {
    /// The cgroup's file to join by.
    pub(crate) cgroup: File,
    /// Dies with the thread that started it.
    pub(crate) dies_with_parent: bool,
    /// Leaves the terminal, so that Ctrl-C reaches only the runner, which ends the pod in order.
    pub(crate) own_session: bool,
    /// The namespaces to join.
    pub(crate) joins: Vec<(Arc<OwnedFd>, LinkNameSpaceType)>,
    /// The namespaces to make.
    pub(crate) makes: UnshareFlags,
    /// The name of the UTS namespace that was made.
    pub(crate) hostname: Option<String>,
    /// What it sees of files; None leaves that as it is.
    pub(crate) view: Option<View>,
    /// Where it starts.
    pub(crate) directory: Option<CString>,
}

/// A file tree of its own.
pub(crate) struct View {
    /// The directory that becomes `/`; None is the root of the runner.
    pub(crate) root: Option<CString>,
    /// Needs a `/proc` that shows the pod's PID namespace.
    pub(crate) own_processes: bool,
    /// Files and directories placed over others, in order.
    pub(crate) binds: Vec<Bind>,
}

/// A file or directory placed over another one.
pub(crate) struct Bind {
    tree: OwnedFd,
    target: CString,
    read_only: bool,
}

impl Bind {
    /// Takes hold of `source` now: the child needs no path to it.
    pub(crate) fn new(source: &Path, target: &str, read_only: bool) -> Result<Self, LaunchError> {
        let failed =
            |source_error| LaunchError { step: format!("taking {}", source.display()), source: source_error };
        let clone =
            OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
        let tree = open_tree(CWD, source, clone).map_err(|error| failed(error.into()))?;
        let target = c_string(target)?;
        Ok(Self { tree, target, read_only })
    }
}

/// A string for the kernel.
pub(crate) fn c_string(text: &str) -> Result<CString, LaunchError> {
    CString::new(text).map_err(|error| LaunchError {
        step: format!("the text {text:?} contains NUL"),
        source: error.into(),
    })
}

/// A path for the kernel.
pub(crate) fn c_path(path: &Path) -> Result<CString, LaunchError> {
    c_string(&String::from_utf8_lossy(path.as_os_str().as_bytes()))
}

/// The step that the child reached. Its numbers travel through the pipe.
#[derive(Clone, Copy)]
#[repr(u8)]
enum Step {
    Cgroup,
    Parent,
    Namespaces,
    Hostname,
    Mounts,
    Root,
    /// The first of the binds; the others follow.
    Bind,
    Directory = 250,
    Program = 251,
}

impl Launch {
    /// Starts the process in another PID namespace. Only children are born there: the calling thread stays.
    pub(crate) fn start_among(self, processes: BorrowedFd<'_>) -> Result<Child, LaunchError> {
        let failed = |source: io::Error| LaunchError::new("entering the pod's PID namespace", source);
        let enter = |namespace: BorrowedFd<'_>| -> io::Result<()> {
            Ok(move_into_link_name_space(namespace, Some(LinkNameSpaceType::ProcessID))?)
        };
        let own = File::open("/proc/thread-self/ns/pid").map_err(failed)?;
        enter(processes).map_err(failed)?;
        let started = self.start();
        enter(own.as_fd()).map_err(failed)?;
        started
    }

    /// Starts the process; it has reached its program when this returns.
    pub(crate) fn start(self) -> Result<Child, LaunchError> {
        let (program, arguments) = self.command.split_first().ok_or_else(|| LaunchError {
            step: "no command".to_owned(),
            source: io::ErrorKind::InvalidInput.into(),
        })?;
        let pipe = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
        let (mut reader, writer) = pipe
            .map(|(reader, writer)| (File::from(reader), writer))
            .map_err(|error| LaunchError { step: "making a pipe".to_owned(), source: error.into() })?;
        let [input, output, errors] = self.streams;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(&self.environment);
        command.stdin(input).stdout(output).stderr(errors);
        let targets: Vec<String> = self.entry.targets();
        let directory = self.entry.directory.clone().unwrap_or_default();
        let entry = self.entry;
        // SAFETY: `enter` makes system calls on prepared values only, as is allowed after fork.
        unsafe { command.pre_exec(move || entry.enter(&writer)) };
        let started = command.spawn();
        // The closure holds the pipe's other end and everything that was prepared.
        drop(command);
        started.map_err(|source| {
            let mut steps = Vec::new();
            let _ = reader.read_to_end(&mut steps);
            let step = match steps.last() {
                Some(251) => program.clone(),
                Some(250) => format!("working directory {}", directory.to_string_lossy()),
                last => step_name(last.copied(), &targets),
            };
            LaunchError { step, source }
        })
    }
}

fn step_name(step: Option<u8>, targets: &[String]) -> String {
    const NAMES: [&str; 6] = [
        "joining the pod's cgroup",
        "binding to the runner's life",
        "entering the pod's namespaces",
        "naming the host",
        "making a file tree",
        "changing the root",
    ];
    let Some(step) = step.map(usize::from) else { return "starting a process".to_owned() };
    let bind = step.checked_sub(NAMES.len()).and_then(|index| targets.get(index));
    match (NAMES.get(step), bind) {
        (Some(name), _) => (*name).to_owned(),
        (None, Some(target)) => format!("mounting {target}"),
        (None, None) => "starting a process".to_owned(),
    }
}

impl Entry {
    fn targets(&self) -> Vec<String> {
        let binds = self.view.iter().flat_map(|view| &view.binds);
        binds.map(|bind| bind.target.to_string_lossy().into_owned()).collect()
    }

    /// Runs in the child.
    fn enter(&self, steps: &OwnedFd) -> io::Result<()> {
        let reached = |step: u8| rustix::io::write(steps, &[step]);
        reached(Step::Cgroup as u8)?;
        rustix::io::write(&self.cgroup, b"0")?;
        reached(Step::Parent as u8)?;
        if self.dies_with_parent {
            set_parent_process_death_signal(Some(Signal::KILL))?;
        }
        if self.own_session {
            setsid()?;
        }
        reached(Step::Namespaces as u8)?;
        for (namespace, kind) in &self.joins {
            move_into_link_name_space(namespace.as_fd(), Some(*kind))?;
        }
        if !self.makes.is_empty() {
            // SAFETY: the child has one thread and shares nothing that these flags would tear apart.
            unsafe { unshare_unsafe(self.makes) }?;
        }
        reached(Step::Hostname as u8)?;
        if let Some(name) = &self.hostname {
            set_hostname(name)?;
        }
        if let Some(view) = &self.view {
            view.enter(steps)?;
        }
        reached(Step::Directory as u8)?;
        if let Some(directory) = &self.directory {
            chdir(directory.as_c_str())?;
        }
        reached(Step::Program as u8)?;
        Ok(())
    }
}

impl View {
    /// Runs in the child, in a mount namespace of its own.
    fn enter(&self, steps: &OwnedFd) -> io::Result<()> {
        let reached = |step: u8| rustix::io::write(steps, &[step]);
        reached(Step::Mounts as u8)?;
        // What is mounted on the node later still arrives; what is mounted here stays here.
        mount_change(c"/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
        reached(Step::Root as u8)?;
        if let Some(root) = &self.root {
            change_root(root)?;
        } else if self.own_processes {
            mount(c"proc", c"/proc", c"proc", MountFlags::empty(), None)?;
        }
        for (number, bind) in (Step::Bind as u8..).zip(&self.binds) {
            reached(number)?;
            let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
            move_mount(&bind.tree, c"", CWD, bind.target.as_c_str(), flags)?;
            if bind.read_only {
                mount_remount(bind.target.as_c_str(), MountFlags::BIND | MountFlags::RDONLY, c"")?;
            }
        }
        Ok(())
    }
}

/// Makes a directory the root: with the node's devices and sysfs, and processes as the PID namespace shows them.
fn change_root(root: &CStr) -> io::Result<()> {
    mount_bind_recursive(root, root)?;
    chdir(root)?;
    mount_bind_recursive(c"/dev", c"dev")?;
    mount_bind_recursive(c"/sys", c"sys")?;
    mount(c"proc", c"proc", c"proc", MountFlags::empty(), None)?;
    // The old root ends up on top of the new one, from where it is taken off.
    pivot_root(c".", c".")?;
    unmount(c".", UnmountFlags::DETACH)?;
    Ok(chdir(c"/")?)
}

fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: the pointer and the length are those of the name.
    let result = unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The path by which a child can execute an open file.
pub(crate) fn path_of(file: &File) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
}

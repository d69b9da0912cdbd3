//! A sandbox: the cgroup, the pause process, the namespaces it made, and their network. Made in order and taken
//! apart in reverse order, on every way out. The namespaces are held by open files, not by mounts: they outlive
//! the pause process and end with the runner, so a killed runner leaks no address.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

use crate::attach::{AttachError, AttachOptions, attach};
use crate::attachment::link_name;
use crate::cgroup::{CgroupError, PodCgroup};
use crate::detach::detach;
use crate::directory::directory_name;
use crate::host_port::HostPort;
use crate::launch::{Entry, Launch, LaunchError, path_of};
use crate::namespace::{NamespaceError, NetworkNamespace};
use crate::pause;
use crate::record::PodId;
use crate::settings::Settings;

/// The name of a pod's link to the node.
pub(crate) const IFNAME: &str = "eth0";

/// A sandbox could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// Its cgroup.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// Its pause process.
    #[error("the pause process: {0}")]
    Pause(#[from] LaunchError),
    /// A namespace of it.
    #[error("the namespaces of the pause process: {0}")]
    Namespaces(#[from] io::Error),
    /// Its network namespace.
    #[error(transparent)]
    Network(#[from] NamespaceError),
    /// Its network.
    #[error(transparent)]
    Attach(#[from] AttachError),
}

/// What a sandbox is made from.
pub(crate) struct SandboxOptions<'a> {
    pub(crate) pod: &'a PodId,
    pub(crate) settings: &'a Settings,
    pub(crate) hostname: &'a str,
    pub(crate) host_ports: &'a [HostPort],
    pub(crate) host_network: bool,
    pub(crate) share_processes: bool,
}

/// A sandbox that exists. Dropping it takes it apart.
pub(crate) struct Sandbox {
    container_id: String,
    bpf_dir: PathBuf,
    cgroup: PodCgroup,
    pause: Option<Child>,
    /// Joined by every process of the pod.
    joins: Vec<(Arc<OwnedFd>, LinkNameSpaceType)>,
    /// The PID namespace, where it is shared.
    processes: Option<OwnedFd>,
    attached: bool,
    /// The pod's addresses.
    pub(crate) addresses: Vec<IpAddr>,
}

/// The identity of a pod's attachment: known without any record, so that a leftover can be found.
pub(crate) fn container_id(pod: &PodId) -> String {
    link_name(&directory_name(pod), "pod")
}

/// Whether an attachment's container id is one of [`container_id`]: as long as a link's name, with letters that no
/// runtime's id has.
pub fn is_standalone(container_id: &str) -> bool {
    container_id.len() == link_name("", "").len() && container_id.starts_with("fw")
}

/// Takes away what a runner that was killed has left of a pod, except for its directory. The calling thread is in
/// the node's network namespace.
pub(crate) fn clean(pod: &PodId, cgroup: &Path, bpf_dir: &Path) -> Result<(), SandboxError> {
    PodCgroup::of(cgroup, &directory_name(pod)).remove()?;
    detach(&container_id(pod), IFNAME, Some(bpf_dir)).map_err(AttachError::from)?;
    Ok(())
}

impl Sandbox {
    /// Makes a sandbox on the node whose network namespace the calling thread is in. The pause process dies
    /// with this thread.
    pub(crate) fn make(options: &SandboxOptions<'_>) -> Result<Self, SandboxError> {
        let mut sandbox = Self {
            container_id: container_id(options.pod),
            bpf_dir: options.settings.bpf_dir.clone(),
            cgroup: PodCgroup::of(&options.settings.cgroup, &directory_name(options.pod)),
            pause: None,
            joins: Vec::new(),
            processes: None,
            attached: false,
            addresses: options.settings.node_addresses.clone(),
        };
        sandbox.cgroup.create()?;
        sandbox.start_pause(options)?;
        sandbox.open_namespaces(options)?;
        if !options.host_network {
            sandbox.attach(options)?;
        }
        Ok(sandbox)
    }

    /// The pause process.
    pub(crate) fn pause(&self) -> u32 {
        self.pause.as_ref().map_or(0, Child::id)
    }

    /// A file that is readable when the pause process is gone.
    pub(crate) fn pause_end(&self) -> io::Result<OwnedFd> {
        open_process(self.pause())
    }

    /// The way of a process into the pod.
    pub(crate) fn entry(&self) -> Result<Entry, CgroupError> {
        Ok(Entry {
            cgroup: self.cgroup.entrance()?,
            dies_with_parent: true,
            own_session: true,
            joins: self.joins.clone(),
            makes: UnshareFlags::NEWNS,
            hostname: None,
            view: None,
            directory: None,
        })
    }

    /// Starts a process of the pod, in its PID namespace where that is shared.
    pub(crate) fn start(&self, launch: Launch) -> Result<Child, LaunchError> {
        match &self.processes {
            Some(processes) => launch.start_among(processes.as_fd()),
            None => launch.start(),
        }
    }

    fn start_pause(&mut self, options: &SandboxOptions<'_>) -> Result<(), SandboxError> {
        let mut makes = UnshareFlags::NEWIPC;
        if !options.host_network {
            makes |= UnshareFlags::NEWNET | UnshareFlags::NEWUTS;
        }
        let program = pause::open()?;
        let launch = Launch {
            command: vec![path_of(&program)],
            environment: BTreeMap::new(),
            entry: Entry {
                joins: Vec::new(),
                makes,
                hostname: (!options.host_network).then(|| options.hostname.to_owned()),
                ..self.entry()?
            },
            streams: [Stdio::null(), Stdio::null(), Stdio::null()],
        };
        if !options.share_processes {
            self.pause = Some(launch.start()?);
            return Ok(());
        }
        let own = OwnedFd::from(File::open("/proc/thread-self/ns/pid")?);
        // SAFETY: only the children of this thread are born in the new namespace.
        unsafe { unshare_unsafe(UnshareFlags::NEWPID) }.map_err(io::Error::from)?;
        let started = launch.start();
        move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID))
            .map_err(io::Error::from)?;
        let pause = self.pause.insert(started?);
        self.processes = Some(File::open(format!("/proc/{}/ns/pid", pause.id()))?.into());
        Ok(())
    }

    fn open_namespaces(&mut self, options: &SandboxOptions<'_>) -> Result<(), SandboxError> {
        let own = [("net", LinkNameSpaceType::Network), ("uts", LinkNameSpaceType::HostNameAndNISDomainName)];
        let shared = [("ipc", LinkNameSpaceType::InterProcessCommunication)];
        let own = own.into_iter().filter(|_| !options.host_network);
        for (name, kind) in own.chain(shared) {
            let file = File::open(format!("/proc/{}/ns/{name}", self.pause()))?;
            self.joins.push((Arc::new(file.into()), kind));
        }
        Ok(())
    }

    fn attach(&mut self, options: &SandboxOptions<'_>) -> Result<(), SandboxError> {
        let namespace = NetworkNamespace::open(Path::new(&format!("/proc/{}/ns/net", self.pause())))?;
        let attachment = attach(&AttachOptions {
            namespace: &namespace,
            container_id: &self.container_id,
            ifname: IFNAME,
            pod: Some(options.pod),
            ranges: &options.settings.pod_cidrs,
            mtu: options.settings.mtu,
            bpf_dir: Some(&options.settings.bpf_dir),
            host_ports: options.host_ports,
        })?;
        self.attached = true;
        self.addresses = attachment.addresses;
        Ok(())
    }

    fn take_apart(&mut self) -> Result<(), SandboxError> {
        if let Some(mut pause) = self.pause.take() {
            pause.kill()?;
            pause.wait()?;
        }
        let emptied = self.cgroup.remove();
        if std::mem::take(&mut self.attached) {
            detach(&self.container_id, IFNAME, Some(&self.bpf_dir)).map_err(AttachError::from)?;
        }
        Ok(emptied?)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = self.take_apart() {
            tracing::warn!(%error, "something of a sandbox is left; `fairway sandbox delete` removes it");
        }
    }
}

/// A process as a file that is readable when it is gone.
pub(crate) fn open_process(process: u32) -> io::Result<OwnedFd> {
    let raw = i32::try_from(process).map_err(io::Error::other)?;
    let pid = Pid::from_raw(raw).ok_or(io::ErrorKind::NotFound)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

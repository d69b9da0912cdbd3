//! Runs a standalone pod from its first process to its last: sandbox, files, init containers in order, containers,
//! and the end in order. The calling process is the pod's runner; when it is killed, everything of the pod dies
//! with it. Called by `fairway sandbox run`.

use std::io;
use std::path::PathBuf;

use crate::container::{ContainerError, Surroundings};
use crate::detached::{self, Notice};
use crate::directory::{DirectoryError, Lock, PodDirectory};
use crate::files::{ClusterDns, DnsConfig, hostname, hosts, hosts_on_host_network, kernel_name, resolv_conf};
use crate::host_port::HostPort;
use crate::life::Life;
use crate::manifest::{Container, Pod, PortProtocol};
use crate::namespace::{NamespaceError, NetworkNamespace};
use crate::record::{PodId, Record};
use crate::sandbox::{Sandbox, SandboxError, SandboxOptions, clean};
use crate::settings::{Settings, SettingsError, fetch_settings};
use crate::signals::Stop;

/// What to run.
pub struct RunOptions {
    /// The daemon's directory.
    pub run_dir: PathBuf,
    /// The pod: from [`crate::read_pod`] or [`Pod::named`], with what the command line adds.
    pub pod: Pod,
    /// The directory that containers see as `/`; None is the root of this machine.
    pub rootfs: Option<PathBuf>,
    /// Ports of the node that lead to the pod, besides those of its containers.
    pub publish: Vec<HostPort>,
}

/// Why a pod did not run, or how it ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The daemon.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// No object can have that name.
    #[error("{0}")]
    Name(String),
    /// The name is taken.
    #[error("pod {0} runs already")]
    Busy(PodId),
    /// The pod's directory.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The sandbox.
    #[error("pod {pod}: {source}")]
    Sandbox {
        /// The pod.
        pod: PodId,
        /// Why.
        source: Box<SandboxError>,
    },
    /// A container did not start.
    #[error("pod {pod}: container {container}: {source}")]
    Container {
        /// The pod.
        pod: PodId,
        /// The container.
        container: String,
        /// Why.
        source: Box<ContainerError>,
    },
    /// An init container failed, so that the pod cannot start.
    #[error("pod {pod}: init container {container} ended with {end}")]
    Init {
        /// The pod.
        pod: PodId,
        /// The container.
        container: String,
        /// Its exit code or signal.
        end: String,
    },
    /// Somebody killed the pause process.
    #[error("pod {0}: its pause process is gone")]
    Pause(PodId),
    /// The node's namespace.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// A call that hardly fails.
    #[error("running a pod: {0}")]
    Io(#[from] io::Error),
}

/// Runs a pod with the settings of the daemon of `run_dir`; the exit code is that of the first container that
/// failed, 0 if none did or if the pod was asked to end.
pub fn run(options: &RunOptions) -> Result<u8, RunError> {
    let pod = &options.pod;
    let links = pod.naming.enable_service_links;
    let (settings, node) = fetch_settings(&options.run_dir, &pod.metadata.namespace, links)?;
    run_with(options, &settings, node.as_ref())
}

/// Runs a pod on the node of a network namespace, by default that of the calling thread.
pub fn run_with(
    options: &RunOptions,
    settings: &Settings,
    node: Option<&NetworkNamespace>,
) -> Result<u8, RunError> {
    // Taken first, so that nothing started below inherits it.
    let notice = Notice::of_environment();
    match node {
        Some(node) => node.enter(|| claim(options, settings, notice))?,
        None => claim(options, settings, notice),
    }
}

/// What a person should know before the pod starts: one line each.
pub fn notices(pod: &Pod, without_effect: &[String], rootfs: Option<&std::path::Path>) -> Vec<String> {
    let mut lines = Vec::new();
    if pod.work.containers.iter().chain(&pod.work.init_containers).any(|container| container.image.is_some())
    {
        let root = rootfs.map_or("this machine's root".to_owned(), |path| path.display().to_string());
        lines.push(format!("images are not pulled: the containers run in {root}"));
    }
    let mut fields = without_effect.to_vec();
    fields.extend(host_ports_without_effect(pod));
    fields.sort();
    if !fields.is_empty() {
        lines.push(format!("without effect here: {}", fields.join(", ")));
    }
    lines
}

/// The hooks lead TCP and UDP. On the node's own network a hostPort is the container's port already.
fn host_ports_without_effect(pod: &Pod) -> Vec<String> {
    if pod.work.host_network {
        return Vec::new();
    }
    let of = |list: &str, containers: &[Container]| -> Vec<String> {
        let each = containers.iter().enumerate().flat_map(|(index, container)| {
            let ports = container.ports.iter().enumerate();
            let unled =
                ports.filter(|(_, port)| port.host_port.is_some() && port.protocol == PortProtocol::Sctp);
            unled.map(move |(port, _)| format!("spec.{list}[{index}].ports[{port}].hostPort (SCTP)"))
        });
        each.collect()
    };
    [of("containers", &pod.work.containers), of("initContainers", &pod.work.init_containers)].concat()
}

/// On the thread that is in the node's network namespace, and whose children the pod's processes are.
fn claim(options: &RunOptions, settings: &Settings, notice: Option<Notice>) -> Result<u8, RunError> {
    let stop = Stop::catch()?;
    let id = options.pod.id();
    // A name that was typed has not been checked before, and becomes a path below.
    id.to_string().parse::<PodId>().map_err(RunError::Name)?;
    let directory = PodDirectory::of(&options.run_dir, &id);
    let Some(lock) = directory.claim()? else { return Err(RunError::Busy(id)) };
    let result = claimed(options, settings, &directory, &stop, notice);
    directory.remove()?;
    drop::<Lock>(lock);
    result
}

fn claimed(
    options: &RunOptions,
    settings: &Settings,
    directory: &PodDirectory,
    stop: &Stop,
    notice: Option<Notice>,
) -> Result<u8, RunError> {
    let pod = &options.pod;
    let failed = |source| RunError::Sandbox { pod: pod.id(), source: Box::new(source) };
    // A runner of this name may have been killed.
    clean(&pod.id(), &settings.cgroup, &settings.bpf_dir).map_err(failed)?;
    directory.empty()?;
    let names = Names::of(pod, &settings.cluster_domain)?;
    let sandbox = Sandbox::make(&SandboxOptions {
        pod: &pod.id(),
        settings,
        hostname: &names.kernel,
        host_ports: &[pod.host_ports(), options.publish.clone()].concat(),
        host_network: pod.work.host_network,
        share_processes: pod.work.share_process_namespace,
    });
    let sandbox = sandbox.map_err(failed)?;
    write_files(pod, settings, directory, &sandbox, &names)?;
    let around = Surroundings {
        pod,
        settings,
        addresses: &sandbox.addresses,
        hostname: &names.kernel,
        directory,
        rootfs: options.rootfs.as_deref(),
    };
    let log = notice.is_some().then(|| detached::open_log(directory.path())).transpose()?;
    Life::new(around, &sandbox, stop, log)?.live(notice)
}

/// How a pod is called.
struct Names {
    /// What the kernel and `/etc/hostname` say.
    kernel: String,
    /// In `/etc/hosts`, where the pod has its own.
    hostname: String,
    /// What follows it in the full name.
    domain: Option<String>,
}

impl Names {
    fn of(pod: &Pod, cluster_domain: &str) -> Result<Self, RunError> {
        if pod.work.host_network {
            let node = std::fs::read_to_string("/proc/sys/kernel/hostname")?.trim_end().to_owned();
            return Ok(Self { kernel: node.clone(), hostname: node, domain: None });
        }
        let (naming, namespace) = (&pod.naming, &pod.metadata.namespace);
        let hostname = hostname(&pod.metadata.name, naming.hostname.as_deref());
        let subdomain = naming.subdomain.as_deref().filter(|name| !name.is_empty());
        let domain = subdomain.map(|name| format!("{name}.{namespace}.svc.{cluster_domain}"));
        let kernel = kernel_name(&hostname, domain.as_deref(), naming.full_hostname)
            .map_err(|problem| RunError::Name(format!("pod {}: {problem}", pod.id())))?;
        Ok(Self { kernel, hostname, domain })
    }
}

fn write_files(
    pod: &Pod,
    settings: &Settings,
    directory: &PodDirectory,
    sandbox: &Sandbox,
    names: &Names,
) -> Result<(), RunError> {
    let naming = &pod.naming;
    let namespace = &pod.metadata.namespace;
    let hosts = if pod.work.host_network {
        hosts_on_host_network(&std::fs::read_to_string("/etc/hosts")?, &naming.host_aliases)
    } else {
        hosts(&sandbox.addresses, &names.hostname, names.domain.as_deref(), &naming.host_aliases)
    };
    let cluster =
        ClusterDns { namespace, domain: &settings.cluster_domain, addresses: &settings.cluster_dns };
    let upstream = DnsConfig::parse(&settings.resolv_conf);
    let own = naming.dns_config.as_ref();
    let resolv_conf = resolv_conf(naming.dns_policy, pod.work.host_network, cluster, &upstream, own);
    directory.write("hosts", &hosts)?;
    directory.write("resolv.conf", &resolv_conf)?;
    directory.write("hostname", &format!("{}\n", names.kernel))?;
    Ok(())
}

/// The record of a pod that has a sandbox and nothing else yet.
pub(crate) fn record(pod: &Pod, sandbox: &Sandbox) -> Record {
    let written = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
    Record {
        pod: pod.id(),
        labels: pod.metadata.labels.clone(),
        addresses: sandbox.addresses.clone(),
        ports: pod.ports(),
        hostname: written(&pod.naming.hostname),
        subdomain: written(&pod.naming.subdomain),
        host_network: pod.work.host_network,
        ready: false,
        terminating: false,
        pause: sandbox.pause(),
    }
}

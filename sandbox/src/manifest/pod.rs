//! A Pod, as far as it has an effect here. The words are those of the Pod API, `core/v1`; what is not here is in
//! the list of fields without effect. Plain values: checked by `check.rs`, used by the runner.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

use crate::files::{DnsConfig, DnsPolicy, HostAlias};
use crate::host_port::{HostPort, HostProtocol};
use crate::record::{ContainerPort, PodId};

const GRACE_SECONDS: u64 = 30;

/// A Pod to be run.
#[derive(Clone, Debug)]
pub struct Pod {
    /// `metadata`.
    pub metadata: Metadata,
    /// What runs in it.
    pub work: Work,
    /// How it names itself and others.
    pub naming: Naming,
}

/// `metadata`.
#[derive(Clone, Debug, Deserialize)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its namespace.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// Its labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

/// The part of `spec` that says what runs.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Work {
    /// `containers`; empty for a sandbox with nothing but its pause process.
    pub containers: Vec<Container>,
    /// `initContainers`.
    #[serde(default)]
    pub init_containers: Vec<Container>,
    /// `volumes`.
    #[serde(default)]
    pub volumes: Vec<Volume>,
    /// `hostNetwork`.
    #[serde(default)]
    pub host_network: bool,
    /// `shareProcessNamespace`.
    #[serde(default)]
    pub share_process_namespace: bool,
    /// `terminationGracePeriodSeconds`.
    #[serde(default = "default_grace")]
    pub termination_grace_period_seconds: u64,
}

/// The part of `spec` that says how the pod names itself and others.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Naming {
    /// `hostname`.
    pub hostname: Option<String>,
    /// `subdomain`.
    pub subdomain: Option<String>,
    /// `setHostnameAsFQDN`.
    #[serde(default, rename = "setHostnameAsFQDN")]
    pub full_hostname: bool,
    /// `hostAliases`.
    #[serde(default)]
    pub host_aliases: Vec<HostAlias>,
    /// `dnsPolicy`.
    #[serde(default)]
    pub dns_policy: DnsPolicy,
    /// `dnsConfig`.
    pub dns_config: Option<DnsConfig>,
    /// `enableServiceLinks`.
    #[serde(default = "yes")]
    pub enable_service_links: bool,
}

/// One of `containers` or `initContainers`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Its name.
    pub name: String,
    /// Its image, which is not pulled.
    pub image: Option<String>,
    /// `command`.
    pub command: Vec<String>,
    /// `args`.
    pub args: Vec<String>,
    /// `env`.
    pub env: Vec<EnvVar>,
    /// `workingDir`.
    pub working_dir: Option<String>,
    /// `ports`.
    pub ports: Vec<PodPort>,
    /// `volumeMounts`.
    pub volume_mounts: Vec<VolumeMount>,
    /// `restartPolicy`: an init container that says `Always` stays.
    pub restart_policy: Option<String>,
}

/// One of `env`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvVar {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Option<String>,
    /// Where its value comes from.
    pub value_from: Option<ValueFrom>,
}

/// `valueFrom`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ValueFrom {
    /// A field of the pod.
    pub field_ref: Option<FieldRef>,
}

/// `fieldRef`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FieldRef {
    /// For example `status.podIP`.
    pub field_path: String,
}

/// One of `ports`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PodPort {
    /// `name`.
    pub name: Option<String>,
    /// `containerPort`.
    #[serde(deserialize_with = "port")]
    pub container_port: u16,
    /// `protocol`.
    #[serde(default)]
    pub protocol: PortProtocol,
    /// `hostPort`.
    #[serde(default, deserialize_with = "optional_port")]
    pub host_port: Option<u16>,
    /// `hostIP`.
    #[serde(rename = "hostIP")]
    pub host_ip: Option<IpAddr>,
}

/// The protocol of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PortProtocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// One of `volumes`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// A fresh directory.
    pub empty_dir: Option<EmptyDir>,
    /// A directory or file of the node.
    pub host_path: Option<HostPath>,
}

/// `emptyDir`, whose fields have no effect.
#[derive(Clone, Debug, Deserialize)]
pub struct EmptyDir {}

/// `hostPath`.
#[derive(Clone, Debug, Deserialize)]
pub struct HostPath {
    /// The path on the node.
    pub path: String,
    /// What must be there, or is made.
    #[serde(rename = "type", default)]
    pub kind: String,
}

/// One of `volumeMounts`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeMount {
    /// The volume's name.
    pub name: String,
    /// Where the container sees it.
    pub mount_path: String,
    /// Not writable.
    #[serde(default)]
    pub read_only: bool,
    /// A path inside the volume.
    #[serde(default)]
    pub sub_path: String,
}

impl Pod {
    /// A pod that no manifest describes; `command` is that of its one container, nothing runs if it is empty.
    pub fn named(id: PodId, command: Vec<String>) -> Self {
        let mut containers = Vec::new();
        if !command.is_empty() {
            containers.push(Container { name: id.name.clone(), command, ..Container::default() });
        }
        Self {
            metadata: Metadata {
                name: id.name,
                namespace: id.namespace,
                labels: BTreeMap::new(),
                annotations: BTreeMap::new(),
            },
            work: Work {
                containers,
                init_containers: Vec::new(),
                volumes: Vec::new(),
                host_network: false,
                share_process_namespace: false,
                termination_grace_period_seconds: GRACE_SECONDS,
            },
            naming: Naming {
                hostname: None,
                subdomain: None,
                full_hostname: false,
                host_aliases: Vec::new(),
                dns_policy: DnsPolicy::ClusterFirst,
                dns_config: None,
                enable_service_links: true,
            },
        }
    }

    /// Replaces the command of the first container.
    pub fn set_command(&mut self, command: Vec<String>) {
        if let Some(first) = self.work.containers.first_mut() {
            first.command = command;
            first.args.clear();
        }
    }

    /// Namespace and name.
    pub fn id(&self) -> PodId {
        PodId { namespace: self.metadata.namespace.clone(), name: self.metadata.name.clone() }
    }

    /// The ports of the node that lead to those of [`Pod::ports`]; none on the node's own network, where they are the
    /// same.
    pub fn host_ports(&self) -> Vec<HostPort> {
        if self.work.host_network {
            return Vec::new();
        }
        let host_port = |port: &PodPort| {
            let protocol = HostProtocol::of(port.protocol.as_str())?;
            let (address, container_port) = (port.host_ip, port.container_port);
            Some(HostPort { address, port: port.host_port?, protocol, container_port })
        };
        self.staying_ports().filter_map(host_port).collect()
    }

    /// The ports of all containers that stay.
    pub fn ports(&self) -> Vec<ContainerPort> {
        let port = |port: &PodPort| ContainerPort {
            name: port.name.clone(),
            container_port: port.container_port,
            protocol: port.protocol.as_str().to_owned(),
            host_port: port.host_port,
            host_ip: port.host_ip,
        };
        self.staying_ports().map(port).collect()
    }

    fn staying_ports(&self) -> impl Iterator<Item = &PodPort> {
        let staying = self.work.init_containers.iter().filter(|container| container.stays());
        self.work.containers.iter().chain(staying).flat_map(|container| &container.ports)
    }
}

impl Container {
    /// An init container that is not waited for (KEP-753).
    pub fn stays(&self) -> bool {
        self.restart_policy.as_deref() == Some("Always")
    }
}

impl PortProtocol {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

fn default_namespace() -> String {
    "default".to_owned()
}

const fn default_grace() -> u64 {
    GRACE_SECONDS
}

const fn yes() -> bool {
    true
}

fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    let number = i64::deserialize(deserializer)?;
    u16::try_from(number)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| D::Error::custom(format_args!("{number} is not a port: a number from 1 to 65535")))
}

/// A hostPort of 0 is none.
fn optional_port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let number = i64::deserialize(deserializer)?;
    let port = u16::try_from(number);
    let port =
        port.map_err(|_| D::Error::custom(format_args!("{number} is not a port: a number from 1 to 65535")))?;
    Ok((port != 0).then_some(port))
}

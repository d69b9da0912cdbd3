//! The pause sandbox of a pod and its network. Blocking, without an async runtime: the CNI plug-in is made of
//! the same functions. The kernel is the database: a pod's link is its record and its route holds its address.

mod ask;
mod attach;
mod attachment;
mod bpf;
mod cgroup;
mod check;
mod clock;
mod cni;
mod container;
mod detach;
mod detached;
mod directory;
mod environment;
mod exec;
mod files;
mod host_port;
mod launch;
mod life;
mod manifest;
mod maps;
mod masquerade;
mod names;
mod namespace;
mod netlink;
mod node;
mod node_routes;
mod pause;
mod range;
mod record;
mod repair;
mod run;
mod sandbox;
mod settings;
mod signals;
mod sysctl;
mod uplink;

pub use ask::{Answer, AskError, SOCKET, ask};
pub use attach::{AttachError, AttachOptions, attach};
pub use attachment::{Attachment, End, LINK_GROUP, link_name, mac_address};
pub use bpf::{MapError, PodValue, pod_value};
pub use cgroup::CgroupError;
pub use check::{CheckError, Findings, StatusError, check, status};
pub use cni::conflist::{
    CNI_PROGRAM, CONFLIST, CniConfig, InstallError, install_cni_program, install_loopback, write_conflist,
};
pub use cni::run_cni;
pub use container::ContainerError;
pub use detach::{Identity, attachments, collect, detach};
pub use detached::{Detached, is_detached, run_detached};
pub use directory::{DirectoryError, records};
pub use environment::{Variable, environment, expand, service_environment};
pub use exec::{ExecError, ExecOptions, delete, exec};
pub use files::{
    ClusterDns, DnsConfig, DnsOption, DnsPolicy, HostAlias, hostname, hosts, hosts_on_host_network,
    resolv_conf, upstreams,
};
pub use host_port::{HostPort, HostPortError, HostProtocol, shadowed};
pub use launch::LaunchError;
pub use manifest::{
    Container, EmptyDir, EnvVar, FieldRef, HostPath, Manifest, ManifestError, Metadata, Naming, Pod, PodPort,
    PortProtocol, ValueFrom, Volume, VolumeMount, Work, read_pod,
};
pub use maps::{MapEntries, PruneError, map_entries, prune, tell};
pub use masquerade::{Masquerade, remove_masquerade};
pub use namespace::{NamespaceError, NetworkNamespace, current_cookie};
pub use netlink::{Changes, HostRoute, Link, MacAddress, Netlink, NetlinkError, Veth};
pub use node::{
    add_loopback_addresses, enable_forwarding, local_addresses, node_addresses, node_mtu,
    remove_loopback_addresses,
};
pub use node_routes::{
    NodeRoutes, OwnAddress, RouteOptions, RoutedNode, VXLAN_DEVICE, own_addresses, plan as plan_node_routes,
};
pub use pause::PROGRAM as PAUSE_PROGRAM;
pub use range::RangeError;
pub use record::{ContainerPort, PodId, Record};
pub use repair::Repair;
pub use run::{RunError, RunOptions, notices, run, run_with};
pub use sandbox::{SandboxError, is_standalone};
pub use settings::{Settings, SettingsError, fetch_settings};
pub use sysctl::SysctlError;
pub use uplink::{Uplink, uplinks};

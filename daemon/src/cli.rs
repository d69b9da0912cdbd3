//! The command line: what can be typed, and nothing else. Flags, environment variables and keys of the
//! configuration file have the same names; each is documented once, here.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ipnet::IpNet;

pub use crate::name_args::NameArgs;

/// Fairway gives a Kubernetes node its service network: balancing in the kernel, names, pod sandboxes.
#[derive(Debug, Parser)]
#[command(name = "fairway", version, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the daemon of this node.
    Run(RunArgs),
    /// Show what the running daemon knows.
    Get(GetArgs),
    /// Show the services in use, live: connections open, opened per second, failures.
    Top(TopArgs),
    /// Explain where a name or an address leads, and why.
    Explain(ExplainArgs),
    /// Show what would be programmed for a folder of manifests; touches nothing.
    Plan(RunArgs),
    /// Run, list, enter and delete pod sandboxes without a container runtime.
    #[command(subcommand)]
    Sandbox(SandboxCommand),
    /// Do what the CNI plug-in does, by hand: the request is in CNI_COMMAND and its siblings and on standard input.
    Cni,
    /// Say what this kernel and machine offer, and what is missing.
    Check(CheckArgs),
    /// Remove everything that Fairway has left on this node.
    Cleanup(PlaceArgs),
    /// Print the version.
    Version,
}

/// Where a node's daemon keeps its things. Several nodes on one machine need one set each.
#[derive(Args, Clone, Debug)]
pub struct PlaceArgs {
    /// Directory of the admin socket and of the records of sandboxes.
    #[arg(long, value_name = "DIR", env = "FAIRWAY_RUN_DIR", default_value = "/run/fairway")]
    pub run_dir: PathBuf,
    /// Directory on a BPF file system where maps and links are pinned.
    #[arg(long, value_name = "DIR", env = "FAIRWAY_BPF_DIR", default_value = "/sys/fs/bpf/fairway")]
    pub bpf_dir: PathBuf,
}

/// The daemon's options.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// YAML file with any of these options; a flag or a variable wins over it.
    #[arg(long, value_name = "FILE", env = "FAIRWAY_CONFIG")]
    pub config: Option<PathBuf>,
    /// Where things are kept.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// Where the cluster's objects come from.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Who this node is.
    #[command(flatten)]
    pub node: NodeArgs,
    /// Names.
    #[command(flatten)]
    pub names: NameArgs,
    /// Pods of this node and of others.
    #[command(flatten)]
    pub network: NetworkArgs,
    /// Take the place of the daemon that runs here, if one does: it hands over the sockets of names, and ends.
    #[arg(long, env = "FAIRWAY_TAKE_OVER")]
    pub take_over: bool,
    /// Where /healthz and /livez are answered; "" for nowhere.
    #[arg(
        long,
        value_name = "IP:PORT",
        env = "FAIRWAY_HEALTHZ_BIND_ADDRESS",
        default_value = "0.0.0.0:10256",
        value_parser = listen
    )]
    pub healthz_bind_address: Listen,
}

/// An address to listen on; None for nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

/// Where the cluster's objects come from: a folder of manifests, or the Kubernetes API.
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    /// Folder of manifests to serve instead of an API server.
    #[arg(long, value_name = "DIR", env = "FAIRWAY_MANIFESTS", conflicts_with = "kubeconfig")]
    pub manifests: Option<PathBuf>,
    /// Kubeconfig of the API server; without it the pod's service account is used.
    #[arg(long, value_name = "FILE", env = "FAIRWAY_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// URL of the API server that needs no service network, such as https://192.0.2.1:6443 [default: the
    /// kubeconfig's, or the service account's].
    #[arg(long, value_name = "URL", env = "FAIRWAY_API_SERVER", conflicts_with = "manifests")]
    pub api_server: Option<String>,
    /// Ranges for cluster IPs of manifests, at most one a family.
    #[arg(
        long,
        value_name = "CIDR",
        env = "FAIRWAY_SERVICE_CIDR",
        value_delimiter = ',',
        default_value = "10.96.0.0/16"
    )]
    pub service_cidr: Vec<IpNet>,
}

/// Who this node is.
#[derive(Args, Clone, Debug)]
pub struct NodeArgs {
    /// Name of this node [default: the host name].
    #[arg(long, value_name = "NAME", env = "FAIRWAY_NODE_NAME")]
    pub node_name: Option<String>,
    /// Addresses of this node [default: those of the interface with the default route].
    #[arg(long, value_name = "IP", env = "FAIRWAY_NODE_IP", value_delimiter = ',')]
    pub node_ip: Vec<IpAddr>,
    /// Where node ports answer: ranges of this node's addresses, as they are at the start, or `primary`.
    #[arg(
        long,
        value_name = "CIDR",
        env = "FAIRWAY_NODEPORT_ADDRESSES",
        value_delimiter = ',',
        default_value = "primary"
    )]
    pub nodeport_addresses: Vec<NodePortRange>,
    /// Ranges of pod addresses of this node [default: the Node's podCIDRs].
    #[arg(long, value_name = "CIDR", env = "FAIRWAY_POD_CIDR", value_delimiter = ',')]
    pub pod_cidr: Vec<IpNet>,
    /// The node's cgroup, of the v2 hierarchy; sockets below it are balanced [default: its root].
    #[arg(long, value_name = "PATH", env = "FAIRWAY_CGROUP")]
    pub cgroup: Option<PathBuf>,
    /// Ranges that pods reach with their own address, besides those of pods and nodes.
    #[arg(long, value_name = "CIDR", env = "FAIRWAY_NO_MASQUERADE", value_delimiter = ',')]
    pub no_masquerade: Vec<IpNet>,
    /// End TCP connections through a service once their pod, of this node, is gone and in no EndpointSlice.
    #[arg(long, env = "FAIRWAY_END_TCP")]
    pub end_tcp: bool,
}

/// Pods of this node and of others.
#[derive(Args, Clone, Debug)]
pub struct NetworkArgs {
    /// Fairway as CNI plug-in.
    #[command(flatten)]
    pub cni: CniArgs,
    /// Routes to the pods of other nodes: none, straight on the same link and VXLAN elsewhere, or VXLAN to all.
    #[arg(long, value_name = "HOW", env = "FAIRWAY_NODE_ROUTES", default_value = "off")]
    pub node_routes: NodeRouteMode,
    /// UDP port of VXLAN, the same on every node.
    #[arg(long, value_name = "PORT", env = "FAIRWAY_VXLAN_PORT", default_value_t = 8472, value_parser = clap::value_parser!(u16).range(1..))]
    pub vxlan_port: u16,
    /// The packet engine.
    #[command(flatten)]
    pub packets: PacketArgs,
}

/// The packet engine at the node's uplinks: services for clients outside, and pods that leave the cluster.
#[derive(Args, Clone, Debug)]
pub struct PacketArgs {
    /// Whether the packet engine runs.
    #[arg(long, value_name = "WHETHER", env = "FAIRWAY_PACKETS", default_value = "on")]
    pub packets: Switch,
    /// How packets get on once the packet engine has translated them.
    #[arg(long, value_name = "PATH", env = "FAIRWAY_PACKET_PATH", default_value = "stack")]
    pub packet_path: PacketPath,
    /// Links at which the packet engine works [default: those of the default routes and of the node's addresses].
    #[arg(long, value_name = "LINK", env = "FAIRWAY_UPLINK", value_delimiter = ',')]
    pub uplink: Vec<String>,
}

/// How translated packets get on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PacketPath {
    /// Through the host's stack and its firewall.
    Stack,
    /// Those from outside straight to the link by which they go on: less work, and the host's firewall does not see them.
    Redirect,
}

/// Which addresses of the node have node ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePortRange {
    /// The node's own: `--node-ip`, or the primary ones of the Node.
    Primary,
    /// All of this range.
    Range(IpNet),
}

impl FromStr for NodePortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "primary" {
            return Ok(Self::Primary);
        }
        text.parse().map(Self::Range).map_err(|_| "say a range such as 192.0.2.0/24, or primary".to_owned())
    }
}

/// Whether something runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It runs.
    On,
    /// It does not.
    Off,
}

/// Fairway as the CNI plug-in of the node's container runtime: both directories, or it is not.
#[derive(Args, Clone, Debug)]
pub struct CniArgs {
    /// Directory of the runtime's CNI programs, where Fairway's is installed.
    #[arg(long, value_name = "DIR", env = "FAIRWAY_CNI_BIN_DIR", requires = "cni_conf_dir")]
    pub cni_bin_dir: Option<PathBuf>,
    /// Directory of the runtime's CNI lists, where Fairway's is written once the node is ready.
    #[arg(long, value_name = "DIR", env = "FAIRWAY_CNI_CONF_DIR", requires = "cni_bin_dir")]
    pub cni_conf_dir: Option<PathBuf>,
}

/// How the pods of other nodes are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum NodeRouteMode {
    /// Somebody else routes.
    Off,
    /// Straight where a node is on the same link, else through VXLAN.
    Auto,
    /// Through VXLAN: where the link drops packets of addresses that it did not give out.
    Vxlan,
}

/// `fairway check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Have the running daemon examine its programs and maps now, and put right what is wrong.
    #[arg(long)]
    pub live: bool,
    /// The options with which the daemon would run.
    #[command(flatten)]
    pub run: RunArgs,
}

/// `fairway get`.
#[derive(Args, Clone, Debug)]
pub struct GetArgs {
    /// What to show.
    pub what: Listing,
    /// Where the daemon keeps its things.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// How to show it.
    #[arg(short, long, default_value = "table")]
    pub output: Output,
}

/// What `fairway get` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Listing {
    /// Every Service with its addresses and endpoints.
    Services,
    /// Every backend with the connections opened to it.
    Backends,
    /// Every open connection through a frontend: whose, and to which backend.
    Connections,
    /// Every DNS name with its records.
    Dns,
    /// Every server that names outside the cluster are asked of, and whether it answers.
    Upstreams,
    /// Every pod sandbox that this node runs.
    Sandboxes,
}

/// `fairway top`.
#[derive(Args, Clone, Debug)]
pub struct TopArgs {
    /// Where the daemon keeps its things.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// How to show it: live in a terminal, or what one second brought as JSON.
    #[arg(short, long, default_value = "table")]
    pub output: Output,
}

/// How output is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For machines.
    Json,
}

/// `fairway explain`.
#[derive(Args, Clone, Debug)]
pub struct ExplainArgs {
    /// A name or address as a client would dial it, with or without a port: `web.shop:80`, `10.96.0.1`.
    #[arg(value_name = "HOST[:PORT]")]
    pub target: String,
    /// The client: a pod of this node as `[NAMESPACE/]NAME`, or an address; else this node itself.
    #[arg(long, value_name = "POD|IP")]
    pub from: Option<String>,
    /// Where the daemon keeps its things.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// How to show it.
    #[arg(short, long, default_value = "table")]
    pub output: Output,
}

/// `fairway sandbox`.
#[derive(Debug, Subcommand)]
pub enum SandboxCommand {
    /// Run a pod until its containers end: from a manifest, or from a name and a command.
    Run(SandboxRunArgs),
    /// List the sandboxes of this node.
    List(SandboxListArgs),
    /// Run a command inside a sandbox.
    Exec(SandboxExecArgs),
    /// End a sandbox and remove everything it had.
    Delete(SandboxDeleteArgs),
}

/// `fairway sandbox run`.
#[derive(Args, Debug)]
pub struct SandboxRunArgs {
    /// Pod manifest.
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["name", "command"], required_unless_present = "name")]
    pub file: Option<PathBuf>,
    /// Name of the pod, where there is no manifest.
    #[arg(long)]
    pub name: Option<String>,
    /// Namespace of the pod, where the manifest does not say.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// A line of /etc/hosts.
    #[arg(long, value_name = "IP=NAME,NAME")]
    pub host_alias: Vec<String>,
    /// A port of the node that leads to one of the pod.
    #[arg(long, value_name = "[[IP:]PORT:]CONTAINER-PORT[/PROTOCOL]")]
    pub publish: Vec<String>,
    /// DNS policy: ClusterFirst, ClusterFirstWithHostNet, Default or None.
    #[arg(long, value_name = "POLICY")]
    pub dns_policy: Option<String>,
    /// Root file system of the containers [default: the node's].
    #[arg(long, value_name = "DIR")]
    pub rootfs: Option<PathBuf>,
    /// Return once all containers run; their output goes to a log file in the run directory.
    #[arg(short, long)]
    pub detach: bool,
    /// Where the daemon keeps its things.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The command of the pod's one container.
    #[arg(last = true, value_name = "COMMAND", requires = "name")]
    pub command: Vec<String>,
}

/// `fairway sandbox list`.
#[derive(Args, Debug)]
pub struct SandboxListArgs {
    /// Where the daemon keeps its things.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// How to show it.
    #[arg(short, long, default_value = "table")]
    pub output: Output,
}

/// `fairway sandbox exec`.
#[derive(Args, Debug)]
pub struct SandboxExecArgs {
    /// The pod as `[NAMESPACE/]NAME`.
    pub pod: String,
    /// The container whose files and environment are meant [default: the first].
    #[arg(short, long, value_name = "NAME")]
    pub container: Option<String>,
    /// Where the daemon keeps its things.
    #[command(flatten)]
    pub place: PlaceArgs,
    /// The command.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// `fairway sandbox delete`.
#[derive(Args, Debug)]
pub struct SandboxDeleteArgs {
    /// The pod as `[NAMESPACE/]NAME`.
    pub pod: String,
    /// Where the daemon keeps its things.
    #[command(flatten)]
    pub place: PlaceArgs,
}

fn listen(text: &str) -> Result<Listen, String> {
    if text.is_empty() {
        return Ok(Listen(None));
    }
    let address = text.parse().map_err(|_| format!("{text:?} is not an address with a port"))?;
    Ok(Listen(Some(address)))
}

//! The network of the bench: a node with Fairway, one that only routes, one with rules of kube-proxy's shape, and one
//! behind them with the remote pod, all on one link; a client beyond the router. Pods are made by hand, all alike.
//!
//! The way without translation takes the same hops, there and back, as the others must take.

use std::path::Path;
use std::process::Command;

use ::tests::{Background, CLIENT4, Client, NODE4, Node, Options, Place};
use anyhow::{Context, Result, bail};

use super::super::kube_proxy::{self, NodePort};

/// The node that only routes, and the one with rules.
const PLAIN: (&str, &str) = ("plain", "192.0.2.12");
const RULES: (&str, &str) = ("rules", "192.0.2.13");
const REMOTE: &str = "192.0.2.11";
/// The pods on those nodes and behind them.
const PODS: [&str; 4] = ["10.244.1.200", "10.245.1.2", "10.246.1.2", "10.244.2.200"];

/// What every pod serves: protocol, port, and the node ports that lead to the local and to the remote one.
pub(super) const PORTS: [(&str, u16, [u16; 2]); 5] = [
    ("tcp", 80, [30080, 31080]),
    ("udp", 81, [30081, 31081]),
    ("tcp", 5201, [30201, 31201]),
    ("udp", 5201, [30201, 31201]),
    ("tcp", 82, [30082, 31082]),
];

/// Where the backend is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    Local = 0,
    Remote = 1,
}

/// All of it; dropped in this order.
pub(super) struct Net {
    _servers: Vec<Background>,
    _namespaces: Vec<Namespace>,
    pub(super) client: Client,
    _remote: Node,
    _node: Node,
}

/// A network namespace that goes when it is dropped.
struct Namespace(String);

impl Net {
    pub(super) fn create(programs: &Path) -> Result<Self> {
        let options = || Options { programs: Some(programs.to_owned()), log: "info", ..Options::default() };
        let mut node = Node::create(Options { manifests: vec![manifests()?], ..options() })?;
        let remote = node.create_other(Place::Beside, options())?;
        let client = Client::beyond(&node)?;
        let name = node.name().to_owned();
        let mut namespaces = Vec::new();
        for (kind, address) in [PLAIN, RULES] {
            namespaces.push(hop(&format!("{name}-{kind}"), node.outside(), kind, address)?);
        }
        let [plain, rules] = [&namespaces[0].0, &namespaces[1].0].map(Clone::clone);
        let (pods, nodes) = (PODS, [name.as_str(), &plain, &rules, remote.name()]);
        for (pod, on) in pods.into_iter().zip(nodes) {
            namespaces.push(attach(pod, on)?);
        }
        for on in &nodes[..3] {
            run(&format!("ip -n {on} route add {} via {REMOTE}", PODS[3]))?;
            // The way on leads back to the link it came by, of which the router need not be told.
            within(
                on,
                "echo 1 >/proc/sys/net/ipv4/ip_forward; cd /proc/sys/net/ipv4/conf; \
                        echo 0 >all/send_redirects; echo 0 >uplink/send_redirects",
            )?;
        }
        within(remote.name(), "echo 1 >/proc/sys/net/ipv4/ip_forward")?;
        run(&format!("ip -n {} route add {CLIENT4} via {}", remote.name(), PLAIN.1))?;
        for pod in [PODS[1], PODS[3]] {
            run(&format!("ip -n {} route add {pod} via {}", node.outside(), PLAIN.1))?;
        }
        load_rules(&rules, node.folder())?;
        node.start_daemon()?;
        let pods = &namespaces[2..];
        let servers = pods.iter().zip(PODS).map(|(pod, address)| serve(pod, address, &node));
        let servers = servers.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        Ok(Self { _servers: servers, _namespaces: namespaces, client, _remote: remote, _node: node })
    }

    /// Where the client finds a server: through Fairway, by plain routing, through the rules.
    pub(super) fn targets(place: Where, protocol: &str, port: u16) -> Result<[String; 3]> {
        let known = PORTS.iter().find(|(known, number, _)| (*known, *number) == (protocol, port));
        let (_, _, node_ports) = known.context("a port of the pods")?;
        let node_port = node_ports[place as usize];
        let pod = if place == Where::Local { PODS[1] } else { PODS[3] };
        Ok([format!("{NODE4}:{node_port}"), format!("{pod}:{port}"), format!("{}:{node_port}", RULES.1)])
    }
}

/// A node without a daemon on the link of the others.
fn hop(name: &str, router: &str, link: &str, address: &str) -> Result<Namespace> {
    let namespace = Namespace::new(name)?;
    run(&format!("ip -n {name} link add uplink type veth peer name {link} netns {router}"))?;
    run(&format!("ip -n {router} link set {link} master lan up"))?;
    run(&format!("ip -n {name} address add {address}/24 dev uplink"))?;
    run(&format!("ip -n {name} link set lo up"))?;
    run(&format!("ip -n {name} link set uplink up"))?;
    run(&format!("ip -n {name} route add default via 192.0.2.1"))?;
    Ok(namespace)
}

/// A pod on a node.
fn attach(address: &str, node: &str) -> Result<Namespace> {
    let name = format!("{node}-pod");
    let namespace = Namespace::new(&name)?;
    run(&format!("ip -n {name} link add eth0 type veth peer name bench0 netns {node}"))?;
    run(&format!("ip -n {node} address add 169.254.7.1/32 dev bench0"))?;
    run(&format!("ip -n {node} link set bench0 up"))?;
    run(&format!("ip -n {node} route add {address}/32 dev bench0"))?;
    run(&format!("ip -n {name} address add {address}/32 dev eth0"))?;
    run(&format!("ip -n {name} link set lo up"))?;
    run(&format!("ip -n {name} link set eth0 up"))?;
    run(&format!("ip -n {name} route add 169.254.7.1 dev eth0"))?;
    run(&format!("ip -n {name} route add default via 169.254.7.1"))?;
    Ok(namespace)
}

/// The servers of a pod.
fn serve(pod: &Namespace, address: &str, node: &Node) -> Result<Vec<Background>> {
    let probe = node.probe().display().to_string();
    let (echo, kept, datagrams) = (format!("{address}:80"), format!("{address}:82"), format!("{address}:81"));
    let lines: [&[&str]; 3] = [
        &[&probe, "echo", &echo],
        &[&probe, "serve", "--name", "pod", "--tcp", &kept, "--udp", &datagrams],
        &["iperf3", "--server", "--forceflush"],
    ];
    let begin = |words: &[&str]| {
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        let mut server = Background::start(command, Some(Path::new(&format!("/run/netns/{}", pod.0))))?;
        // Its first line comes once it listens.
        server.read_line().with_context(|| format!("{} does not listen", words.join(" ")))?;
        Ok(server)
    };
    // Transfers take all cores; exchanges are compared on one.
    let start = |words: &[&str]| match words[0] {
        "iperf3" => begin(words),
        _ => super::on_one_core(|| begin(words))?,
    };
    lines.into_iter().map(start).collect()
}

/// The services of Fairway's node: one with the local pod, one with the remote one.
fn manifests() -> Result<(String, String)> {
    use std::fmt::Write as _;
    let mut text = String::new();
    for (name, place, pod) in [("near", Where::Local, PODS[0]), ("far", Where::Remote, PODS[3])] {
        let written = |node_port: bool| {
            let port = |(n, (protocol, port, node_ports)): (usize, &(&str, u16, [u16; 2]))| {
                let more = match node_port {
                    true => format!(", nodePort: {}", node_ports[place as usize]),
                    false => String::new(),
                };
                format!("{{name: p{n}, port: {port}, protocol: {}{more}}}", protocol.to_uppercase())
            };
            PORTS.iter().enumerate().map(port).collect::<Vec<_>>().join(", ")
        };
        write!(
            text,
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: bench}}\n\
             spec: {{type: NodePort, ports: [{}]}}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {name}-1, namespace: bench, labels: {{kubernetes.io/service-name: {name}}}}}\n\
             addressType: IPv4\nports: [{}]\nendpoints: [{{addresses: [{pod}]}}]\n---\n",
            written(true),
            written(false)
        )?;
    }
    Ok(("bench.yaml".to_owned(), text))
}

fn load_rules(namespace: &str, folder: &Path) -> Result<()> {
    let ends = [(Where::Local, PODS[2]), (Where::Remote, PODS[3])];
    let all = PORTS.iter().flat_map(|(protocol, port, node_ports)| {
        ends.map(|(place, pod)| (*protocol, node_ports[place as usize], pod, *port))
    });
    let file = folder.join("kube-proxy.nft");
    std::fs::write(&file, kube_proxy::node_ports(&all.collect::<Vec<NodePort<'_>>>()))?;
    run(&format!("ip netns exec {namespace} nft -f {}", file.display()))
}

impl Namespace {
    fn new(name: &str) -> Result<Self> {
        run(&format!("ip netns add {name}"))?;
        Ok(Self(name.to_owned()))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = run(&format!("ip netns delete {}", self.0));
    }
}

fn within(namespace: &str, script: &str) -> Result<()> {
    finish(Command::new("ip").args(["netns", "exec", namespace, "sh", "-c", script]), script)
}

fn run(line: &str) -> Result<()> {
    let mut words = line.split_whitespace();
    finish(Command::new(words.next().context("a program")?).args(words), line)
}

fn finish(command: &mut Command, line: &str) -> Result<()> {
    let output = command.output().with_context(|| format!("`{line}` cannot be started"))?;
    if output.status.success() {
        return Ok(());
    }
    bail!("`{line}`: {}", String::from_utf8_lossy(&output.stderr).trim())
}

//! Two nodes that know of each other, a router, and a client beyond it: what the tests of clients outside share.
//!
//! Backends are `a` on the first node and `b` on the second, on ports 8080 of both transports and both families.

use anyhow::{Result, ensure};
use tests::{Answers, Client, Kind, Node, Options, Place, until};

use crate::yaml::{service, slice_of};

/// The node port of every service here.
pub(crate) const NODE_PORT: u16 = 30080;

fn options() -> Options {
    let flags = ["--packets", "on", "--node-routes", "auto"].map(str::to_owned).to_vec();
    Options { flags, ..Options::default() }
}

/// Two nodes that know of each other, and a client beyond the router.
pub(crate) struct Cluster<'a> {
    pub(crate) first: &'a mut Node,
    pub(crate) second: Node,
    pub(crate) client: Client,
}

impl Cluster<'_> {
    /// Runs a test across the topology.
    pub(crate) fn run(place: Place, test: impl FnOnce(&mut Cluster<'_>) -> Result<()>) {
        Self::run_with(place, &[], test);
    }

    /// The same with further flags for the first node.
    pub(crate) fn run_with(
        place: Place,
        flags: &[String],
        test: impl FnOnce(&mut Cluster<'_>) -> Result<()>,
    ) {
        let mut all = options();
        all.flags.extend_from_slice(flags);
        Node::run(all, |first| {
            let mut second = first.create_other(place, options())?;
            let client = Client::beyond(first)?;
            let objects = crate::nodes::node_objects(&[first, &second]);
            first.write("nodes.yaml", &objects)?;
            second.write("nodes.yaml", &objects)?;
            second.start_daemon()?;
            let mut cluster = Cluster { first, second, client };
            let done = test(&mut cluster);
            done.map_err(|error| {
                let log = cluster.second.daemon.as_ref().map(tests::Daemon::log_tail).unwrap_or_default();
                error.context(format!("the second node's log ends:\n{log}"))
            })
        });
    }

    /// The same objects for both nodes.
    pub(crate) fn write(&self, file: &str, text: &str) -> Result<()> {
        self.first.write(file, text)?;
        self.second.write(file, text)
    }

    /// Asks from outside until exactly these answer.
    pub(crate) fn settled(&self, kind: Kind, target: &str, names: &[&str]) -> Result<Answers> {
        until(&format!("{target} to be answered by {names:?}"), || {
            let answers = self.client.ask(kind, target, &["--count", "20", "--timeout", "500"])?;
            answers.only_from(names).map(|()| answers)
        })
    }
}

/// Endpoints of the service `web` on these nodes.
pub(crate) fn endpoints(name: &str, family: &str, on: &[(&str, &str)]) -> String {
    let written: Vec<String> = on
        .iter()
        .map(|(address, node)| format!("{{addresses: [\"{address}\"], nodeName: {node}}}"))
        .collect();
    slice_of(name, "web", PORTS, family, &written.join(", "))
}

pub(crate) const PORTS: &str = "{name: t, port: 8080}, {name: u, port: 8080, protocol: UDP}";

pub(crate) fn web(more: &str) -> String {
    let ports = format!(
        "{{name: t, port: 80, nodePort: {NODE_PORT}}}, {{name: u, port: 80, nodePort: {NODE_PORT}, protocol: UDP}}"
    );
    let dual = "  clusterIPs: [10.96.1.1, \"fd00:96::1\"]\n  ipFamilies: [IPv4, IPv6]\n  ipFamilyPolicy: RequireDualStack\n";
    service("web", "10.96.1.1", &ports, &format!("{dual}{more}"))
}

/// Backends with and without pods around them, on both nodes: `a` on node-a, `b` on node-b.
pub(crate) fn serve(cluster: &mut Cluster<'_>) -> Result<()> {
    let both = [(Kind::Tcp, 8080), (Kind::Udp, 8080)];
    cluster.first.serve("a", &[A4, A6], &both)?;
    cluster.second.serve("b", &[B4, B6], &both)?;
    // What the nodes' own routes to each other's pods do for pods, for servers that are none.
    let to_b = ["192.0.2.11", "2001:db8:2::11"];
    for (address, via) in [B4, B6].iter().zip(to_b) {
        cluster.first.command(&["ip", "route", "replace", address, "via", via])?.success()?;
    }
    for (address, via) in [A4, A6].iter().zip(["192.0.2.10", "2001:db8:2::10"]) {
        cluster.second.command(&["ip", "route", "replace", address, "via", via])?.success()?;
    }
    Ok(())
}

/// Serves `web` at a node port from one node, and awaits that: where it is, in both families, and who answers.
pub(crate) fn serve_at_node_ports(
    cluster: &mut Cluster<'_>,
    on: &str,
    kind: Kind,
) -> Result<([String; 2], &'static str)> {
    serve(cluster)?;
    cluster.write("web.yaml", &(web("  type: NodePort\n") + &slices(&[on])))?;
    let name = if on == "node-a" { "a" } else { "b" };
    for target in &node_ports() {
        cluster.settled(kind, target, &[name])?;
    }
    Ok((node_ports(), name))
}

pub(crate) const A4: &str = "198.18.0.1";
pub(crate) const A6: &str = "fd00:18::1";
pub(crate) const B4: &str = "198.18.0.2";
pub(crate) const B6: &str = "fd00:18::2";

/// Endpoints of both families: `a` on node-a, `b` on node-b.
pub(crate) fn slices(on: &[&str]) -> String {
    let of = |addresses: [(&'static str, &'static str); 2]| {
        addresses.into_iter().filter(|(_, node)| on.contains(node)).collect::<Vec<_>>()
    };
    endpoints("web-4", "IPv4", &of([(A4, "node-a"), (B4, "node-b")]))
        + &endpoints("web-6", "IPv6", &of([(A6, "node-a"), (B6, "node-b")]))
}

/// The address of the first node with the node port, in both families.
pub(crate) fn node_ports() -> [String; 2] {
    [format!("192.0.2.10:{NODE_PORT}"), format!("[2001:db8:2::10]:{NODE_PORT}")]
}

/// A load-balancer service on [`BALANCER4`]; `mode` is its ipMode, `more` further lines of its spec.
pub(crate) fn balanced(mode: &str, more: &str) -> String {
    let status =
        format!("status: {{loadBalancer: {{ingress: [{{ip: {BALANCER4}, ipMode: {mode}}}]}}}}\n---\n");
    web(&format!("  type: LoadBalancer\n{more}")).replace("---\n", &status)
}

pub(crate) const BALANCER4: &str = "203.0.113.80";

/// Awaits that nobody answers.
pub(crate) fn silent(cluster: &Cluster<'_>, target: &str) -> Result<()> {
    until(&format!("{target} to be nobody's"), || {
        let answers = cluster.client.ask(Kind::Tcp, target, &["--timeout", "200"])?;
        ensure!(answers.from.is_empty(), "{:?} answers", answers.from);
        Ok(())
    })
}

//! Two nodes: pods reach each other with their own addresses, straight on one link and through VXLAN over a router,
//! whatever is lost meanwhile.
//!
//! Both nodes read the same Node objects.

use anyhow::{Context, Result, ensure};
use tests::{Kind, Node, Options, Place, Pod, until};

/// Far more than the MTU of any link: many full packets.
const LARGE: &str = "60000";

/// Two nodes with their daemons, each with a pod that answers.
struct Pair<'a> {
    nodes: [&'a Node; 2],
    pods: [Pod; 2],
}

/// The Node objects of nodes.
pub(crate) fn node_objects(nodes: &[&Node]) -> String {
    let object = |node: &&Node| {
        let address = |address: &&str| format!("{{type: InternalIP, address: \"{address}\"}}");
        let addresses: Vec<String> = node.addresses().iter().map(address).collect();
        let ranges: Vec<String> = node.pod_cidrs().iter().map(|range| format!("\"{range}\"")).collect();
        format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {}}}\nspec: {{podCIDRs: [{}]}}\nstatus: {{addresses: [{}]}}\n---\n",
            node.site().name,
            ranges.join(", "),
            addresses.join(", "),
        )
    };
    nodes.iter().map(object).collect()
}

/// Which families the nodes, their pods and their services have.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Families {
    Both,
    Ipv6Only,
}

/// Runs a test on two nodes with a pod each.
fn run(place: Place, families: Families, test: impl FnOnce(&mut Node, &mut Node, &[Pod; 2]) -> Result<()>) {
    let flags = ["--node-routes", "auto"].map(str::to_owned).to_vec();
    let options = Options { flags, ipv6_only: families == Families::Ipv6Only, ..Options::default() };
    Node::run(options.clone(), |first| {
        let mut second = first.create_other(place, options)?;
        let objects = node_objects(&[first, &second]);
        first.write("nodes.yaml", &objects)?;
        second.write("nodes.yaml", &objects)?;
        second.start_daemon()?;
        let pod = |node: &Node, name: &str| {
            Pod::serve(node, name, &[], &[("tcp", Kind::Tcp, 80), ("udp", Kind::Udp, 53)])
        };
        let pods = [pod(first, "t/a")?, pod(&second, "t/b")?];
        test(first, &mut second, &pods)
    });
}

impl Pair<'_> {
    /// Each pod reaches the other in both families, in small and large packets, and is seen with its own address.
    fn reach_each_other(&self) -> Result<()> {
        for (here, there) in [(0, 1), (1, 0)] {
            let (client, server) = (&self.pods[here], &self.pods[there]);
            let name = server.name.trim_start_matches("t/");
            for (own, target) in client.addresses.iter().zip(&server.addresses) {
                for (kind, port, bytes) in [
                    (Kind::Tcp, 80, "0"),
                    (Kind::Tcp, 80, LARGE),
                    (Kind::Udp, 53, "1472"),
                    (Kind::Udp, 53, "9000"),
                ] {
                    let target = std::net::SocketAddr::new(*target, port).to_string();
                    until(&format!("{} to reach {target} with {bytes} bytes", client.name), || {
                        let more = ["--bytes", bytes, "--timeout", "1000"];
                        let answers = client.ask(self.nodes[here], kind, &target, &more)?;
                        answers.only_from(&[name])?;
                        ensure!(
                            answers.seen_as.keys().eq([&own.to_string()]),
                            "seen as {:?}",
                            answers.seen_as
                        );
                        Ok(())
                    })?;
                }
            }
        }
        Ok(())
    }
}

fn routes(node: &Node) -> Result<String> {
    let four = node.command(&["ip", "route", "show", "proto", "70"])?.success()?.stdout;
    Ok(four + &node.command(&["ip", "-6", "route", "show", "proto", "70"])?.success()?.stdout)
}

/// The second node ends and comes again, and the first goes on; then what each loses comes back.
fn survive(first: &mut Node, second: &mut Node, pods: &[Pod; 2]) -> Result<()> {
    let reach =
        |first: &Node, second: &Node| Pair { nodes: [first, second], pods: pods.clone() }.reach_each_other();
    reach(first, second)?;
    let before = routes(first)?;
    second.daemon()?.kill()?;
    second.daemon = None;
    reach(first, second)?;
    second.start_daemon()?;
    reach(first, second)?;

    // As a restart of networkd would: everything of ours is flushed on both sides.
    for node in [&*first, &*second] {
        for family in ["-4", "-6"] {
            node.command(&["ip", family, "route", "flush", "proto", "70"])?.success()?;
        }
    }
    reach(first, second)?;
    ensure!(routes(first)? == before, "not as it was:\n{before}{}", routes(first)?);
    ensure!(first.daemon()?.metric("fairway_network_repairs_total", "pod-route")? > 0.0, "not reported");

    // Each pod asks its own node for names.
    for (node, pod) in [&*first, &*second].into_iter().zip(pods) {
        let found = pod.exec(node, &["getent", "ahosts", "kubernetes.default.svc.cluster.local"])?;
        let address = if node.addresses().len() == 1 { "fd00:96::" } else { "10.96.0.1" };
        ensure!(found.success()?.stdout.contains(address), "{}: no such name", pod.name);
    }

    // The node goes: nothing leads there any more.
    first.write("nodes.yaml", &node_objects(&[first]))?;
    until("the routes to go", || {
        let left = routes(first)?;
        ensure!(!left.contains("10.244.2.0/24") && !left.contains("fd00:244:2::/64"), "{left}");
        Ok(())
    })
}

fn straight(first: &mut Node, second: &mut Node, pods: &[Pod; 2]) -> Result<()> {
    survive(first, second, pods)?;
    let links = first.command(&["ip", "link", "show"])?.success()?.stdout;
    ensure!(!links.contains("fairway.vxlan"), "{links}");
    Ok(())
}

#[test]
fn pods_of_two_nodes_on_one_link_reach_each_other_straight() {
    run(Place::Beside, Families::Both, straight);
}

#[test]
fn nodes_with_ipv6_alone_reach_each_other_straight() {
    run(Place::Beside, Families::Ipv6Only, straight);
}

fn through_vxlan(first: &mut Node, second: &mut Node, pods: &[Pod; 2]) -> Result<()> {
    let reach =
        |first: &Node, second: &Node| Pair { nodes: [first, second], pods: pods.clone() }.reach_each_other();
    reach(first, second)?;
    first.command(&["ip", "link", "delete", "fairway.vxlan"])?.success()?;
    second.command(&["bridge", "fdb", "flush", "dev", "fairway.vxlan"])?.success()?;
    second.command(&["ip", "link", "set", "fairway.vxlan", "down"])?.success()?;
    reach(first, second)?;
    survive(first, second, pods)?;
    let links = first.command(&["ip", "link", "show"])?.success()?.stdout;
    ensure!(!links.contains("fairway.vxlan"), "nobody is behind it:\n{links}");
    Ok(())
}

#[test]
fn pods_of_two_nodes_behind_a_router_reach_each_other_by_vxlan() {
    run(Place::Behind, Families::Both, through_vxlan);
}

#[test]
fn nodes_with_ipv6_alone_reach_each_other_by_vxlan() {
    run(Place::Behind, Families::Ipv6Only, through_vxlan);
}

#[test]
fn the_ranges_of_a_node_change_while_the_daemon_runs() {
    run(Place::Beside, Families::Both, |first, second, _| {
        let objects = node_objects(&[first, second]);
        let moved = objects.replace("10.244.2.0/24", "10.244.9.0/24");
        ensure!(moved != objects, "the range is in the manifest");
        until("the route", || {
            ensure!(routes(first)?.contains("10.244.2.0/24 via 192.0.2.11 dev uplink"), "{}", routes(first)?);
            Ok(())
        })?;
        first.write("nodes.yaml", &moved)?;
        until("the other route", || {
            let found = routes(first)?;
            ensure!(
                found.contains("10.244.9.0/24 via 192.0.2.11") && !found.contains("10.244.2.0/24"),
                "{found}"
            );
            Ok(())
        })
    });
}

#[test]
fn what_somebody_flushes_is_put_back_and_counted() {
    let flags = ["--packets", "off"].map(str::to_owned).to_vec();
    Node::run(Options { flags, ..Options::default() }, |node| {
        let pod = Pod::serve(node, "t/a", &[], &[("tcp", Kind::Tcp, 80)])?;
        let target = format!("{}:80", pod.ip4()?);
        node.ask(Kind::Tcp, &target, &[])?.only_from(&["a"])?;
        // What goes before the first look was never there.
        until("the daemon to look after the pod", || {
            let entries =
                node.daemon.as_ref().context("a daemon")?.metric("fairway_network_map_entries", "pods")?;
            ensure!(entries > 0.0, "it has not looked");
            Ok(())
        })?;
        let repaired = |node: &Node, what: &str| {
            until(&format!("{what} to be put back"), || {
                let daemon = node.daemon.as_ref().context("a daemon")?;
                ensure!(daemon.metric("fairway_network_repairs_total", what)? == 1.0, "it is not counted");
                Ok(())
            })
        };
        // Nobody is told of a table that goes; the change of an address makes the daemon look.
        node.command(&["nft", "delete", "table", "inet", "fairway"])?.success()?;
        node.command(&["ip", "address", "delete", "169.254.20.10/32", "dev", "lo"])?.success()?;
        repaired(node, "masquerade")?;
        repaired(node, "dns-address")?;
        node.command(&["nft", "list", "table", "inet", "fairway"])?.success()?;
        let shown = node.command(&["ip", "address", "show", "dev", "lo"])?.success()?.stdout;
        ensure!(shown.contains("169.254.20.10/32"), "{shown}");

        node.command(&["ip", "-4", "route", "flush", "proto", "70"])?.success()?;
        repaired(node, "pod-route")?;
        node.ask(Kind::Tcp, &target, &[])?.only_from(&["a"])
    });
}

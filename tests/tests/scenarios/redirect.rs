//! With `--packet-path redirect` what comes from outside goes on past the host's stack: to pods of this node and of others,
//! there and back, on the same link and through VXLAN. What the stack must do, it still does.

use anyhow::{Context, Result, ensure};
use tests::{Kind, Node, Place, Pod};

use crate::cluster::{Cluster, endpoints, node_ports, web};

const PORTS: [(&str, Kind, u16); 2] = [("t", Kind::Tcp, 8080), ("u", Kind::Udp, 8080)];

/// Counts what the stack of a node forwards to pods, and what it forwards of their answers.
const WATCH: &str = "table inet watch {
    counter to_pods {}
    counter from_pods {}
    chain forward {
        type filter hook forward priority 0
        meta l4proto { tcp, udp } th dport 8080 counter name to_pods
        meta l4proto { tcp, udp } th sport 8080 counter name from_pods
    }
}
";

fn run(place: Place, test: impl FnOnce(&mut Cluster<'_>) -> Result<()>) {
    Cluster::run_with(place, &["--packet-path", "redirect"].map(str::to_owned), |cluster| {
        let rules = cluster.first.folder().join("watch.nft");
        std::fs::write(&rules, WATCH)?;
        cluster.first.command(&["nft", "-f", &rules.display().to_string()])?.success()?;
        test(cluster)
    });
}

fn forwarded(node: &Node, counter: &str) -> Result<u64> {
    let shown = node.command(&["nft", "list", "counter", "inet", "watch", counter])?.success()?.stdout;
    let mut words = shown.split_whitespace().skip_while(|word| *word != "packets");
    Ok(words.nth(1).context("a count")?.parse()?)
}

/// Serves `web` from one pod, in both families, until it answers outside.
fn serve(cluster: &Cluster<'_>, pod: &Pod, node: &str, name: &str) -> Result<()> {
    let family = |six: bool| pod.addresses.iter().find(|ip| ip.is_ipv6() == six).map(ToString::to_string);
    let (four, six) = (family(false).context("IPv4")?, family(true).context("IPv6")?);
    let text = web("  type: NodePort\n")
        + &endpoints("web-4", "IPv4", &[(&four, node)])
        + &endpoints("web-6", "IPv6", &[(&six, node)]);
    cluster.write("web.yaml", &text)?;
    for target in &node_ports() {
        for kind in [Kind::Tcp, Kind::Udp] {
            cluster.settled(kind, target, &[name])?;
        }
    }
    Ok(())
}

/// Asks for both families and transports, for little and for much.
fn ask(cluster: &Cluster<'_>, name: &str) -> Result<()> {
    for target in &node_ports() {
        for kind in [Kind::Tcp, Kind::Udp] {
            cluster.client.ask(kind, target, &["--count", "20"])?.only_from(&[name])?;
        }
        cluster.client.ask(Kind::Tcp, target, &["--bytes", "60000"])?.only_from(&[name])?;
    }
    Ok(())
}

#[test]
fn packets_to_a_pod_of_this_node_pass_its_stack_by() {
    run(Place::Beside, |cluster| {
        let pod = Pod::serve(cluster.first, "t/a", &[], &PORTS)?;
        serve(cluster, &pod, "node-a", "a")?;
        let before = forwarded(cluster.first, "to_pods")?;
        ask(cluster, "a")?;
        ensure!(forwarded(cluster.first, "to_pods")? == before, "none goes through the stack");
        ensure!(forwarded(cluster.first, "from_pods")? > 100, "the watch counts");
        Ok(())
    });
}

#[test]
fn packets_to_a_pod_beside_pass_the_stack_by_in_both_directions() {
    run(Place::Beside, pass_by);
}

#[test]
fn packets_to_a_pod_behind_a_tunnel_pass_the_stack_by_in_both_directions() {
    run(Place::Behind, pass_by);
}

fn pass_by(cluster: &mut Cluster<'_>) -> Result<()> {
    let pod = Pod::serve(&cluster.second, "t/b", &[], &PORTS)?;
    serve(cluster, &pod, "node-b", "b")?;
    let count = |cluster: &Cluster<'_>| -> Result<[u64; 2]> {
        Ok([forwarded(cluster.first, "to_pods")?, forwarded(cluster.first, "from_pods")?])
    };
    let redirected = |cluster: &mut Cluster<'_>| {
        cluster.first.daemon()?.metric("fairway_proxy_verdicts_total", "redirected")
    };
    let (before, sent) = (count(cluster)?, redirected(cluster)?);
    ask(cluster, "b")?;
    ensure!(count(cluster)? == before, "none goes through the stack");
    let sent = redirected(cluster)? - sent;
    ensure!(sent > 400.0, "{sent} packets of hundreds are counted");
    Ok(())
}

#[test]
fn scenario_42_packets_that_are_too_big_to_be_redirected_are_told_of() {
    run(Place::Beside, |cluster| {
        let pod = Pod::serve(&cluster.second, "t/b", &[], &PORTS)?;
        serve(cluster, &pod, "node-b", "b")?;
        for address in &pod.addresses {
            let route =
                cluster.first.command(&["ip", "-o", "route", "get", &address.to_string()])?.success()?;
            let words: Vec<&str> = route.stdout.split_whitespace().collect();
            let after = |name| words.iter().skip_while(|word| **word != name).nth(1).copied().context(name);
            let (via, link) = (after("via")?, after("dev")?);
            let prefix = format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 });
            let narrow = ["ip", "route", "add", &prefix, "via", via, "dev", link, "mtu", "lock", "1300"];
            cluster.first.command(&narrow)?.success()?;
        }
        let told = |cluster: &mut Cluster<'_>| {
            cluster.first.daemon()?.metric("fairway_proxy_verdicts_total", "error_translated")
        };
        let before = told(cluster)?;
        for target in &node_ports() {
            let large = ["--bytes", "60000", "--timeout", "10000"];
            cluster.client.ask(Kind::Tcp, target, &large)?.only_from(&["b"])?;
        }
        ensure!(told(cluster)? - before >= 2.0, "the client is told in both families");
        Ok(())
    });
}

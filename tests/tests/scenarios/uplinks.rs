//! What else clients outside need: external IPs, host ports, affinity, links that come later; and what a node's
//! owner keeps: a firewall, and a node as it was before once everything is cleaned up.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::{Answers, CLIENT4, CLIENT6, Kind, Node, Place, Pod, until};

use crate::cluster::{
    A4, BALANCER4, Cluster, NODE_PORT, balanced, endpoints, node_ports, serve, serve_at_node_ports, silent,
    slices, web,
};

const EXTERNAL4: &str = "203.0.113.90";
const EXTERNAL6: &str = "2001:db8:113::90";

#[test]
fn external_ips_are_served_under_both_policies() {
    Cluster::run(Place::Beside, |cluster| {
        serve(cluster)?;
        cluster.client.route("203.0.113.90/32", cluster.first)?;
        cluster.client.route("2001:db8:113::90/128", cluster.first)?;
        let targets = [(format!("{EXTERNAL4}:80"), CLIENT4), (format!("[{EXTERNAL6}]:80"), CLIENT6)];
        let spec = format!("  type: NodePort\n  externalIPs: [{EXTERNAL4}, \"{EXTERNAL6}\"]\n");
        cluster.write("web.yaml", &(web(&spec) + &slices(&["node-a", "node-b"])))?;
        for (target, _) in &targets {
            cluster.settled(Kind::Tcp, target, &["a", "b"])?;
            cluster.settled(Kind::Udp, target, &["a", "b"])?;
        }
        let local = format!("{spec}  externalTrafficPolicy: Local\n");
        cluster.write("web.yaml", &(web(&local) + &slices(&["node-a", "node-b"])))?;
        for (target, seen_as) in &targets {
            let answers = cluster.settled(Kind::Tcp, target, &["a"])?;
            ensure!(answers.seen_as.keys().eq([seen_as]), "seen as {:?}", answers.seen_as);
        }
        Ok(())
    });
}

#[test]
fn a_host_port_is_reached_from_outside() {
    Cluster::run(Place::Beside, |cluster| {
        let probe = cluster.first.probe().display().to_string();
        let manifest = format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: hosted, namespace: t}}\nspec:\n  containers:\n  - name: server\n    \
             image: none\n    command: [\"{probe}\", serve, --name, hosted, --tcp, \"[::]:8080\", --udp, \"[::]:8080\"]\n    \
             ports:\n    - {{containerPort: 8080, hostPort: 8099}}\n    \
             - {{containerPort: 8080, hostPort: 8099, protocol: UDP}}\n"
        );
        Pod::run(cluster.first, "t/hosted", &manifest)?;
        for (target, seen_as) in [("192.0.2.10:8099", CLIENT4), ("[2001:db8:2::10]:8099", CLIENT6)] {
            for kind in [Kind::Tcp, Kind::Udp] {
                let answers = cluster.settled(kind, target, &["hosted"])?;
                ensure!(answers.seen_as.keys().eq([seen_as]), "seen as {:?}", answers.seen_as);
                ensure!(answers.peers.keys().eq([target]), "answered by {:?}", answers.peers);
            }
        }
        Ok(())
    });
}

#[test]
fn scenario_25_a_client_outside_sticks_whichever_address_it_dials() {
    Cluster::run(Place::Beside, |cluster| {
        serve(cluster)?;
        cluster.client.route("203.0.113.80/32", cluster.first)?;
        let text = balanced("VIP", "  sessionAffinity: ClientIP\n") + &slices(&["node-a", "node-b"]);
        cluster.write("web.yaml", &text)?;
        let (balancer, [node_port, _]) = (format!("{BALANCER4}:80"), node_ports());
        let first = until("an endpoint", || {
            let answers = cluster.client.ask(Kind::Tcp, &balancer, &["--timeout", "500"])?;
            answers.names().first().map(|name| (*name).to_owned()).context("nobody answers")
        })?;
        for target in [&node_port, &balancer] {
            cluster.client.ask(Kind::Tcp, target, &["--count", "25"])?.only_from(&[&first])?;
        }
        Ok(())
    });
}

#[test]
fn a_link_that_appears_later_is_an_uplink_if_it_is_named() {
    let flags = ["--uplink".to_owned(), "uplink,later".to_owned()];
    Cluster::run_with(Place::Beside, &flags, |cluster| {
        let ([target, _], _) = serve_at_node_ports(cluster, "node-a", Kind::Tcp)?;
        let outside = cluster.first.outside().to_owned();
        let words =
            ["ip", "link", "add", "later", "type", "veth", "peer", "name", "later", "netns", &outside];
        cluster.first.command(&words)?.success()?;
        cluster.first.command(&["ip", "address", "add", "198.51.100.64/31", "dev", "later"])?.success()?;
        cluster.first.command(&["ip", "link", "set", "later", "up"])?.success()?;
        // The router goes by the new link from now on, there and back.
        cluster.client.detour("later", "198.51.100.65/31", "192.0.2.10/32", "198.51.100.64")?;
        cluster
            .first
            .command(&["ip", "route", "add", "198.51.100.6/31", "via", "198.51.100.65"])?
            .success()?;
        cluster.settled(Kind::Tcp, &target, &["a"]).map(drop)
    });
}

#[test]
fn a_firewall_of_the_node_sees_real_clients_and_real_backends() {
    Cluster::run(Place::Beside, |cluster| {
        let ([target, _], _) = serve_at_node_ports(cluster, "node-a", Kind::Tcp)?;
        let rules = cluster.first.folder().join("firewall.nft");
        let text = format!(
            "table inet firewall {{ chain input {{ type filter hook input priority 0; \
             ip saddr {CLIENT4} ip daddr {A4} tcp dport 8080 counter drop; }}; }}\n"
        );
        std::fs::write(&rules, text)?;
        cluster.first.command(&["nft", "-f", &rules.display().to_string()])?.success()?;
        silent(cluster, &target)?;
        cluster.first.command(&["nft", "delete", "table", "inet", "firewall"])?.success()?;
        cluster.settled(Kind::Tcp, &target, &["a"]).map(drop)
    });
}

#[test]
fn a_cleaned_up_node_serves_nobody_and_keeps_nothing() {
    Cluster::run(Place::Beside, |cluster| {
        let ([target, _], _) = serve_at_node_ports(cluster, "node-a", Kind::Tcp)?;
        cluster.first.daemon()?.terminate()?;
        cluster.first.daemon = None;
        cluster.client.ask(Kind::Tcp, &target, &[])?.only_from(&["a"])?;
        cluster.first.fairway(&["cleanup"])?.success()?;
        cluster.client.ask(Kind::Tcp, &target, &[])?.only_error("ECONNREFUSED")?;
        let shown = cluster.first.command(&["nft", "list", "ruleset"])?.success()?.stdout;
        ensure!(!shown.contains("fairway"), "{shown}");
        let shown = cluster.first.command(&["bpftool", "net", "show", "dev", "uplink"])?.success()?.stdout;
        ensure!(!shown.contains("packet_"), "{shown}");
        let port = NODE_PORT.to_string();
        let taken = cluster.first.command(&["ss", "-lntu"])?.success()?.stdout;
        ensure!(!taken.contains(&format!(":{port} ")), "{taken}");
        Ok(())
    });
}

/// Lets a pod of the second node alone serve. The pod, and the node port of the first node that leads to it.
fn serve_from_second(cluster: &mut Cluster<'_>) -> Result<(Pod, String)> {
    let pod = Pod::serve(&cluster.second, "t/b", &[], &[("t", Kind::Tcp, 8080), ("u", Kind::Udp, 8080)])?;
    let endpoint = endpoints("web-4", "IPv4", &[(&pod.ip4()?.to_string(), "node-b")]);
    cluster.write("web.yaml", &(web("  type: NodePort\n") + &endpoint))?;
    let [target, _] = node_ports();
    cluster.settled(Kind::Tcp, &target, &["b"])?;
    Ok((pod, target))
}

#[test]
fn a_pod_reaches_itself_through_the_node_port_of_another_node() {
    Cluster::run(Place::Beside, |cluster| {
        let (pod, target) = serve_from_second(cluster)?;
        for kind in [Kind::Tcp, Kind::Udp] {
            let answers = pod.ask(&cluster.second, kind, &target, &["--count", "3"])?;
            answers.only_from(&["b"])?;
            ensure!(answers.seen_as.keys().eq(["192.0.2.10"]), "seen as {:?}", answers.seen_as);
        }
        Ok(())
    });
}

#[test]
fn a_pod_whose_sockets_are_not_seen_reaches_services_by_other_nodes_alone() {
    Cluster::run(Place::Beside, |cluster| {
        let (pod, target) = serve_from_second(cluster)?;
        // A process of the pod's network that is in no cgroup of the node.
        let namespace = format!("--net=/proc/{}/ns/net", pause(&cluster.second, "t_b")?);
        let ask = |target: &str| -> Result<Answers> {
            let mut command = Command::new("nsenter");
            command.arg(&namespace).arg(cluster.second.probe()).args(["tcp", target, "--timeout", "500"]);
            Answers::parse(&String::from_utf8_lossy(&command.output()?.stdout))
        };
        // Even itself, by the address of another node, whose uplink leads it back.
        let answers = ask(&target)?;
        answers.only_from(&["b"])?;
        ensure!(answers.seen_as.keys().eq(["192.0.2.10"]), "seen as {:?}", answers.seen_as);
        ask(&format!("192.0.2.11:{NODE_PORT}"))?.only_error("ECONNREFUSED")?;
        let answers = ask("10.96.1.1:80")?;
        ensure!(answers.from.is_empty(), "{:?} answers at the ClusterIP", answers.from);
        // For a process that is seen all three lead to it.
        for target in [&target, &format!("192.0.2.11:{NODE_PORT}"), "10.96.1.1:80"] {
            pod.ask(&cluster.second, Kind::Tcp, target, &[])?.only_from(&["b"])?;
        }
        Ok(())
    });
}

#[test]
fn check_names_the_pods_whose_sockets_are_not_seen() {
    Cluster::run(Place::Beside, |cluster| {
        for name in ["t/seen", "t/elsewhere", "t/machine"] {
            Pod::client(cluster.first, name)?;
        }
        let (program, flags) = (cluster.first.program().display().to_string(), cluster.first.place_flags());
        let cgroup = cluster.first.cgroup().display().to_string();
        // In a container, too, whose own cgroup is the root of what it sees.
        let check = || -> Result<[String; 2]> {
            let mut words = vec!["unshare", "--cgroup", &program, "check", "--cgroup", &cgroup];
            words.extend(flags.iter().map(String::as_str));
            let unseen = |words: &[&str]| -> Result<String> {
                let said = cluster.first.command(words)?.stdout;
                Ok(said.lines().filter(|line| line.contains("UNSEEN")).collect::<Vec<_>>().join("\n"))
            };
            Ok([unseen(&words[2..])?, unseen(&words)?])
        };
        ensure!(check()? == ["", ""], "{:?}", check()?);
        // What a runtime does that starts processes below another cgroup, and what a virtual machine has open.
        let pause = pause(cluster.first, "t_elsewhere")?;
        let home = std::fs::read_to_string(format!("/proc/{pause}/cgroup"))?;
        let home = home.lines().find_map(|line| line.strip_prefix("0::/")).context("a cgroup")?.to_owned();
        let mut words = vec![program.as_str(), "sandbox", "exec", "t/machine"];
        words.extend(flags.iter().map(String::as_str));
        words.extend(["--", "sh", "-c", "exec 3<>/dev/net/tun; echo ready; exec sleep 600"]);
        let mut tun = cluster.first.background(&words)?;
        tun.read_line()?;
        let root = tests::cgroup_root()?;
        std::fs::write(root.join("cgroup.procs"), pause.to_string())?;
        let said = check();
        // Whoever is in the node's cgroup ends with it.
        std::fs::write(root.join(home).join("cgroup.procs"), pause.to_string())?;
        for said in said? {
            ensure!(said.lines().count() == 2, "{said}");
            for words in ["t/elsewhere: its sockets", "t/machine: process", "as a virtual machine does"] {
                ensure!(said.contains(words), "{words} is not in {said}");
            }
        }
        Ok(())
    });
}

/// The process that holds the namespaces of a pod.
fn pause(node: &Node, pod: &str) -> Result<u64> {
    let record = node.run_dir().join("pods").join(pod).join("pod.json");
    let record: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(record)?)?;
    record["pause"].as_u64().context("a process")
}

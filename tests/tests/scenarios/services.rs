//! Which services are programmed, in which families, and what stays over a restart.
//!
//! What is not programmed is an address like any other: nobody answers.

use anyhow::{Result, ensure};
use tests::{Kind, NODE4, Node, Options, until};

use crate::balancing::settled;
use crate::yaml::{service, slice};

const VIP: &str = "10.96.1.1:80";

/// Waits until nobody answers: a service that is not programmed is an address like any other.
fn silent(node: &Node, target: &str) -> Result<()> {
    until(&format!("{target} to be nobody's"), || {
        let answers = node.ask(Kind::Tcp, target, &["--timeout", "200"])?;
        ensure!(answers.from.is_empty(), "{:?} answers", answers.from);
        Ok(())
    })
}

#[test]
fn scenario_32_services_of_other_proxies_are_left_alone() {
    Node::run(Options::default(), |node| {
        node.serve("a", &["198.18.0.1"], &[(Kind::Tcp, 80)])?;
        let web = service("web", "10.96.1.1", "{port: 80}", "");
        let labelled = web.replace(
            "metadata: {name: web, namespace: t}",
            "metadata: {name: web, namespace: t, labels: {service.kubernetes.io/service-proxy-name: other}}",
        );
        ensure!(labelled != web, "the label is in the manifest");
        let endpoints = slice("web-1", "web", "{port: 80}", &["198.18.0.1"]);
        let headless = service("headless", "None", "{port: 80}", "");
        let external = "apiVersion: v1\nkind: Service\nmetadata: {name: external, namespace: t}\n\
                        spec: {type: ExternalName, externalName: a.example.com}\n---\n";
        let others = endpoints
            + &slice("headless-1", "headless", "{port: 80}", &["198.18.0.1"])
            + &headless
            + external;
        node.write("others.yaml", &others)?;
        node.write("web.yaml", &web)?;
        settled(node, Kind::Tcp, VIP, &["a"])?;
        node.write("web.yaml", &labelled)?;
        silent(node, VIP)?;
        node.write("web.yaml", &web)?;
        settled(node, Kind::Tcp, VIP, &["a"])?;

        let backends = node.fairway(&["get", "backends"])?.success()?.stdout;
        ensure!(backends.contains("web"), "{backends}");
        for name in ["headless", "external"] {
            ensure!(!backends.contains(name), "{name} has entries:\n{backends}");
        }
        Ok(())
    });
}

#[test]
fn node_ports_answer_on_the_chosen_addresses_and_on_loopback() {
    for (range, is_chosen) in [("192.0.2.0/24", true), ("198.51.100.0/24", false)] {
        let flags = ["--nodeport-addresses", range].map(str::to_owned).to_vec();
        Node::run(Options { flags, ..Options::default() }, |node| {
            node.serve("a", &["198.18.0.1"], &[(Kind::Tcp, 80)])?;
            let web = service("web", "10.96.1.1", "{port: 80, nodePort: 30080}", "  type: NodePort\n");
            node.write("web.yaml", &(web + &slice("web-1", "web", "{port: 80}", &["198.18.0.1"])))?;
            settled(node, Kind::Tcp, "127.0.0.1:30080", &["a"])?;
            let target = format!("{NODE4}:30080");
            let said = node.fairway(&["check", "--nodeport-addresses", range])?.stdout;
            let sentence = "loopback alone: no address of this node is in --nodeport-addresses";
            if is_chosen {
                ensure!(said.contains(&format!("node ports at       {NODE4} (from: option)")), "{said}");
                settled(node, Kind::Tcp, &target, &["a"]).map(drop)
            } else {
                ensure!(said.contains(sentence) && node.daemon()?.log().contains(sentence), "{said}");
                silent(node, &target)
            }
        });
    }
}

#[test]
fn node_ports_do_not_answer_where_names_do() {
    let flags = ["--nodeport-addresses", "0.0.0.0/0"].map(str::to_owned).to_vec();
    Node::run(Options { flags, ..Options::default() }, |node| {
        node.serve("a", &["198.18.0.1"], &[(Kind::Tcp, 80)])?;
        let web = service("web", "10.96.1.1", "{port: 80, nodePort: 30080}", "  type: NodePort\n");
        node.write("web.yaml", &(web + &slice("web-1", "web", "{port: 80}", &["198.18.0.1"])))?;
        settled(node, Kind::Tcp, &format!("{NODE4}:30080"), &["a"])?;
        for name_server in ["10.96.0.10:30080", "169.254.20.10:30080"] {
            node.ask(Kind::Tcp, name_server, &[])?.only_error("ECONNREFUSED")?;
        }
        let said = node.fairway(&["check", "--nodeport-addresses", "0.0.0.0/0"])?.stdout;
        let line = said.lines().find(|line| line.starts_with("node ports at")).unwrap_or_default();
        let others = ["10.96.0.10", "169.254.20.10"].iter().any(|ip| line.contains(ip));
        ensure!(line.contains(NODE4) && !others, "{line}");
        Ok(())
    });
}

/// A dual-stack service with endpoints of one family.
fn dual_stack() -> String {
    let more = "  clusterIPs: [10.96.1.1, \"fd00:96::1\"]\n  ipFamilies: [IPv4, IPv6]\n  ipFamilyPolicy: RequireDualStack\n";
    service("web", "10.96.1.1", "{port: 80}", more) + &slice("web-4", "web", "{port: 80}", &["198.18.0.1"])
}

#[test]
fn scenario_33_the_families_of_a_service_are_apart() {
    Node::run(Options::default(), |node| {
        node.serve("four", &["198.18.0.1"], &[(Kind::Tcp, 80)])?;
        node.serve("six", &["fd00:18::1"], &[(Kind::Tcp, 80)])?;
        let six = "[fd00:96::1]:80";
        node.write("web.yaml", &dual_stack())?;
        settled(node, Kind::Tcp, VIP, &["four"])?;
        node.ask(Kind::Tcp, six, &[])?.only_error("ECONNREFUSED")?;
        node.write("six.yaml", &slice("web-6", "web", "{port: 80}", &["fd00:18::1"]))?;
        settled(node, Kind::Tcp, six, &["six"])?;

        // Both families are served while the daemon is away and while it starts.
        node.daemon()?.kill()?;
        let during = std::thread::scope(|scope| {
            let (seen, other): (&Node, &Node) = (node, node);
            let four = scope.spawn(|| seen.ask(Kind::Tcp, VIP, &["--count", "3000"]));
            let six = scope.spawn(|| other.ask(Kind::Tcp, six, &["--count", "3000"]));
            let daemon = seen.spawn_daemon();
            let join = |thread: std::thread::ScopedJoinHandle<'_, Result<tests::Answers>>| {
                thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            Ok::<_, anyhow::Error>((join(four)?, join(six)?, daemon?))
        })?;
        during.0.only_from(&["four"])?;
        during.1.only_from(&["six"])?;
        node.daemon = Some(during.2);
        settled(node, Kind::Tcp, VIP, &["four"])?;
        settled(node, Kind::Tcp, six, &["six"]).map(drop)
    });
}

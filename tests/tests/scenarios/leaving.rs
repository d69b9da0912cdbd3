//! Traffic that leaves the cluster: masqueraded on the way out, and back again.
//!
//! The outside has no route to the pods: what comes back was masqueraded.

use anyhow::ensure;
use tests::{Kind, NODE4, NODE6, Node, OUTSIDE4, OUTSIDE6, Options, Pod};

#[test]
fn scenario_46_a_pod_reaches_the_outside_as_its_node() {
    leave("on");
}

#[test]
fn scenario_46_without_the_packet_engine_nftables_masquerades() {
    leave("off");
}

fn leave(packets: &str) {
    let flags = vec!["--packets".to_owned(), packets.to_owned()];
    Node::run(Options { flags, ..Options::default() }, |node| {
        let rules = node.command(&["nft", "list", "table", "inet", "fairway"])?.success()?.stdout;
        ensure!(rules.contains("masquerade") == (packets == "off"), "{rules}");
        let targets =
            [(format!("{OUTSIDE4}:80"), NODE4, OUTSIDE4), (format!("[{OUTSIDE6}]:80"), NODE6, OUTSIDE6)];
        for (target, ..) in &targets {
            node.serve_outside(&["serve", "--name", "outside", "--tcp", target, "--udp", target])?;
        }
        let pod = Pod::client(node, "t/pod")?;
        let probe = node.probe().display().to_string();
        for (target, seen_as, address) in &targets {
            for kind in [Kind::Tcp, Kind::Udp] {
                let answers = pod.ask(node, kind, target, &["--count", "5"])?;
                answers.only_from(&["outside"])?;
                ensure!(answers.seen_as.keys().eq([seen_as]), "seen as {:?}, not {seen_as}", answers.seen_as);
            }
            pod.exec(node, &[&probe, "ping", address])?.success()?;
        }
        Ok(())
    });
}

#[test]
fn pods_of_a_node_see_each_others_own_addresses() {
    Node::run(Options::default(), |node| {
        let server = Pod::serve(node, "t/server", &[], &[("http", Kind::Tcp, 80)])?;
        let client = Pod::client(node, "t/client")?;
        for (address, own) in server.addresses.iter().zip(&client.addresses) {
            let target = std::net::SocketAddr::new(*address, 80).to_string();
            let answers = client.ask(node, Kind::Tcp, &target, &[])?;
            ensure!(
                answers.seen_as.keys().eq([&own.to_string()]),
                "seen as {:?}, not {own}",
                answers.seen_as
            );
        }
        Ok::<_, anyhow::Error>(())
    });
}

//! What a socket sees: a peer that is what was dialled, and loopback that is its own.
//!
//! Sockets of pods, where another network namespace could be mistaken for the node's own.

use anyhow::ensure;
use tests::{Kind, Node, Options, Pod};

use crate::balancing::settled;
use crate::yaml::{service, slice};

#[test]
fn scenario_13_a_socket_that_goes_on_to_a_pod_forgets_the_service() {
    Node::run(Options::default(), |node| {
        node.serve("a", &["198.18.0.1"], &[(Kind::Tcp, 8080)])?;
        let text = service("web", "10.96.1.1", "{port: 80}", "")
            + &slice("web-1", "web", "{port: 8080}", &["198.18.0.1"]);
        node.write("web.yaml", &text)?;
        settled(node, Kind::Tcp, "10.96.1.1:80", &["a"])?;
        let client = Pod::client(node, "t/client")?;
        let mut flow = client.flow(node, &["reconnect", "10.96.1.1:80", "198.18.0.1:8080"])?;
        ensure!(flow.peers["service"] == "10.96.1.1:80", "{:?}", flow.peers);
        ensure!(flow.peers["pod"] == "198.18.0.1:8080", "{:?}", flow.peers);
        ensure!(flow.exchange()? == Ok("a".to_owned()), "the flow works");

        node.remove("web.yaml")?;
        tests::until("the service to be gone", || {
            let answers = node.ask(Kind::Tcp, "10.96.1.1:80", &["--timeout", "200"])?;
            ensure!(answers.from.is_empty(), "it still answers");
            Ok(())
        })?;
        let after = flow.exchange()?;
        ensure!(after == Ok("a".to_owned()), "the flow to the pod ended with the service: {after:?}");
        Ok(())
    });
}

#[test]
fn scenario_45_a_pods_own_loopback_is_not_a_node_port() {
    Node::run(Options::default(), |node| {
        node.serve("a", &["198.18.0.1"], &[(Kind::Tcp, 80)])?;
        let ports = "{port: 80, nodePort: 30080}";
        let text = service("web", "10.96.1.1", ports, "  type: NodePort\n");
        node.write("web.yaml", &(text + &slice("web-1", "web", "{port: 80}", &["198.18.0.1"])))?;
        settled(node, Kind::Tcp, "127.0.0.1:30080", &["a"])?;
        let pod = Pod::client(node, "t/pod")?;
        pod.ask(node, Kind::Tcp, "127.0.0.1:30080", &[])?.only_error("ECONNREFUSED")?;
        let words = ["--name", "own", "--tcp", "127.0.0.1:30080", "--tcp", "[::1]:30080"];
        let _server = pod.also_serve(node, &words)?;
        for target in ["127.0.0.1:30080", "[::1]:30080"] {
            let answers = pod.ask(node, Kind::Tcp, target, &["--count", "50"])?;
            answers.only_from(&["own"])?;
            ensure!(answers.peers.keys().eq([target]), "{:?}", answers.peers);
        }
        let node_port = format!("{}:30080", tests::NODE4);
        pod.ask(node, Kind::Tcp, &node_port, &["--count", "50"])?.only_from(&["a"])?;
        settled(node, Kind::Tcp, "127.0.0.1:30080", &["a"]).map(drop)
    });
}

//! The bench itself: a node without a daemon, its network, its probes, and that nothing of it stays.
//!
//! What the scenario tests take for granted is shown here without Fairway.

use tests::{Kind, Node, OUTSIDE4, OUTSIDE6, Options, root_or_skip};

/// Makes a node without a daemon; None without root.
fn node() -> Option<Node> {
    root_or_skip().then(|| Node::create(Options::default()).expect("a node can be made on this machine"))
}

#[test]
fn a_dropped_node_leaves_nothing() {
    let Some(mut node) = node() else { return };
    let name = node.name().to_owned();
    node.serve("a", &["198.18.0.1"], &[(Kind::Tcp, 80)]).unwrap();
    assert!(!Node::traces(&name).is_empty(), "a running node can be seen");
    drop(node);
    assert_eq!(Node::traces(&name), [""; 0]);
}

#[test]
fn probes_on_the_node_answer_with_their_names() {
    let Some(mut node) = node() else { return };
    node.serve("a", &["198.18.0.1", "fd00::1"], &[(Kind::Tcp, 80), (Kind::Udp, 53)]).unwrap();
    for (kind, target) in [
        (Kind::Tcp, "198.18.0.1:80"),
        (Kind::Tcp, "[fd00::1]:80"),
        (Kind::Udp, "198.18.0.1:53"),
        (Kind::Udp, "[fd00::1]:53"),
    ] {
        let answers = node.ask(kind, target, &["--count", "3"]).unwrap();
        answers.only_from(&["a"]).unwrap();
        assert_eq!(answers.peers.get(target), Some(&3), "{answers:?}");
    }
    for more in [&["--mapped"][..], &["--connected"], &["--one-socket", "--local-port", "4000"]] {
        node.ask(Kind::Udp, "198.18.0.1:53", more).unwrap().only_from(&["a"]).unwrap();
    }
    node.ask(Kind::Tcp, "198.18.0.1:81", &[]).unwrap().only_error("ECONNREFUSED").unwrap();
}

#[test]
fn the_outside_is_reached_from_the_node() {
    let Some(mut node) = node() else { return };
    let target = format!("{OUTSIDE4}:80");
    node.serve_outside(&["serve", "--name", "outside", "--tcp", &target]).unwrap();
    node.ask(Kind::Tcp, &target, &[]).unwrap().only_from(&["outside"]).unwrap();
    let probe = node.probe().display().to_string();
    for address in [OUTSIDE4, OUTSIDE6] {
        node.command(&[&probe, "ping", address]).unwrap().success().unwrap();
    }
    assert_ne!(node.command(&[&probe, "ping", "198.51.100.77"]).unwrap().code, Some(0));
}

#[test]
fn a_kept_flow_exchanges_until_its_server_goes() {
    let Some(mut node) = node() else { return };
    node.serve("a", &["198.18.0.1"], &[(Kind::Tcp, 80)]).unwrap();
    let mut flow = node.flow(&["keep", "198.18.0.1:80"]).unwrap();
    assert_eq!(flow.peers["peer"], "198.18.0.1:80");
    assert_eq!(flow.exchange().unwrap(), Ok("a".to_owned()));
    node.stop_servers();
    assert!(flow.exchange().unwrap().is_err());
}

//! Ports of the node that lead to a pod: from outside, from the node and from other pods, on every address or on one,
//! to one owner after another, and beside a Service on the same port.

use anyhow::{Context, Result, ensure};
use tests::{Answers, Client, Kind, NODE4, NODE6, Node, Options, Pod, until};

use crate::termination::until_ended;
use crate::yaml::{service, slice};

const BOTH: [Kind; 2] = [Kind::Tcp, Kind::Udp];

fn options() -> Options {
    let flags = ["--packets", "on"].map(str::to_owned).to_vec();
    Options { flags, ..Options::default() }
}

/// Runs a pod that answers with its name on port 80, as a person would type it.
fn publish(node: &Node, name: &str, ports: &[&str]) -> Result<()> {
    let mut words = vec!["sandbox", "run", "--detach", "--name", name];
    words.extend(ports.iter().flat_map(|port| ["--publish", port]));
    let probe = node.probe().display().to_string();
    words.extend(["--", &probe, "serve", "--name", name, "--tcp", "[::]:80", "--udp", "[::]:80"]);
    node.fairway(&words)?.success()?;
    until(&format!("{name} to listen"), || {
        let words = ["sandbox", "exec", name, "--", &probe, "tcp", "127.0.0.1:80"];
        Answers::parse(&node.fairway(&words)?.success()?.stdout)?.only_from(&[name])
    })
}

fn unpublish(node: &Node, name: &str) -> Result<()> {
    node.fairway(&["sandbox", "delete", name])?.success().map(drop)
}

#[test]
fn a_published_port_leads_to_its_pod_from_everywhere() {
    Node::run(options(), |node| {
        let client = Client::beyond(node)?;
        let ports =
            ["8080:80", "8080:80/udp", "127.0.0.1:8081:80", "[::1]:8081:80", "192.0.2.10:8082:80/udp"];
        publish(node, "web", &ports)?;
        let other = Pod::client(node, "t/other")?;
        for kind in BOTH {
            for address in [format!("{NODE4}:8080"), format!("[{NODE6}]:8080")] {
                client.ask(kind, &address, &["--count", "20"])?.only_from(&["web"])?;
                node.ask(kind, &address, &["--count", "20"])?.only_from(&["web"])?;
                other.ask(node, kind, &address, &["--count", "20"])?.only_from(&["web"])?;
            }
            for (address, own) in [("127.0.0.1:8080", NODE4), ("[::1]:8080", NODE6)] {
                let answers = node.ask(kind, address, &["--count", "20"])?;
                answers.only_from(&["web"])?;
                ensure!(answers.seen_as.keys().eq([own]), "the pod sees the node as {:?}", answers.seen_as);
            }
        }

        // Limited to one address, it is nobody's on the others.
        for address in ["127.0.0.1:8081", "[::1]:8081"] {
            node.ask(Kind::Tcp, address, &[])?.only_from(&["web"])?;
            other.ask(node, Kind::Tcp, address, &[])?.only_error("ECONNREFUSED")?;
        }
        client.ask(Kind::Tcp, &format!("{NODE4}:8081"), &[])?.only_error("ECONNREFUSED")?;
        client.ask(Kind::Udp, &format!("{NODE4}:8082"), &[])?.only_from(&["web"])?;
        let no_wait = ["--timeout", "300"];
        client.ask(Kind::Udp, &format!("[{NODE6}]:8082"), &no_wait)?.only_error("timeout")?;

        let refused =
            node.fairway(&["sandbox", "run", "--name", "late", "--publish", "8080:80", "--", "true"])?;
        ensure!(refused.stderr.contains("hostPort 8080/TCP is taken by pod default/web"), "{refused:?}");

        unpublish(node, "web")?;
        client.ask(Kind::Tcp, &format!("{NODE4}:8080"), &[])?.only_error("ECONNREFUSED")?;
        client.ask(Kind::Udp, &format!("{NODE4}:8080"), &no_wait)?.only_error("timeout")
    });
}

#[test]
fn a_client_of_a_host_port_that_goes_on_is_served_by_the_next_owner() {
    Node::run(options(), |node| {
        let client = Client::beyond(node)?;
        publish(node, "first", &["5353:80/udp"])?;
        let mut flow = client.flow(&["keep", "--udp", &format!("{NODE4}:5353")])?;
        for _ in 0..3 {
            ensure!(flow.exchange()? == Ok("first".to_owned()));
        }
        unpublish(node, "first")?;
        publish(node, "second", &["5353:80/udp"])?;
        until("the same socket to be answered by the next owner", || {
            let answer = flow.exchange()?;
            ensure!(answer == Ok("second".to_owned()), "{answer:?}");
            Ok(())
        })
    });
}

#[test]
fn connected_sockets_end_with_the_pod_behind_their_host_port() {
    Node::run(options(), |node| {
        let other = Pod::client(node, "t/other")?;
        publish(node, "first", &["5353:80/udp"])?;
        publish(node, "second", &["5354:80/udp"])?;
        let mut ending = Vec::new();
        for address in [NODE4, "[2001:db8:2::10]", "127.0.0.1"] {
            let dialled = format!("{address}:5353");
            let flow = node.flow(&["keep", "--udp", &dialled])?;
            ensure!(flow.peers.values().eq([&dialled]), "the peer is {:?}", flow.peers);
            ending.push(flow);
        }
        ending.push(other.flow(node, &["keep", "--udp", &format!("{NODE4}:5353")])?);
        let words = ["keep", "--udp", &format!("{NODE4}:5354")];
        let mut staying = [node.flow(&words)?, other.flow(node, &words)?];
        for (flows, owner) in [(&mut ending[..], "first"), (&mut staying[..], "second")] {
            for flow in flows {
                let answer = flow.exchange()?;
                ensure!(answer == Ok(owner.to_owned()), "{answer:?}");
            }
        }
        unpublish(node, "first")?;
        publish(node, "third", &["5353:80/udp"])?;
        for flow in &mut ending {
            until_ended(flow)?;
        }
        for flow in &mut staying {
            let answer = flow.exchange()?;
            ensure!(answer == Ok("second".to_owned()), "{answer:?}");
        }
        let ended = node.daemon()?.metric("fairway_proxy_sockets_ended_total", "protocol=\"UDP\"")?;
        ensure!(ended == 4.0, "{ended} were ended");
        Ok(())
    });
}

#[test]
fn sockets_connected_before_the_pod_of_their_host_port_end_when_it_comes() {
    Node::run(options(), |node| {
        let other = Pod::client(node, "t/other")?;
        let mut early = Vec::new();
        for address in [NODE4, "[2001:db8:2::10]", "127.0.0.1"] {
            early.push(node.flow(&["keep", "--udp", &format!("{address}:5353")])?);
        }
        early.push(other.flow(node, &["keep", "--udp", &format!("{NODE4}:5353")])?);
        // What goes to another port, to another machine or to the pod itself is none of the hostPort's.
        let elsewhere = [(NODE4, 5354), (tests::ROUTER4, 5353)];
        let mut staying = Vec::new();
        for (address, port) in elsewhere {
            staying.push(node.flow(&["keep", "--udp", &format!("{address}:{port}")])?);
        }
        staying.push(other.flow(node, &["keep", "--udp", "127.0.0.1:5353"])?);
        publish(node, "first", &["5353:80/udp"])?;
        for flow in &mut early {
            until_ended(flow)?;
        }
        for flow in &mut staying {
            let said = flow.exchange()?;
            ensure!(!matches!(&said, Err(error) if error == "ECONNABORTED"), "{said:?}");
        }
        let mut again = node.flow(&["keep", "--udp", &format!("{NODE4}:5353")])?;
        ensure!(again.exchange()? == Ok("first".to_owned()), "the next one is not led");
        let ended = node.daemon()?.metric("fairway_proxy_sockets_ended_total", "protocol=\"UDP\"")?;
        ensure!(ended == 4.0, "{ended} were ended");
        Ok(())
    });
}

#[test]
fn a_service_wins_over_a_host_port_and_the_daemon_says_so() {
    Node::run(options(), |node| {
        let client = Client::beyond(node)?;
        let target = format!("{NODE4}:30080");
        node.serve("service", &["198.18.0.1"], &[(Kind::Tcp, 80)])?;
        publish(node, "web", &["30080:80"])?;
        client.ask(Kind::Tcp, &target, &[])?.only_from(&["web"])?;
        let ports = "{name: t, port: 80, nodePort: 30080}";
        let web = service("web", "10.96.1.1", ports, "  type: NodePort\n")
            + &slice("web-1", "web", "{name: t, port: 80}", &["198.18.0.1"]);
        node.write("web.yaml", &web)?;
        until("the service to win", || client.ask(Kind::Tcp, &target, &[])?.only_from(&["service"]))?;
        let sentence =
            "a Service answers on 192.0.2.10:30080/TCP, so the hostPort of pod default/web does not";
        let daemon = node.daemon.as_ref().context("a daemon")?;
        until("the daemon to say so", || {
            ensure!(daemon.log().contains(sentence), "nothing is said");
            ensure!(daemon.metric("fairway_network_problems", "")? >= 1.0, "it is not counted");
            Ok(())
        })?;
        node.remove("web.yaml")?;
        until("the pod to have its port again", || client.ask(Kind::Tcp, &target, &[])?.only_from(&["web"]))?;
        until("nothing to be wrong", || {
            ensure!(daemon.metric("fairway_network_problems", "")? == 0.0, "a problem stands");
            Ok(())
        })
    });
}

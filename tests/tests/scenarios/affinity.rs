//! Session affinity: one client of one service port stays with one endpoint, whichever address it dials.
//!
//! Independent choices are told from equal ones by their number: chance fails once in a million runs.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tests::{Kind, NODE4, Node, Options, Pod, until};

use crate::balancing::settled;
use crate::yaml::{service, slice};

/// So many that independent choices being equal by chance is once in a million runs.
const BACKENDS: usize = 8;
const PORTS: usize = 7;

/// Backends with the ports 8001 and on, and their addresses.
fn serve(node: &mut Node) -> Result<Vec<String>> {
    let mut addresses = Vec::new();
    for n in 0..BACKENDS {
        let address = format!("198.18.0.{}", n + 1);
        let ports: Vec<(Kind, u16)> = (8001..).take(PORTS).map(|port| (Kind::Tcp, port)).collect();
        node.serve(&format!("b{n}"), &[&address], &ports)?;
        addresses.push(address);
    }
    Ok(addresses)
}

/// The service's manifest: port 80 + n leads to 8001 + n.
fn manifest(addresses: &[String], timeout: u32) -> Result<String> {
    let (mut ports, mut targets) = (String::new(), String::new());
    for n in 0..PORTS {
        write!(ports, "{{name: p{n}, port: {}, nodePort: {}}}, ", 80 + n, 30080 + n)?;
        write!(targets, "{{name: p{n}, port: {}}}, ", 8001 + n)?;
    }
    let more = format!(
        "  type: LoadBalancer\n  sessionAffinity: ClientIP\n  sessionAffinityConfig: {{clientIP: {{timeoutSeconds: {timeout}}}}}\n\
         status: {{loadBalancer: {{ingress: [{{ip: 203.0.113.5}}]}}}}\n"
    );
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    Ok(service("web", "10.96.1.1", &ports, &more) + &slice("web-1", "web", &targets, &addresses))
}

/// The one endpoint that answers every connection.
fn one(node: &Node, target: &str, count: &str) -> Result<String> {
    let answers = node.ask(Kind::Tcp, target, &["--count", count, "--timeout", "500"])?;
    let names = answers.names();
    let name = (*names.first().with_context(|| format!("{target}: {:?}", answers.errors))?).to_owned();
    answers.only_from(&[&name])?;
    Ok(name)
}

fn choices(node: &Node) -> Result<Vec<String>> {
    (0..PORTS).map(|n| one(node, &format!("10.96.1.1:{}", 80 + n), "3")).collect()
}

#[test]
fn scenario_25_a_client_stays_whichever_address_it_dials() {
    Node::run(Options::default(), |node| {
        let addresses = serve(node)?;
        node.write("web.yaml", &manifest(&addresses, 10800)?)?;
        let vip = "10.96.1.1:80";
        let mine = until("the service", || one(node, vip, "1"))?;
        let node_port = format!("{NODE4}:30080");
        for target in [vip, &node_port, "127.0.0.1:30080", "203.0.113.5:80"] {
            ensure!(one(node, target, "50")? == mine, "{target} leads elsewhere than {vip}");
        }
        let other_ports: BTreeSet<String> = choices(node)?.into_iter().collect();
        ensure!(
            other_ports.len() > 1,
            "the ports of a service are independent, but all lead to {other_ports:?}"
        );
        let mut clients = BTreeSet::new();
        for n in 0..6 {
            let pod = Pod::client(node, &format!("t/c{n}"))?;
            let answers = pod.ask(node, Kind::Tcp, vip, &["--count", "20"])?;
            let name = (*answers.names().first().context("an answer")?).to_owned();
            answers.only_from(&[&name])?;
            pod.ask(node, Kind::Tcp, &node_port, &["--count", "20"])?.only_from(&[&name])?;
            clients.insert(name);
        }
        ensure!(clients.len() > 1, "clients are independent, but all are led to {clients:?}");
        Ok(())
    });
}

/// Time itself is under test here: with a timeout of 4 s, as the kernel counts whole seconds.
#[test]
fn scenario_26_affinity_ends_by_its_timeout_and_with_its_endpoint() {
    Node::run(Options::default(), |node| {
        let addresses = serve(node)?;
        node.write("web.yaml", &manifest(&addresses, 4)?)?;
        until("the service", || one(node, "10.96.1.1:80", "1"))?;
        let first = choices(node)?;
        for _ in 0..3 {
            // Each connection is within the timeout of the last one, and all together are not.
            std::thread::sleep(Duration::from_millis(2000));
            ensure!(choices(node)? == first, "a client moved within the timeout");
        }
        std::thread::sleep(Duration::from_millis(5500));
        let second = choices(node)?;
        ensure!(second != first, "after the timeout no port of {PORTS} chose anew: {first:?}");

        let gone = second.first().context("a port")?.clone();
        let left: Vec<String> = addresses
            .iter()
            .enumerate()
            .filter(|(n, _)| gone != format!("b{n}"))
            .map(|(_, a)| a.clone())
            .collect();
        node.write("web.yaml", &manifest(&left, 4)?)?;
        let moved = until("the client to leave the endpoint that is gone", || {
            let name = one(node, "10.96.1.1:80", "1")?;
            ensure!(name != gone, "still {gone}");
            Ok(name)
        })?;
        ensure!(one(node, "10.96.1.1:80", "50")? == moved, "it sticks to the new endpoint");
        Ok(())
    });
}

#[test]
fn without_affinity_a_client_is_spread() {
    Node::run(Options::default(), |node| {
        let addresses = serve(node)?;
        let text = manifest(&addresses, 4)?.replace("sessionAffinity: ClientIP", "sessionAffinity: None");
        let text = text
            .lines()
            .filter(|line| !line.contains("sessionAffinityConfig"))
            .collect::<Vec<_>>()
            .join("\n");
        node.write("web.yaml", &text)?;
        let names: Vec<String> = (0..BACKENDS).map(|n| format!("b{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        settled(node, Kind::Tcp, "10.96.1.1:80", &names).map(drop)
    });
}

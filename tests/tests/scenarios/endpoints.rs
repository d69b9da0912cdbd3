//! Which endpoints count: ports, slices, conditions, none at all.
//!
//! Slices are written by hand, so that each says exactly what is under test.

use std::time::{Duration, Instant};

use anyhow::ensure;
use tests::{Kind, Node, Options, Pod, until};

use crate::balancing::{CHI_SQUARE, settled};
use crate::yaml::{service, slice, slice_of};

const VIP: &str = "10.96.1.1:80";

#[test]
fn scenario_03_tcp_and_udp_of_one_port_number_are_apart() {
    Node::run(Options::default(), |node| {
        node.serve("tcp", &["198.18.0.1"], &[(Kind::Tcp, 8080)])?;
        node.serve("udp", &["198.18.0.1"], &[(Kind::Udp, 9090)])?;
        let both = "{name: t, port: 80}, {name: u, port: 80, protocol: UDP}";
        let targets = "{name: t, port: 8080}, {name: u, port: 9090, protocol: UDP}";
        let endpoints = slice("web-1", "web", targets, &["198.18.0.1"]);
        node.write("web.yaml", &(service("web", "10.96.1.1", both, "") + &endpoints))?;
        settled(node, Kind::Tcp, VIP, &["tcp"])?;
        settled(node, Kind::Udp, VIP, &["udp"])?;

        node.write("web.yaml", &(service("web", "10.96.1.1", "{name: t, port: 80}", "") + &endpoints))?;
        until("UDP to be refused", || {
            node.ask(Kind::Udp, VIP, &["--timeout", "300"])?.only_error("ECONNREFUSED")
        })?;
        node.ask(Kind::Tcp, VIP, &["--count", "100"])?.only_from(&["tcp"])
    });
}

#[test]
fn scenario_04_a_named_target_port_is_each_pods_own() {
    Node::run(Options::default(), |node| {
        node.write(
            "web.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: t}\nspec:\n  clusterIP: 10.96.1.1\n  \
             selector: {app: web}\n  ports: [{port: 80, targetPort: http}]\n",
        )?;
        Pod::serve(node, "t/old", &[("app", "web")], &[("http", Kind::Tcp, 8080)])?;
        Pod::serve(node, "t/new", &[("app", "web")], &[("http", Kind::Tcp, 9090)])?;
        settled(node, Kind::Tcp, VIP, &["new", "old"]).map(drop)
    });
}

#[test]
fn scenario_05_one_slice_of_three_goes_and_the_others_stay() {
    Node::run(Options::default(), |node| {
        node.write("web.yaml", &service("web", "10.96.1.1", "{port: 80}", ""))?;
        for (name, address) in [("a", "198.18.0.1"), ("b", "198.18.0.2"), ("c", "198.18.0.3")] {
            node.serve(name, &[address], &[(Kind::Tcp, 80)])?;
            node.write(
                &format!("slice-{name}.yaml"),
                &slice(&format!("web-{name}"), "web", "{port: 80}", &[address]),
            )?;
        }
        settled(node, Kind::Tcp, VIP, &["a", "b", "c"])?;
        // Connections go on all the while; one that finds no endpoint would be an error.
        let during = std::thread::scope(|scope| {
            let asking = scope.spawn(|| node.ask(Kind::Tcp, VIP, &["--count", "5000"]));
            for _ in 0..5 {
                node.remove("slice-c.yaml")?;
                settled(node, Kind::Tcp, VIP, &["a", "b"])?;
                node.write("slice-c.yaml", &slice("web-c", "web", "{port: 80}", &["198.18.0.3"]))?;
                settled(node, Kind::Tcp, VIP, &["a", "b", "c"])?;
            }
            asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        during.only_from(&["a", "b", "c"])?;
        node.remove("slice-c.yaml")?;
        settled(node, Kind::Tcp, VIP, &["a", "b"]).map(drop)
    });
}

#[test]
fn scenario_06_an_address_in_two_slices_counts_once() {
    Node::run(Options::default(), |node| {
        for (name, address) in [("a", "198.18.0.1"), ("b", "198.18.0.2")] {
            node.serve(name, &[address], &[(Kind::Tcp, 80)])?;
        }
        let first = slice("web-1", "web", "{port: 80}", &["198.18.0.1", "198.18.0.2"]);
        let second = slice("web-2", "web", "{port: 80}", &["198.18.0.1"]);
        node.write("web.yaml", &(service("web", "10.96.1.1", "{port: 80}", "") + &first + &second))?;
        settled(node, Kind::Tcp, VIP, &["a", "b"])?;
        let answers = node.ask(Kind::Tcp, VIP, &["--count", "3000"])?;
        ensure!(answers.chi_square() < CHI_SQUARE, "{:?}", answers.from);
        Ok(())
    });
}

#[test]
fn scenario_07_slices_that_cannot_be_used_are_skipped() {
    Node::run(Options::default(), |node| {
        node.serve("good", &["198.18.0.1"], &[(Kind::Tcp, 80)])?;
        node.serve("bad", &["198.18.0.2"], &[(Kind::Tcp, 80)])?;
        let bad = "{addresses: [198.18.0.2]}";
        let text = [
            service("web", "10.96.1.1", "{port: 80}", ""),
            // A nil port name is the unnamed port.
            slice("web-good", "web", "{port: 80}", &["198.18.0.1"]),
            slice_of("web-zero", "web", "{port: 0}", "IPv4", bad),
            slice_of("web-nil", "web", "{port: null}", "IPv4", bad),
            slice_of("web-other", "web", "{name: other, port: 80}", "IPv4", bad),
            slice_of("web-fqdn", "web", "{port: 80}", "FQDN", "{addresses: [bad.example.com]}"),
            slice_of("web-none", "web", "{port: 80}", "IPv4", "{addresses: []}"),
        ];
        node.write("web.yaml", &text.concat())?;
        settled(node, Kind::Tcp, VIP, &["good"]).map(drop)
    });
}

#[test]
fn scenario_08_no_endpoint_refuses_at_once() {
    Node::run(Options::default(), |node| {
        node.serve("a", &["198.18.0.1"], &[(Kind::Tcp, 80), (Kind::Udp, 80)])?;
        let ports = "{name: t, port: 80}, {name: u, port: 80, protocol: UDP}";
        let web = service("web", "10.96.1.1", ports, "");
        node.write("web.yaml", &(web.clone() + &slice("web-1", "web", ports, &["198.18.0.1"])))?;
        let client = Pod::client(node, "t/client")?;
        settled(node, Kind::Tcp, VIP, &["a"])?;
        node.write("web.yaml", &(web + &slice_of("web-1", "web", ports, "IPv4", "")))?;
        until("connections to be refused", || node.ask(Kind::Tcp, VIP, &[])?.only_error("ECONNREFUSED"))?;

        let begun = Instant::now();
        client.ask(node, Kind::Tcp, VIP, &["--count", "20"])?.only_error("ECONNREFUSED")?;
        ensure!(
            begun.elapsed() < Duration::from_secs(2),
            "refusing 20 connections took {:?}",
            begun.elapsed()
        );
        for more in [&["--mapped"][..], &["--connected"], &[]] {
            client.ask(node, Kind::Udp, VIP, more)?.only_error("ECONNREFUSED")?;
        }
        Ok(())
    });
}

#[test]
fn scenario_17_terminating_and_not_serving_gets_nothing() {
    Node::run(Options::default(), |node| {
        for (name, address) in [("a", "198.18.0.1"), ("b", "198.18.0.2")] {
            node.serve(name, &[address], &[(Kind::Tcp, 80)])?;
        }
        let web = service("web", "10.96.1.1", "{port: 80}", "");
        let dying =
            "{addresses: [198.18.0.1], conditions: {ready: false, serving: false, terminating: true}}";
        let ready = "{addresses: [198.18.0.2], conditions: {ready: true}}";
        let with = |endpoints: &str| web.clone() + &slice_of("web-1", "web", "{port: 80}", "IPv4", endpoints);
        node.write("web.yaml", &with(&format!("{dying}, {ready}")))?;
        settled(node, Kind::Tcp, VIP, &["b"])?;
        node.ask(Kind::Tcp, VIP, &["--count", "300"])?.only_from(&["b"])?;
        node.write("web.yaml", &with(dying))?;
        until("connections to be refused", || node.ask(Kind::Tcp, VIP, &[])?.only_error("ECONNREFUSED"))
    });
}

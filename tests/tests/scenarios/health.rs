//! What load balancers ask: health-check node ports, /healthz and /livez, over real sockets of the node.
//!
//! `curl` asks, so that status, headers and body are what a stranger's client sees.

use anyhow::{Context, Result, ensure};
use tests::{Kind, Node, Options, until};

use crate::balancing::settled;
use crate::yaml::slice_of;

/// The node's own address, where node ports and health ports answer.
const NODE: &str = "192.0.2.10";

/// Status, head and body of a GET.
fn get(node: &Node, url: &str) -> Result<(u16, String, String)> {
    let finished = node.command(&["curl", "--silent", "--include", "--max-time", "5", url])?.success()?;
    let (head, body) = finished.stdout.split_once("\r\n\r\n").context("a head and a body")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("a status")?;
    Ok((status, head.to_owned(), body.to_owned()))
}

/// A load balancer with policy Local and a health port.
fn balancer(name: &str, health: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: t}}\nspec:\n  type: LoadBalancer\n  \
         externalTrafficPolicy: Local\n  healthCheckNodePort: {health}\n  ports: [{{port: 80}}]\n---\n"
    )
}

fn endpoints(list: &str) -> String {
    slice_of("web-1", "web", "{port: 80}", "IPv4", list)
}

fn here(address: &str) -> String {
    format!("{{addresses: [{address}], nodeName: node-a}}")
}

fn says(node: &Node, port: u16, status: u16, local: usize) -> Result<()> {
    until(&format!("the health port to say {status} with {local} endpoints"), || {
        let (found, head, body) = get(node, &format!("http://{NODE}:{port}/"))?;
        ensure!(found == status && body.contains(&format!("\"localEndpoints\": {local},")), "{head}\n{body}");
        ensure!(head.contains(&format!("X-Load-Balancing-Endpoint-Weight: {local}")), "{head}");
        Ok(())
    })
}

fn is_closed(node: &Node, port: u16) -> Result<()> {
    until("the health port to be free", || {
        let refused = node.ask(Kind::Tcp, &format!("{NODE}:{port}"), &["--timeout", "200"])?;
        refused.only_error("ECONNREFUSED")
    })
}

#[test]
fn scenario_18_the_health_port_does_not_count_terminating_endpoints() {
    Node::run(Options::default(), |node| {
        node.serve("old", &["198.18.0.1"], &[(Kind::Tcp, 80)])?;
        let terminating = "{addresses: [198.18.0.1], nodeName: node-a, \
                           conditions: {ready: false, serving: true, terminating: true}}";
        let elsewhere = "{addresses: [198.18.0.9], nodeName: node-b}";
        let web = balancer("web", 32100)
            .replace("ports: [{port: 80}]", "clusterIP: 10.96.1.1\n  ports: [{port: 80}]");
        node.write("web.yaml", &(web.clone() + &endpoints(terminating)))?;
        settled(node, Kind::Tcp, "10.96.1.1:80", &["old"])?;
        node.write("web.yaml", &(web + &endpoints(&format!("{terminating}, {elsewhere}"))))?;
        says(node, 32100, 503, 0)
    });
}

#[test]
fn scenario_23_health_ports_follow_the_endpoints_of_this_node() {
    Node::run(Options::default(), |node| {
        let two = format!("{}, {}", here("198.18.0.1"), here("198.18.0.2"));
        node.write("web.yaml", &(balancer("web", 32100) + &endpoints(&two)))?;
        says(node, 32100, 200, 2)?;
        let (status, head, body) = get(node, &format!("http://{NODE}:32100/anything"))?;
        ensure!(status == 200, "any path is answered: {head}");
        for header in ["Content-Type: application/json", "X-Content-Type-Options: nosniff"] {
            ensure!(head.contains(header), "{head}");
        }
        let expected = "{\n\t\"service\": {\n\t\t\"namespace\": \"t\",\n\t\t\"name\": \"web\"\n\t},\n\t\
                        \"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}";
        ensure!(body == expected, "{body}");

        node.write(
            "web.yaml",
            &(balancer("web", 32100) + &endpoints("{addresses: [198.18.0.1], nodeName: node-b}")),
        )?;
        says(node, 32100, 503, 0)?;
        node.write("web.yaml", &(balancer("web", 32100) + &endpoints(&here("198.18.0.1"))))?;
        says(node, 32100, 200, 1)?;

        // Another port, another policy, back again, gone.
        node.write("web.yaml", &(balancer("web", 32200) + &endpoints(&here("198.18.0.1"))))?;
        says(node, 32200, 200, 1)?;
        is_closed(node, 32100)?;
        let cluster = balancer("web", 32200).replace("Policy: Local", "Policy: Cluster");
        node.write("web.yaml", &(cluster + &endpoints(&here("198.18.0.1"))))?;
        is_closed(node, 32200)?;
        node.write("web.yaml", &(balancer("web", 32200) + &endpoints(&here("198.18.0.1"))))?;
        says(node, 32200, 200, 1)?;
        node.remove("web.yaml")?;
        is_closed(node, 32200)
    });
}

#[test]
fn scenario_23_a_health_port_that_is_taken_does_not_stop_the_others() {
    Node::run(Options::default(), |node| {
        node.serve("squatter", &[NODE], &[(Kind::Tcp, 32100)])?;
        let other = balancer("other", 32200)
            + &slice_of("other-1", "other", "{port: 80}", "IPv4", &here("198.18.0.2"));
        node.write("web.yaml", &(balancer("web", 32100) + &endpoints(&here("198.18.0.1")) + &other))?;
        says(node, 32200, 200, 1)?;
        let log = node.daemon()?.log();
        let told = log.lines().filter(|line| line.contains("192.0.2.10:32100")).count();
        ensure!(told == 1, "told {told} times:\n{log}");
        node.stop_servers();
        says(node, 32100, 200, 1)
    });
}

#[test]
fn a_node_with_its_first_lists_is_healthy_and_says_so() {
    Node::run(Options::default(), |node| {
        for path in ["/healthz", "/livez"] {
            let (status, head, body) = get(node, &format!("http://127.0.0.1:10256{path}"))?;
            ensure!(status == 200, "{head}\n{body}");
            let said: serde_json::Value = serde_json::from_str(&body)?;
            ensure!(said["nodeEligible"] == true && said["lastUpdated"] == said["currentTime"], "{body}");
        }
        let (status, ..) = get(node, "http://127.0.0.1:10256/")?;
        ensure!(status == 404, "{status}");
        let post = ["curl", "--silent", "--include", "--data", "x", "http://127.0.0.1:10256/healthz"];
        let refused = node.command(&post)?.success()?.stdout;
        ensure!(refused.contains(" 405 "), "{refused}");
        Ok(())
    });
}

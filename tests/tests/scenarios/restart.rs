//! What is pinned stays until the whole picture is there again.
//!
//! The first daemon reads manifests; the second one an API server that keeps half of its answer back.

use anyhow::Context;
use serde_json::{Value, json};
use tests::{Kind, Node, Options};

use crate::balancing::settled;
use crate::yaml::{service, slice};

const WEB: &str = "10.96.1.1:80";
const OLD: &str = "10.96.1.2:80";

#[test]
fn scenario_35_nothing_is_removed_before_the_lists_are_complete() {
    Node::run(Options::default(), |node| {
        node.serve("a", &["198.18.0.1"], &[(Kind::Tcp, 80)])?;
        node.serve("b", &["198.18.0.2"], &[(Kind::Tcp, 80)])?;
        let text = [
            service("web", "10.96.1.1", "{port: 80}", ""),
            slice("web-a", "web", "{port: 80}", &["198.18.0.1"]),
            slice("web-b", "web", "{port: 80}", &["198.18.0.2"]),
            service("old", "10.96.1.2", "{port: 80}", ""),
            slice("old-a", "old", "{port: 80}", &["198.18.0.1"]),
        ];
        node.write("all.yaml", &text.concat())?;
        settled(node, Kind::Tcp, WEB, &["a", "b"])?;
        settled(node, Kind::Tcp, OLD, &["a"])?;
        node.daemon()?.kill()?;
        node.daemon = None;

        // The API server no longer has `old`, and lists one of the two slices of `web`.
        let api = node.folder().join("api");
        std::fs::create_dir(&api)?;
        let put = |file: &str, items: Value| std::fs::write(api.join(file), items.to_string());
        put("services.json", json!([web_service()]))?;
        put("nodes.json", json!([node_object()]))?;
        put("endpointslices.json", json!([web_slice("a", "198.18.0.1")]))?;
        put("endpointslices.held", json!([]))?;
        let mut server = node.serve_api("127.0.0.1:6443", &api)?;
        let kubeconfig = node.folder().join("kubeconfig");
        std::fs::write(&kubeconfig, KUBECONFIG)?;
        let mut daemon = node.spawn_daemon_from("--kubeconfig", &kubeconfig)?;
        let held = server.read_line().context("the second page was not asked for")?;
        anyhow::ensure!(held.contains("endpointslices"), "{held}");
        for _ in 0..3 {
            node.ask(Kind::Tcp, WEB, &["--count", "500"])?.only_from(&["a", "b"])?;
            node.ask(Kind::Tcp, OLD, &["--count", "500"])?.only_from(&["a"])?;
        }

        put("endpointslices.rest.json", json!([web_slice("b", "198.18.0.2")]))?;
        daemon.await_ready()?;
        node.daemon = Some(daemon);
        tests::until("the service that is gone to be removed", || {
            let answers = node.ask(Kind::Tcp, OLD, &["--timeout", "200"])?;
            anyhow::ensure!(answers.from.is_empty(), "it still answers");
            Ok(())
        })?;
        node.ask(Kind::Tcp, WEB, &["--count", "500"])?.only_from(&["a", "b"])
    });
}

pub(crate) const KUBECONFIG: &str = "apiVersion: v1
kind: Config
current-context: c
clusters: [{name: c, cluster: {server: 'http://127.0.0.1:6443'}}]
users: [{name: u, user: {}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
";

fn web_service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "t", "resourceVersion": "1", "uid": "1"},
        "spec": {
            "type": "ClusterIP", "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"],
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
        },
    })
}

fn web_slice(name: &str, address: &str) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("web-{name}"), "namespace": "t", "resourceVersion": "1", "uid": name,
            "labels": {"kubernetes.io/service-name": "web"},
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 80, "protocol": "TCP"}],
        "endpoints": [{"addresses": [address], "conditions": {"ready": true}}],
    })
}

pub(crate) fn node_object() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": "node-a", "resourceVersion": "1", "uid": "2"},
        "spec": {"podCIDRs": ["10.244.1.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": tests::NODE4}]},
    })
}

//! Names and addresses agree at every moment: what a name says is programmed, and stays whose it was, while services
//! come and go. FAIRWAY_TRIES says how often that is tried; by default so often that a run is short.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::{Node, Options, Pod};

use crate::restart::{KUBECONFIG, node_object};

const API: &str = "127.0.0.1:6443";
const BACKENDS: &str = "198.18.0.0/15";
/// Made in a second, and as many deleted.
const RATE: f64 = 500.0;

/// An API server whose watches say what is appended to files, and a daemon that has it alone.
fn watched(node: &mut Node) -> Result<tests::Background> {
    let api = node.folder().join("api");
    std::fs::create_dir(&api)?;
    std::fs::write(api.join("nodes.json"), json!([node_object()]).to_string())?;
    for kind in ["services", "endpointslices"] {
        std::fs::write(api.join(kind).with_extension("watch"), "")?;
    }
    let server = node.serve_api(API, &api)?;
    let kubeconfig = node.folder().join("kubeconfig");
    std::fs::write(&kubeconfig, KUBECONFIG)?;
    node.daemon()?.kill()?;
    let mut daemon = node.spawn_daemon_from("--kubeconfig", &kubeconfig)?;
    daemon.await_ready()?;
    node.daemon = Some(daemon);
    Ok(server)
}

#[test]
fn a_name_leads_to_its_own_service_at_once() {
    let tries = std::env::var("FAIRWAY_TRIES").unwrap_or_else(|_| "10000".to_owned());
    let options = Options { log: "info", ..Options::default() };
    Node::run(options, |node| {
        let pod = Pod::client(node, "t/a")?;
        let _server = watched(node)?;
        node.command(&["ip", "route", "add", "local", BACKENDS, "dev", "lo"])?.success()?;
        let probe = node.probe().display().to_string();
        let mut backends = node.start(&[&probe, "serve", "--tcp", "0.0.0.0:7000"])?;
        backends.read_line()?;
        let folder = node.folder().join("api").display().to_string();
        let words = ["churn", &folder, "--server", "10.96.0.10:53", "--tries", &tries];
        let mut clients = pod.background(node, &words)?;
        let told: Value = serde_json::from_str(&clients.read_line()?)?;
        eprintln!("{told}");
        let number = |value: &Value| value.as_f64().context("a number");
        ensure!(number(&told["rate"])? > 0.9 * RATE && told["reused"] != 0, "the author fell behind: {told}");
        ensure!(told["misdirected"] == 0, "another service answered: {told}");
        ensure!(told["lasting"][1] == 0, "a service that lived on was not reached: {told}");
        ensure!(number(&told["passing"][0])? > 0.0, "nothing that was soon gone was tried: {told}");
        Ok(())
    });
}

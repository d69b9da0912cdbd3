//! The Kubernetes source against a small API server in this process: lists, watches, lost connections,
//! forgotten versions, refusals. What the tests of its files share is here.

mod access;
mod events;
mod faults;
mod lists;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fairway::source::{SourceConfig, kube};
use model::{ObjectName, Snapshot};
use serde_json::{Value, json};

use crate::api_server::ApiServer;
use crate::listener::Listener;

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const ENDPOINTS: &str = "/api/v1/endpoints";
const NODES: &str = "/api/v1/nodes";
const PODS: &str = "/api/v1/pods";

/// An API server and a source that watches it.
struct Bench {
    server: ApiServer,
    _kubeconfig: tempfile::TempDir,
    source: Listener,
}

impl Bench {
    async fn start(server: ApiServer) -> Self {
        let kubeconfig = server.kubeconfig();
        Self::reach(server, &kubeconfig, |_| {})
    }

    /// With little patience for a server that says nothing.
    fn impatient(server: ApiServer) -> Self {
        let kubeconfig = server.kubeconfig();
        Self::reach(server, &kubeconfig, |config| config.patience = Duration::from_millis(300))
    }

    /// With this kubeconfig, and a configuration that differs so from the usual one.
    fn reach(server: ApiServer, kubeconfig: &str, differ: impl FnOnce(&mut kube::Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, kubeconfig).unwrap();
        let mut config = config(path);
        differ(&mut config);
        Self { server, _kubeconfig: folder, source: Listener::start(SourceConfig::Kube(config)) }
    }
}

/// The source's configuration on node `a`.
fn config(kubeconfig: PathBuf) -> kube::Config {
    kube::Config {
        kubeconfig: Some(kubeconfig),
        api_server: None,
        node_name: "a".to_owned(),
        all_nodes: false,
        all_pods: false,
        patience: kube::PATIENCE,
    }
}

fn service(name: &str, port: i64) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop"},
           "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": port}]}})
}

fn slice(name: &str, address: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
           "addressType": "IPv4", "endpoints": [{"addresses": [address]}], "ports": [{"port": 80}]})
}

fn node(name: &str) -> Value {
    json!({"metadata": {"name": name}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}})
}

fn ports(snapshot: &Snapshot) -> Vec<(String, u16)> {
    let port = |(name, member): (&ObjectName, &Arc<model::Member>)| {
        (name.name.to_string(), member.service.ports[0].port)
    };
    snapshot.services.iter().map(port).collect()
}

fn web(snapshot: &Snapshot, port: u16) -> bool {
    ports(snapshot).contains(&("web".to_owned(), port))
}

fn endpoints(snapshot: &Snapshot) -> Vec<String> {
    let member = snapshot.services.get(&ObjectName::new("shop", "web"));
    member
        .iter()
        .flat_map(|member| member.all_endpoints())
        .map(|endpoint| endpoint.address.to_string())
        .collect()
}

/// One service with one endpoint, and the own node.
async fn small_server() -> ApiServer {
    let server = ApiServer::start("30").await;
    server.put(SERVICES, service("web", 80));
    server.put(SLICES, slice("web-1", "10.1.0.2"));
    server.put(NODES, node("a"));
    server
}

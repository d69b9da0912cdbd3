//! The kubelet's side of the runtime's socket: the few calls of the CRI (runtime.v1) that a kubelet makes for a pod.
//!
//! The numbers of the fields are those of the published api.proto.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tests::Node;

use crate::wire::{Fields, Message};

/// Two minutes: how long a kubelet waits.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(120);

/// The runtime behind a socket.
pub(crate) struct Cri {
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

/// What a pod is to be.
#[derive(Clone, Debug)]
pub(crate) struct PodConfig {
    pub(crate) name: &'static str,
    /// Protocol, port of the node, port of the pod.
    pub(crate) ports: Vec<(u64, u64, u64)>,
    /// The cgroup that the pod's are made in, from the root of the hierarchies.
    pub(crate) cgroup: String,
}

/// What a command in a container said.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) code: u64,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl PodConfig {
    /// A pod of the node's cgroup, where its sockets are balanced.
    pub(crate) fn named(node: &Node, name: &'static str) -> Self {
        Self { name, ports: Vec::new(), cgroup: format!("/{}", node.name()) }
    }

    fn metadata(&self) -> Message {
        Message::default().text(1, self.name).text(2, &format!("uid-{}", self.name)).text(3, "t")
    }

    fn message(&self) -> Message {
        let dns = Message::default()
            .text(1, "10.96.0.10")
            .texts(2, &["t.svc.cluster.local", "svc.cluster.local", "cluster.local"])
            .text(3, "ndots:5");
        let message = Message::default().message(1, &self.metadata()).text(2, self.name).message(4, &dns);
        let port = |&(protocol, node, pod): &(u64, u64, u64)| {
            Message::default().number(1, protocol).number(2, pod).number(3, node)
        };
        let message = self.ports.iter().map(port).fold(message, |message, port| message.message(5, &port));
        // A kubelet always says which namespaces.
        let security = Message::default().message(1, &namespaces());
        message.message(8, &Message::default().text(1, &self.cgroup).message(2, &security))
    }
}

/// Network and IPC are the pod's, processes each container's own.
fn namespaces() -> Message {
    Message::default().number(1, 0).number(2, 1).number(3, 0)
}

impl Cri {
    pub(crate) fn new(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { socket: socket.to_owned(), runtime })
    }

    /// Whether the runtime has a network for pods.
    pub(crate) fn is_network_ready(&self) -> Result<bool> {
        let status = self.call("Status", &Message::default())?.message(1)?;
        for condition in status.all(1) {
            let condition = Fields::read(condition)?;
            if condition.text(1) == "NetworkReady" {
                return Ok(condition.number(2) == 1);
            }
        }
        bail!("the runtime says nothing of its network")
    }

    pub(crate) fn run_pod(&self, pod: &PodConfig) -> Result<String> {
        Ok(self.call("RunPodSandbox", &Message::default().message(1, &pod.message()))?.text(1))
    }

    /// The address of a pod; empty if it has none.
    pub(crate) fn address(&self, pod: &str) -> Result<String> {
        let status = self.call("PodSandboxStatus", &Message::default().text(1, pod))?;
        Ok(status.message(1)?.message(5)?.text(1))
    }

    /// Makes and starts a container of the pod.
    pub(crate) fn run_container(
        &self,
        pod: (&str, &PodConfig),
        name: &str,
        image: &str,
        command: &[&str],
    ) -> Result<String> {
        let security = Message::default().message(3, &namespaces());
        let config = Message::default()
            .message(1, &Message::default().text(1, name))
            .message(2, &Message::default().text(1, image))
            .texts(3, command)
            .message(15, &Message::default().message(2, &security));
        let request = Message::default().text(1, pod.0).message(2, &config).message(3, &pod.1.message());
        let container = self.call("CreateContainer", &request)?.text(1);
        self.call("StartContainer", &Message::default().text(1, &container))?;
        Ok(container)
    }

    pub(crate) fn exec(&self, container: &str, command: &[&str]) -> Result<Output> {
        let request = Message::default().text(1, container).texts(2, command).number(3, 20);
        let answer = self.call("ExecSync", &request)?;
        Ok(Output { code: answer.number(3), stdout: answer.text(1), stderr: answer.text(2) })
    }

    pub(crate) fn stop_pod(&self, pod: &str) -> Result<()> {
        self.call("StopPodSandbox", &Message::default().text(1, pod)).map(drop)
    }

    pub(crate) fn remove_pod(&self, pod: &str) -> Result<()> {
        self.call("RemovePodSandbox", &Message::default().text(1, pod)).map(drop)
    }

    /// The ids of all pods.
    pub(crate) fn pods(&self) -> Result<Vec<String>> {
        let pods = self.call("ListPodSandbox", &Message::default())?;
        pods.all(1).map(|pod| Ok(Fields::read(pod)?.text(1))).collect()
    }

    /// Whether the runtime believes that a pod's sandbox runs.
    pub(crate) fn is_ready(&self, pod: &str) -> Result<bool> {
        let pods = self.call("ListPodSandbox", &Message::default())?;
        for known in pods.all(1).map(Fields::read) {
            let known = known?;
            if known.text(1) == pod {
                // PodSandboxState: SANDBOX_READY is 0, which is not written.
                return Ok(known.number(3) == 0);
            }
        }
        Ok(false)
    }

    fn call(&self, method: &str, request: &Message) -> Result<Fields> {
        let answer = async {
            tokio::time::timeout(TIMEOUT, self.request(method, request)).await.context("no answer in time")?
        };
        self.runtime.block_on(answer).with_context(|| format!("{method} of the runtime"))
    }

    /// One call of gRPC: a length in front of the message, the outcome behind it.
    async fn request(&self, method: &str, request: &Message) -> Result<Fields> {
        let stream = tokio::net::UnixStream::connect(&self.socket).await.context("its socket")?;
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        let connection = tokio::spawn(connection);
        let mut body = vec![0];
        body.extend(u32::try_from(request.0.len())?.to_be_bytes());
        body.extend(&request.0);
        let request = Request::post(format!("http://localhost/runtime.v1.RuntimeService/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::new(Bytes::from(body)))?;
        let answer = sender.send_request(request).await?;
        let head = answer.headers().clone();
        let answer = answer.into_body().collect().await?;
        let outcome = answer.trailers().cloned().unwrap_or(head);
        connection.abort();
        let word = |name| outcome.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        ensure!(word("grpc-status") == "0", "{} ({})", word("grpc-message"), word("grpc-status"));
        let bytes = answer.to_bytes();
        Fields::read(bytes.get(5..).unwrap_or_default())
    }
}

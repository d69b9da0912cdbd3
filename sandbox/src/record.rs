//! What is recorded of a sandbox that this node made by hand: one directory a pod under the run directory,
//! one `pod.json` in it. Written by the process that runs the pod, read by the daemon (endpoints from
//! selectors) and by `fairway sandbox list`. A record whose pause process is gone is void.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::names;

/// A running pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// Namespace and name.
    pub pod: PodId,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// The pod's addresses; those of the node for `hostNetwork`.
    pub addresses: Vec<IpAddr>,
    /// `containers[].ports` of all containers and restartable init containers.
    pub ports: Vec<ContainerPort>,
    /// `spec.hostname`, where written.
    pub hostname: Option<String>,
    /// `spec.subdomain`, where written.
    pub subdomain: Option<String>,
    /// Shares the node's network namespace.
    pub host_network: bool,
    /// All init containers are done and all containers run.
    pub ready: bool,
    /// Is on its way out: its processes have been asked to end.
    pub terminating: bool,
    /// The pause process, in the PID namespace of the node.
    pub pause: u32,
}

/// Namespace and name of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// One `containers[].ports[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerPort {
    /// Its name, which a Service's `targetPort` may say.
    pub name: Option<String>,
    /// Where the container listens.
    pub container_port: u16,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// The port of the node that leads here.
    pub host_port: Option<u16>,
    /// The node address it is limited to.
    pub host_ip: Option<IpAddr>,
}

impl std::fmt::Display for PodId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `name` or `namespace/name`, as on the command line.
impl FromStr for PodId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
        names::label("namespace of a pod", namespace)?;
        names::subdomain("name of a pod", name)?;
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_on_the_command_line() {
        let read = |text: &str| text.parse::<PodId>().map(|pod| pod.to_string());
        assert_eq!(read("web").as_deref(), Ok("default/web"));
        assert_eq!(read("shop/web.0").as_deref(), Ok("shop/web.0"));
        for wrong in ["", "a/", "/a", "../x", "a/b/c", "Web", "a_b"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}

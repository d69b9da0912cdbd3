//! The sources of the cluster's objects, each from end to end: the Kubernetes API against a small server in this
//! process, and a folder of manifests with real files and processes.
#![expect(clippy::unwrap_used, reason = "everything here is a test")]

mod api_server;
mod kube;
mod listener;
mod manifests;

//! Where the cluster comes from: a folder of manifests, or the Kubernetes API. Both speak `model::Event`
//! over one channel, and both say what they could not take through [`Reports`]. Nothing else in the daemon
//! knows which of the two it is.

mod connection;
pub mod convert;
pub mod kube;
pub mod manifests;
mod report;

use std::path::PathBuf;

use model::Event;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

pub use connection::Connection;
pub use report::{Part, Problem, Reason, Reports};

/// Why a source cannot run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder of manifests cannot be read at all.
    #[error("cannot read the folder of manifests {}: {source}", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Changes of files cannot be noticed.
    #[error("cannot watch files: inotify: {0}")]
    Inotify(std::io::Error),
    /// Changes of one directory cannot be noticed.
    #[error("cannot watch {}: {source}{}", path.display(), watch_advice(source))]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig {}: {error}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// The file of the service account's token, or of the kubeconfig's, cannot be used.
    #[error("cannot use the token file {}: {error}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Why.
        error: String,
    },
    /// The URL of the API server is none.
    #[error("--api-server {0:?} is not a URL such as https://192.0.2.1:6443")]
    ApiServer(String),
    /// Nothing says where the API server is.
    #[error("no manifests, no kubeconfig and no service account to find the cluster by: {0}")]
    NoCluster(String),
}

fn watch_advice(error: &std::io::Error) -> &'static str {
    // ENOSPC here is not about disks.
    if error.kind() == std::io::ErrorKind::StorageFull {
        return "; raise the sysctl fs.inotify.max_user_watches";
    }
    ""
}

/// Which source to run.
#[derive(Clone, Debug)]
pub enum SourceConfig {
    /// A folder of manifests.
    Manifests(manifests::Config),
    /// The Kubernetes API.
    Kube(kube::Config),
}

/// Sends what the cluster says, first as complete lists and then as changes, until `cancel` or until nobody
/// listens.
pub async fn run(
    config: SourceConfig,
    events: Sender<Event>,
    reports: Reports,
    cancel: CancellationToken,
) -> Result<(), Error> {
    match config {
        SourceConfig::Manifests(config) => manifests::run(config, events, reports, cancel).await,
        SourceConfig::Kube(config) => kube::run(config, events, reports, cancel).await,
    }
}

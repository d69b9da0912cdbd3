//! The admin socket and its connections, bounded in number and in patience. What is answered stands in
//! `routes`; the daemon binds it early, so that a second daemon is refused before it touches anything.

use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tokio::net::UnixListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::routes;
use crate::http;
use crate::state::State;

/// The name of the socket in the run directory.
pub use sandbox::SOCKET;

/// Enough for a person, an agent and a few scripts; more wait.
const MAX_CONNECTIONS: usize = 16;

/// A bound admin socket. The file goes with it.
#[derive(Debug)]
pub struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds the socket in `run_dir`, which is made if it is missing. The socket of a daemon that is gone is
    /// replaced; that of a running one is not.
    ///
    /// # Errors
    /// One sentence: another daemon uses this directory, or the directory cannot be written.
    pub fn bind(run_dir: &Path) -> Result<Self> {
        let mut directory = std::fs::DirBuilder::new();
        directory.recursive(true).mode(0o700);
        directory
            .create(run_dir)
            .with_context(|| format!("cannot make the directory {}", run_dir.display()))?;
        let path = run_dir.join(SOCKET);
        let shown = path.display();
        if BlockingStream::connect(&path).is_ok() {
            bail!("another fairway answers on {shown}: stop it, or give this one a --run-dir of its own");
        }
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot replace {shown}"));
            }
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path).with_context(|| format!("cannot listen on {shown}"))?;
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600))?;
        Ok(Self { listener, path })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Nothing is lost if it stays: the next daemon replaces it.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves until `cancel`.
///
/// # Errors
/// If the socket itself breaks.
pub async fn serve(listener: Listener, state: Arc<State>, cancel: CancellationToken) -> Result<()> {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let slot =
            Arc::clone(&slots).acquire_owned().await.context("the admin socket's slots are never closed")?;
        let stream = tokio::select! {
            accepted = listener.listener.accept() => accepted.context("the admin socket broke")?.0,
            () = cancel.cancelled() => return Ok(()),
        };
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            let state = &state;
            http::answer(stream, async |request| routes::respond(state, &request).await).await;
            drop(slot);
        });
    }
}

//! The small HTTP servers of health: `/healthz` with `/livez`, and those of the health-check node ports. They
//! answer anybody who reaches the node, so connections are bounded and nothing is ever read but a path.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use hyper::{Method, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Health, Status};
use crate::http::{self, JSON, Reply, TEXT, reply};

/// Connections that one server keeps: several load balancers with several probers each; more wait.
const MAX_CONNECTIONS: usize = 64;
/// How long to wait after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(50);

/// Binds the server of `/healthz` and `/livez`.
///
/// # Errors
/// One sentence that names the option.
pub async fn bind_healthz(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!(
            "cannot listen on {address} for /healthz: `ss -lntp` shows who does; \
             --healthz-bind-address names another address, or \"\" for none"
        )
    })
}

/// Serves `/healthz` and `/livez` until `cancel`.
pub async fn serve_healthz(listener: TcpListener, health: Health, cancel: CancellationToken) {
    let respond = move |path: &str| match path {
        "/healthz" => page(&health.status(SystemTime::now()), Status::is_eligible),
        "/livez" => page(&health.status(SystemTime::now()), Status::is_live),
        _ => reply(StatusCode::NOT_FOUND, TEXT, "here are /healthz and /livez\n".to_owned()),
    };
    tokio::select! {
        () = serve(listener, respond) => {}
        () = cancel.cancelled() => {}
    }
}

fn page(status: &Status, is_good: impl FnOnce(&Status) -> bool) -> Reply {
    let code = if is_good(status) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::to_string(status).expect("a status has nothing that JSON cannot say");
    reply(code, JSON, body)
}

/// Answers GET by path for as long as it is polled; dropping it closes the port and every connection.
pub(super) async fn serve(listener: TcpListener, respond: impl Fn(&str) -> Reply + Send + Sync + 'static) {
    let respond = Arc::new(respond);
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await;
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // The client has gone already, or this process has too many files open just now.
                tracing::debug!(%error, "a health port could not accept");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let respond = Arc::clone(&respond);
        connections.spawn(async move {
            let respond = &respond;
            http::answer(stream, async |request| match *request.method() {
                Method::GET | Method::HEAD => respond(request.uri().path()),
                _ => reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned()),
            })
            .await;
            drop(slot);
        });
    }
}

//! One HTTP/1.1 connection, with a patience: what the admin socket and the health ports have in common. Who may
//! connect and what is answered is theirs.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

/// JSON.
pub(crate) const JSON: &str = "application/json";
/// A sentence.
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// A client that does not even send its request is let go.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// A whole answer.
pub(crate) type Reply = Response<Full<Bytes>>;

/// Answers the requests of one connection until the client has had enough.
pub(crate) async fn answer<S, A>(stream: S, respond: impl Fn(Request<Incoming>) -> A)
where
    S: AsyncRead + AsyncWrite + Unpin,
    A: Future<Output = Reply>,
{
    let service = service_fn(|request| {
        let reply = respond(request);
        async move { Ok::<_, Infallible>(reply.await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection broke");
    }
}

/// An answer with a body.
pub(crate) fn reply(status: StatusCode, content_type: &'static str, body: String) -> Reply {
    let built = Response::builder().status(status).header(CONTENT_TYPE, content_type).body(Full::from(body));
    built.expect("a status and a content type of ours make a response")
}

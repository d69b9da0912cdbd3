//! What the admin endpoint answers, by path. Bodies are JSON but for `/readyz` and `/metrics`; an error is
//! one sentence as plain text.

use std::collections::HashMap;

use hyper::body::Incoming;
use hyper::{Method, Request, StatusCode};
use serde::Serialize;

use crate::http::{JSON, Reply, TEXT, reply};
use crate::state::State;

/// What prometheus-client writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Why there is no answer: the status, and one sentence.
struct Failure(StatusCode, String);

/// Answers one request.
pub(super) async fn respond(state: &State, request: &Request<Incoming>) -> Reply {
    if request.method() != Method::GET {
        return reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, "the admin endpoint only answers GET\n".into());
    }
    let query = query(request.uri().query().unwrap_or_default());
    match route(state, request.uri().path(), &query).await {
        Ok((content_type, body)) => reply(StatusCode::OK, content_type, body),
        Err(Failure(status, sentence)) => reply(status, TEXT, format!("{sentence}\n")),
    }
}

async fn route(
    state: &State,
    path: &str,
    query: &HashMap<String, String>,
) -> Result<(&'static str, String), Failure> {
    match path {
        "/readyz" => ready(state),
        "/health" => json(&state.health()),
        "/metrics" => Ok((OPEN_METRICS, state.metrics().await.map_err(internal)?)),
        "/services" => json(&state.services()),
        "/connections" => json(&state.connections().await.map_err(internal)?),
        "/examine" => json(&state.examine().await.map_err(internal)?),
        "/traffic" => json(&state.traffic().await.map_err(internal)?),
        "/backends" => json(&state.backends().await.map_err(internal)?),
        "/dns" => json(&state.names()),
        "/upstreams" => json(&state.upstreams()),
        "/sandboxes" => json(&state.sandboxes().map_err(internal)?),
        "/problems" => json(&state.problems()),
        "/explain" => {
            let target = required(query, "target")?;
            let from = query.get("from").map(String::as_str);
            json(&state.explain(target, from).map_err(|error| bad_request(&error))?)
        }
        "/sandbox-settings" => {
            let links = query.get("links").is_none_or(|links| links != "false");
            json(&state.settings(required(query, "namespace")?, links).map_err(unavailable)?)
        }
        _ => Err(Failure(StatusCode::NOT_FOUND, format!("there is no {path} here"))),
    }
}

fn ready(state: &State) -> Result<(&'static str, String), Failure> {
    match state.waiting_for() {
        None => Ok((TEXT, "ready\n".to_owned())),
        Some(what) => Err(Failure(StatusCode::SERVICE_UNAVAILABLE, format!("waiting for {what}"))),
    }
}

fn json<T: Serialize>(value: &T) -> Result<(&'static str, String), Failure> {
    serde_json::to_string(value).map(|body| (JSON, body)).map_err(internal)
}

fn required<'a>(query: &'a HashMap<String, String>, key: &str) -> Result<&'a str, Failure> {
    let sentence = || Failure(StatusCode::BAD_REQUEST, format!("the query lacks {key}"));
    query.get(key).map(String::as_str).ok_or_else(sentence)
}

fn bad_request(error: &anyhow::Error) -> Failure {
    Failure(StatusCode::BAD_REQUEST, format!("{error:#}"))
}

fn unavailable(error: impl std::fmt::Display) -> Failure {
    Failure(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}"))
}

fn internal(error: impl std::fmt::Display) -> Failure {
    Failure(StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}"))
}

/// The pairs of a query, unescaped (RFC 3986 section 2.1). What is not UTF-8 is left out.
fn query(text: &str) -> HashMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs.filter_map(|(key, value)| Some((unescape(key)?, unescape(value)?))).collect()
}

fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::client::escape;

    #[test]
    fn what_the_client_escapes_the_server_reads() {
        for value in ["web.shop:80", "[fd00::1]:80", "a&b=c%d e", "größe"] {
            let parsed = query(&format!("target={}&from=x", escape(value)));
            assert_eq!(parsed.get("target").map(String::as_str), Some(value));
        }
    }

    #[test]
    fn a_broken_escape_is_left_out() {
        assert!(query("target=%4").is_empty() && query("target=%zz").is_empty());
    }
}

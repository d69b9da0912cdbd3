//! As much of an API server as a node asks, from files: `KIND.json` holds the items of a kind. If `KIND.held` is
//! there, the list has a second page, which is answered once `KIND.rest.json` is there.
//!
//! Watches stay open and say nothing: a test that changes objects uses manifests.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::print;

const POLL: Duration = Duration::from_millis(10);

/// Answers until it is killed; prints a line whenever a second page is asked for.
pub(crate) fn run(listen: SocketAddr, folder: &Path) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    print(&json!({ "listening": listen.to_string() }));
    let folder: Arc<Path> = folder.into();
    for stream in listener.incoming().map_while(Result::ok) {
        let folder = Arc::clone(&folder);
        // A client that goes away in the middle is no error of the server.
        std::thread::spawn(move || drop(converse(&stream, &folder)));
    }
    Ok(())
}

fn converse(stream: &TcpStream, folder: &Path) -> Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let mut writer = stream;
    while let Some(request) = lines.next() {
        let request = request?;
        while !lines.next().context("a head ends with an empty line")??.is_empty() {}
        let target = request.split(' ').nth(1).context("a request names a path")?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if query.contains("watch=true") || query.contains("watch=1") {
            writer.write_all(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n",
            )?;
            // Until the client closes.
            drop(lines.next());
            return Ok(());
        }
        let body = answer(path, query, folder)?.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        writer.write_all(format!("{head}{body}").as_bytes())?;
    }
    Ok(())
}

fn answer(path: &str, query: &str, folder: &Path) -> Result<Value> {
    match path {
        // Older than the versions that stream their lists.
        "/version" => {
            Ok(json!({"major": "1", "minor": "31", "gitVersion": "", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}))
        }
        "/apis/discovery.k8s.io/v1" => {
            Ok(json!({"kind": "APIResourceList", "groupVersion": "discovery.k8s.io/v1", "resources": []}))
        }
        _ => list(path.rsplit('/').next().unwrap_or_default(), query.contains("continue="), folder),
    }
}

fn list(kind: &str, second: bool, folder: &Path) -> Result<Value> {
    let (file, more) = if second {
        print(&json!({ "held": kind }));
        (format!("{kind}.rest.json"), false)
    } else {
        (format!("{kind}.json"), folder.join(format!("{kind}.held")).exists())
    };
    let path = folder.join(file);
    while second && !path.exists() {
        std::thread::sleep(POLL);
    }
    let items = std::fs::read_to_string(path).unwrap_or_else(|_| "[]".to_owned());
    let items: Value = serde_json::from_str(&items).with_context(|| format!("the items of {kind}"))?;
    let mut metadata = json!({"resourceVersion": "1"});
    if more {
        metadata["continue"] = json!("more");
    }
    Ok(json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
}

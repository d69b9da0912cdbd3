//! As much of an API server as a node asks, from files: `KIND.json` holds the items of a kind, or `KIND.jsonl` one
//! in each line, answered in pages. If `KIND.held` is there, the list has a second page, which is answered
//! once `KIND.rest.json` is there.
//!
//! A watch says what is appended to `KIND.watch`, an event in each line, and nothing without such a file.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::print;

const POLL: Duration = Duration::from_millis(2);

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
            return match File::open(folder.join(format!("{}.watch", kind(path)))) {
                Ok(events) => follow(events, writer),
                // Until the client closes.
                Err(_) => lines.next().map_or(Ok(()), |_| Ok(())),
            };
        }
        let body = match pages(path, query, folder)? {
            Some(page) => page,
            None => answer(path, query, folder)?.to_string(),
        };
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        writer.write_all(format!("{head}{body}").as_bytes())?;
    }
    Ok(())
}

/// Says what is appended to a file, in chunks of whole lines, until the client has gone.
fn follow(events: File, mut writer: &TcpStream) -> Result<()> {
    let mut events = BufReader::new(events);
    let (mut lines, mut line) = (String::new(), String::new());
    loop {
        while events.read_line(&mut line)? > 0 && line.ends_with('\n') {
            lines.push_str(&line);
            line.clear();
        }
        if lines.is_empty() {
            std::thread::sleep(POLL);
            continue;
        }
        writer.write_all(format!("{:x}\r\n{lines}\r\n", lines.len()).as_bytes())?;
        lines.clear();
    }
}

/// The last part of a path: what is listed or watched.
fn kind(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// A page of a long list, item by item as it is written: nothing is parsed. The next page goes on at an octet of
/// the file, so that no page costs more than it says.
fn pages(path: &str, query: &str, folder: &Path) -> Result<Option<String>> {
    let kind = kind(path);
    let Ok(file) = File::open(folder.join(format!("{kind}.jsonl"))) else {
        return Ok(None);
    };
    let number = |key: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
        value.and_then(|value| value.parse::<u64>().ok())
    };
    let (start, limit) = (number("continue").unwrap_or(0), number("limit").unwrap_or(u64::MAX));
    let mut file = BufReader::new(file);
    file.seek(SeekFrom::Start(start))?;
    let mut items = Vec::new();
    for _ in 0..limit {
        let mut item = String::new();
        if file.read_line(&mut item)? == 0 {
            break;
        }
        items.push(item);
    }
    let more = if file.fill_buf()?.is_empty() { String::new() } else { file.stream_position()?.to_string() };
    let metadata = json!({"resourceVersion": "1", "continue": more});
    Ok(Some(format!(
        "{{\"kind\":\"List\",\"apiVersion\":\"v1\",\"metadata\":{metadata},\"items\":[{}]}}",
        items.join(",")
    )))
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
        _ => list(kind(path), query.contains("continue="), folder),
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

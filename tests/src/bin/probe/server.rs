//! Answers with the own name and the address that the client has here: over TCP to every line and HTTP
//! request, over UDP to every datagram. A thread per connection; a test has few.

use std::convert::Infallible;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::json;

use crate::{Serve, print};

/// Listens until it is killed; says so once every socket is bound.
pub(crate) fn run(serve: &Serve) -> Result<Infallible> {
    let name: Arc<str> = serve.name.as_str().into();
    for address in &serve.tcp {
        let listener =
            TcpListener::bind(address).with_context(|| format!("cannot listen on {address}/tcp"))?;
        let name = Arc::clone(&name);
        std::thread::spawn(move || accept(&listener, &name));
    }
    for address in &serve.udp {
        let socket = UdpSocket::bind(address).with_context(|| format!("cannot listen on {address}/udp"))?;
        let name = Arc::clone(&name);
        std::thread::spawn(move || datagrams(&socket, &name));
    }
    print(&json!({ "listening": serve.name }));
    // Until it is killed, also with nothing to listen on: a pod that only asks is one, too.
    loop {
        std::thread::park();
    }
}

fn accept(listener: &TcpListener, name: &Arc<str>) {
    for stream in listener.incoming().map_while(Result::ok) {
        let name = Arc::clone(name);
        std::thread::spawn(move || converse(&stream, &name));
    }
}

/// Answers line by line until the client closes; an HTTP request is answered once.
fn converse(stream: &TcpStream, name: &str) {
    let (Ok(peer), Ok(own)) = (stream.peer_addr(), stream.local_addr()) else { return };
    let answer = if name.is_empty() { answer(&own.ip().to_string(), peer) } else { answer(name, peer) };
    let mut writer = stream;
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while let Some(line) = lines.next() {
        if line.starts_with("GET ") {
            // The rest of the head is read, else closing would reset the connection.
            let _ = lines.find(String::is_empty);
            let length = answer.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            let _ = writer.write_all(format!("{head}{answer}").as_bytes());
            return;
        }
        if writer.write_all(padded(&answer, line.len()).as_bytes()).is_err() {
            return;
        }
    }
}

fn datagrams(socket: &UdpSocket, name: &str) {
    let mut buffer = [0; 1 << 16];
    loop {
        // An ICMP error about an earlier answer is no reason to stop.
        if let Ok((length, peer)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(padded(&answer(name, peer), length).as_bytes(), peer);
        }
    }
}

/// As long as the question: large packets are to pass in both directions.
fn padded(answer: &str, length: usize) -> String {
    format!("{:length$}\n", answer.trim_end(), length = length.saturating_sub(1))
}

fn answer(name: &str, peer: SocketAddr) -> String {
    format!("{name} {} {}\n", peer.ip().to_canonical(), peer.port())
}

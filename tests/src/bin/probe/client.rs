//! Asks a server many times and counts who answered, with which client address it was seen, and which errors
//! came instead.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::{Ask, Datagrams, any, errno_name, print};

/// What came back, counted.
#[derive(Default)]
struct Tally {
    answers: BTreeMap<String, u32>,
    seen_as: BTreeMap<String, u32>,
    peers: BTreeMap<String, u32>,
    errors: BTreeMap<String, u32>,
}

impl Tally {
    /// `result` is the answer of the server with the address it came from as the client sees it.
    fn count(&mut self, result: io::Result<(String, SocketAddr)>) {
        match result {
            Ok((answer, peer)) => {
                let mut words = answer.split_whitespace().map(str::to_owned);
                *self.answers.entry(words.next().unwrap_or_default()).or_default() += 1;
                *self.seen_as.entry(words.next().unwrap_or_default()).or_default() += 1;
                *self.peers.entry(peer.to_string()).or_default() += 1;
            }
            Err(error) => *self.errors.entry(errno_name(&error)).or_default() += 1,
        }
    }

    fn print(&self) {
        print(&json!({
            "answers": self.answers,
            "seen_as": self.seen_as,
            "peers": self.peers,
            "errors": self.errors,
        }));
    }
}

/// `probe tcp`.
pub(crate) fn tcp(ask: &Ask) -> Result<()> {
    let mut tally = Tally::default();
    for _ in 0..ask.count {
        tally.count(converse(ask));
    }
    tally.print();
    Ok(())
}

fn converse(ask: &Ask) -> io::Result<(String, SocketAddr)> {
    let timeout = Duration::from_millis(ask.timeout);
    let stream = TcpStream::connect_timeout(&ask.target, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    (&stream).write_all(&question(ask.bytes))?;
    let mut answer = String::new();
    if BufReader::new(&stream).read_line(&mut answer)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((answer, stream.peer_addr()?))
}

/// The server's answer is at least as long.
fn question(bytes: usize) -> Vec<u8> {
    let mut question = b"who".to_vec();
    question.resize(bytes.saturating_sub(1).max(question.len()), b' ');
    question.push(b'\n');
    question
}

/// `probe udp`.
pub(crate) fn udp(arguments: &Datagrams) -> Result<()> {
    let target = if arguments.mapped { mapped(arguments.ask.target) } else { arguments.ask.target };
    let mut tally = Tally::default();
    let mut kept = None;
    for _ in 0..arguments.ask.count {
        let socket = match kept.take() {
            Some(socket) => socket,
            None => socket(arguments, target)?,
        };
        tally.count(exchange(&socket, target, arguments));
        if arguments.one_socket {
            kept = Some(socket);
        }
    }
    tally.print();
    Ok(())
}

fn socket(arguments: &Datagrams, target: SocketAddr) -> Result<UdpSocket> {
    let socket = UdpSocket::bind(any(target, arguments.local_port)).context("cannot bind")?;
    socket.set_read_timeout(Some(Duration::from_millis(arguments.ask.timeout)))?;
    Ok(socket)
}

fn exchange(
    socket: &UdpSocket,
    target: SocketAddr,
    arguments: &Datagrams,
) -> io::Result<(String, SocketAddr)> {
    let (question, connected) = (question(arguments.ask.bytes), arguments.connected);
    if connected {
        socket.connect(target)?;
        socket.send(&question)?;
    } else {
        socket.send_to(&question, target)?;
    }
    let mut buffer = [0; 1 << 16];
    let (length, from) = socket.recv_from(&mut buffer)?;
    let from = if connected { socket.peer_addr()? } else { from };
    Ok((String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned(), from))
}

fn mapped(target: SocketAddr) -> SocketAddr {
    let ip: Ipv6Addr = match target.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    SocketAddr::new(ip.into(), target.port())
}

//! One question to one upstream: over UDP, over TCP where the answer was too long for that, and without EDNS
//! where the upstream does not know it. Keeps nothing. Called by `forward`.
//!
//! Against forged answers (RFC 5452): every question goes out from a fresh connected socket on a random
//! port with a random id, and an answer counts only from that address with that id and that question.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::{TcpStream, UdpSocket};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::stored::Stored;
use crate::tcp::{read_framed, write_framed};
use crate::upstream::Upstream;
use crate::wire::{HEADER, Head, OWN_PAYLOAD, Rcode, question_end};

/// The longest datagram taken from an upstream: what we tell it we take. What is longer is asked for over TCP.
const MAX_DATAGRAM: usize = OWN_PAYLOAD as usize;

/// Asks one upstream. The query ends with an OPT record, and its id is chosen here.
pub(crate) async fn attempt(
    upstream: Arc<Upstream>,
    mut query: Vec<u8>,
    metrics: Metrics,
) -> (Arc<Upstream>, io::Result<Stored>) {
    let id: u16 = rand::random();
    query[..2].copy_from_slice(&id.to_be_bytes());
    let since = Instant::now();
    let mut reply = ask(&upstream, &query).await;
    if reply.as_ref().is_ok_and(|message| rcode(message) == Rcode::FORM_ERR) {
        // A server from before EDNS (RFC 6891, section 7).
        query.truncate(question_end(&query).unwrap_or(query.len()));
        query[6..HEADER].fill(0);
        reply = ask(&upstream, &query).await;
    }
    let stored = reply.and_then(|message| Stored::read(&message).ok_or_else(|| invalid("a broken record")));
    let rcode = stored.as_ref().ok().map(Stored::rcode);
    metrics.count_upstream(upstream.address, rcode, since.elapsed());
    (upstream, stored)
}

async fn ask(upstream: &Upstream, query: &[u8]) -> io::Result<Vec<u8>> {
    let since = Instant::now();
    let message = over_udp(upstream.address, query).await?;
    upstream.answered(since.elapsed());
    if !Head::read(&message).is_some_and(|head| head.has(Head::TRUNCATED)) {
        return Ok(message);
    }
    match over_tcp(upstream, query).await {
        Ok(whole) => Ok(whole),
        Err(error) => {
            tracing::debug!(upstream = %upstream.address, %error, "a whole answer could not be had over TCP");
            Ok(message)
        }
    }
}

async fn over_udp(upstream: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match upstream {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    // Linux chooses the port at random from its whole range.
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(upstream).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; MAX_DATAGRAM + 1];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if answers(&buffer[..length], query) {
            buffer.truncate(length);
            if length > MAX_DATAGRAM {
                cut(&mut buffer);
            }
            return Ok(buffer);
        }
        if is_bare_error(&buffer[..length], query) {
            buffer.truncate(length);
            return Ok(buffer);
        }
        tracing::debug!(%upstream, "a datagram that answers another question was ignored");
    }
}

/// Leaves the question alone, truncated.
fn cut(message: &mut Vec<u8>) {
    if let Some(end) = question_end(message) {
        message.truncate(end);
        message[2] |= (Head::TRUNCATED >> 8) as u8;
        message[6..HEADER].fill(0);
    }
}

async fn over_tcp(upstream: &Upstream, query: &[u8]) -> io::Result<Vec<u8>> {
    if let Some(mut stream) = upstream.reuse(Instant::now())
        // The upstream may have closed it meanwhile; that is no fault of its own.
        && let Ok(message) = over_stream(&mut stream, query).await
    {
        upstream.keep(stream, Instant::now());
        return Ok(message);
    }
    let mut stream = TcpStream::connect(upstream.address).await?;
    let message = over_stream(&mut stream, query).await?;
    upstream.keep(stream, Instant::now());
    Ok(message)
}

async fn over_stream(stream: &mut TcpStream, query: &[u8]) -> io::Result<Vec<u8>> {
    write_framed(stream, query).await?;
    let message = read_framed(stream).await?;
    if answers(&message, query) {
        return Ok(message);
    }
    Err(invalid("the answer is to another question"))
}

/// Whether a message is an answer to a query: same id, same opcode, same question whatever its case.
fn answers(message: &[u8], query: &[u8]) -> bool {
    let (Some(head), Some(asked), Some(end)) = (Head::read(message), Head::read(query), question_end(query))
    else {
        return false;
    };
    let same = |a: &[u8], b: &[u8]| a.eq_ignore_ascii_case(b);
    head.id == asked.id
        && head.has(Head::RESPONSE)
        && (head.flags ^ asked.flags) & Head::OPCODE == 0
        && message.len() >= end
        && message[4..6] == query[4..6]
        && same(&message[HEADER..end], &query[HEADER..end])
}

/// Whether a message is a header with an error, as servers send that do not understand the query. It could be
/// forged more easily than an answer, and so at most leads to the question being asked anew.
fn is_bare_error(message: &[u8], query: &[u8]) -> bool {
    let is_ours =
        Head::read(message).is_some_and(|head| head.has(Head::RESPONSE) && message[..2] == query[..2]);
    is_ours && message.len() == HEADER && message[4..6] == [0, 0] && rcode(message) != Rcode::NO_ERROR
}

fn rcode(message: &[u8]) -> Rcode {
    Head::read(message).map_or(Rcode::SERV_FAIL, |head| Rcode(head.flags & 15))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

//! The way upstream: sends a question on as it came and hands the answer back as it came, but for the id.
//! It knows nothing of names. Called by `server` for whatever is not ours.
//!
//! Against forged answers (RFC 5452): every question goes out from a fresh connected socket on a random
//! port with a random id, and an answer counts only from that address with that id and that question.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use crate::metrics::Metrics;
use crate::name::DomainName;
use crate::record::{Question, Record};
use crate::respond::{extended, failure};
use crate::splice;
use crate::tcp::{read_framed, write_framed};
use crate::upstream::{Order, Upstream};
use crate::wire::{self, HEADER, Head, Rcode, Request, question_end};

/// All that an upstream answer may take: glibc gives up after 5 s, so a SERVFAIL after 4 s still helps.
const DEADLINE: Duration = Duration::from_secs(4);
/// Attempts for one question, over all upstreams.
const MAX_ATTEMPTS: usize = 6;
/// The longest datagram taken from an upstream; a longer answer is asked for over TCP. The client may offer
/// to take 64 KiB, which no server uses, and which thousands of questions under way cannot each have.
const MAX_DATAGRAM: usize = 4096;

/// Asks upstreams.
#[derive(Debug)]
pub struct Forwarder {
    upstreams: ArcSwap<Vec<Arc<Upstream>>>,
    metrics: Metrics,
}

/// What an upstream answered.
#[derive(Debug)]
struct Reply {
    message: Vec<u8>,
    /// The answer over UDP that was too short, where `message` came over TCP after it.
    truncated: Option<Vec<u8>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("there is no upstream")]
    NoUpstream,
    #[error("no upstream answered in time")]
    TimedOut,
    #[error("the last upstream failed")]
    Failed(#[source] io::Error),
}

impl Forwarder {
    /// A forwarder to these upstreams.
    pub fn new(upstreams: Vec<SocketAddr>, metrics: Metrics) -> Self {
        let this = Self { upstreams: ArcSwap::default(), metrics };
        this.replace(upstreams);
        this
    }

    /// Replaces the upstreams. What is known of those that stay is kept.
    pub fn replace(&self, addresses: Vec<SocketAddr>) {
        let known = self.upstreams.load();
        if addresses.is_empty() {
            tracing::warn!("there is no upstream DNS server: names outside the cluster answer SERVFAIL");
        }
        let keep = |address| known.iter().find(|upstream| upstream.address == address).cloned();
        let new = addresses.into_iter().map(|a| keep(a).unwrap_or_else(|| Arc::new(Upstream::new(a))));
        self.upstreams.store(Arc::new(new.collect()));
    }

    /// The upstreams in order.
    pub fn upstreams(&self) -> Vec<SocketAddr> {
        self.upstreams.load().iter().map(|upstream| upstream.address).collect()
    }

    /// The answer to a request that is not ours: the upstream's, octet for octet, with the client's id and
    /// the client's spelling of the question.
    pub(crate) async fn relay(&self, message: &[u8], request: &Request) -> Vec<u8> {
        let reply = match self.ask(message).await {
            Ok(reply) => reply,
            Err(error) => return self.fail(request, &error),
        };
        let fits = reply.message.len() <= request.limit();
        let mut answer = match reply.truncated {
            // The client comes back over TCP, or lives on the part (musl before 1.2.4).
            Some(truncated) if !fits => truncated,
            _ if !fits => return failure(request, Rcode::SERV_FAIL, Some(extended::NO_UPSTREAM)),
            Some(_) | None => reply.message,
        };
        answer[..2].copy_from_slice(&message[..2]);
        if let Some(end) = question_end(message) {
            answer[HEADER..end].copy_from_slice(&message[HEADER..end]);
        }
        // A pod's libc ignores REFUSED and waits for its time-out; nothing but SERVFAIL makes it go on.
        if rcode(&answer) == Rcode::REFUSED {
            return failure(request, Rcode::SERV_FAIL, None);
        }
        answer
    }

    /// The answer to a request of ours whose chain of aliases leads out of the zone: the chain, then what
    /// the upstream says of its end.
    pub(crate) async fn chase(&self, request: &Request, chain: Vec<Record>, name: DomainName) -> Vec<u8> {
        let question = Question { name, ..request.question.clone() };
        let reply = match self.ask(&wire::write_question(0, &question, request)).await {
            Ok(reply) => reply,
            Err(error) => return self.fail(request, &error),
        };
        match splice::contents(chain, &reply.message) {
            Some(contents) => wire::write(request, &contents),
            None => failure(request, Rcode::SERV_FAIL, Some(extended::NO_UPSTREAM)),
        }
    }

    fn fail(&self, request: &Request, error: &AskError) -> Vec<u8> {
        tracing::debug!(error = error as &dyn std::error::Error, "a question found no answer upstream");
        self.metrics.unanswered.inc();
        failure(request, Rcode::SERV_FAIL, Some(extended::NO_UPSTREAM))
    }

    /// Asks one upstream after another, the next when one is slow or fails, until one answers.
    async fn ask(&self, message: &[u8]) -> Result<Reply, AskError> {
        let deadline = Instant::now() + DEADLINE;
        let order = Order::new(&self.upstreams.load(), deadline - DEADLINE);
        if order.is_empty() {
            return Err(AskError::NoUpstream);
        }
        let attempts = MAX_ATTEMPTS.min(order.len() * 3);
        let mut under_way = JoinSet::new();
        let (mut started, mut last) = (0, Err(AskError::TimedOut));
        loop {
            let mut turn = deadline;
            if started < attempts {
                let (upstream, patience) = order.attempt(started);
                started += 1;
                turn = deadline.min(Instant::now() + patience);
                under_way.spawn(attempt(upstream, message.to_vec(), self.metrics.clone()));
            }
            match timeout_at(turn, under_way.join_next()).await {
                Ok(Some(Ok((_, Ok(reply))))) if !is_failure(rcode(&reply.message)) => return Ok(reply),
                // A refusal is worth passing on if nobody says better.
                Ok(Some(Ok((_, Ok(reply))))) => last = Ok(reply),
                Ok(Some(Ok((upstream, Err(error))))) => {
                    upstream.failed(Instant::now());
                    last = last.or(Err(AskError::Failed(error)));
                }
                // A task that panicked; the process is about to end.
                Ok(Some(Err(_))) => {}
                Ok(None) if started >= attempts => return last,
                Ok(None) => {}
                Err(_) if turn == deadline => return last,
                Err(_) => order.attempt(started - 1).0.late(Instant::now()),
            }
            if under_way.is_empty() && started >= order.len() && last.is_ok() {
                return last;
            }
        }
    }
}

/// One attempt at one upstream; a truncated answer is asked for again over TCP.
async fn attempt(
    upstream: Arc<Upstream>,
    mut query: Vec<u8>,
    metrics: Metrics,
) -> (Arc<Upstream>, io::Result<Reply>) {
    let id: u16 = rand::random();
    query[..2].copy_from_slice(&id.to_be_bytes());
    let since = Instant::now();
    let reply = async {
        let message = over_udp(upstream.address, &query).await?;
        upstream.answered(since.elapsed());
        if !Head::read(&message).is_some_and(|head| head.has(Head::TRUNCATED)) {
            return Ok(Reply { message, truncated: None });
        }
        match over_tcp(upstream.address, &query).await {
            Ok(whole) => Ok(Reply { message: whole, truncated: Some(message) }),
            Err(error) => {
                tracing::debug!(upstream = %upstream.address, %error, "a whole answer could not be had over TCP");
                Ok(Reply { message, truncated: None })
            }
        }
    };
    let reply = reply.await;
    metrics.count_upstream(upstream.address, reply.as_ref().ok().map(|r| rcode(&r.message)), since.elapsed());
    (upstream, reply)
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
            return Err(io::Error::new(io::ErrorKind::InvalidData, "an error without the question"));
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

async fn over_tcp(upstream: SocketAddr, query: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(upstream).await?;
    write_framed(&mut stream, query).await?;
    let message = read_framed(&mut stream).await?;
    if answers(&message, query) {
        return Ok(message);
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is to another question"))
}

/// Whether a message is an answer to a query: same id, same question whatever its case.
fn answers(message: &[u8], query: &[u8]) -> bool {
    let (Some(head), Some(asked), Some(end)) = (Head::read(message), Head::read(query), question_end(query))
    else {
        return false;
    };
    let same = |a: &[u8], b: &[u8]| a.eq_ignore_ascii_case(b);
    head.id == asked.id
        && head.has(Head::RESPONSE)
        && message.len() >= end
        && message[4..6] == query[4..6]
        && same(&message[HEADER..end], &query[HEADER..end])
}

/// Whether a message is a header with an error, as servers send that do not understand the query. It could be
/// forged more easily than an answer, and counts only as a failed attempt.
fn is_bare_error(message: &[u8], query: &[u8]) -> bool {
    let is_ours =
        Head::read(message).is_some_and(|head| head.has(Head::RESPONSE) && message[..2] == query[..2]);
    is_ours && message.len() == HEADER && message[4..6] == [0, 0] && rcode(message) != Rcode::NO_ERROR
}

fn rcode(message: &[u8]) -> Rcode {
    Head::read(message).map_or(Rcode::SERV_FAIL, |head| Rcode(head.flags & 15))
}

fn is_failure(rcode: Rcode) -> bool {
    [Rcode::SERV_FAIL, Rcode::REFUSED, Rcode::NOT_IMP].contains(&rcode)
}

//! DNS over streams (RFC 7766): length-framed requests, answered as they are ready, many under way on one
//! connection. Idle connections are closed, and there is a bound on how many there are. Used by `server`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::access::Verdict;
use crate::responder::{Asker, Responder, Taken, refuse};
use crate::wire::Transport;

/// Connections the kernel may keep for us before we take them.
pub(crate) const BACKLOG: i32 = 128;
/// Connections at one time on one address. One costs a socket and about 2 KiB.
const MAX_CONNECTIONS: usize = 1000;
/// Questions under way on one connection; the next is read once one is answered.
const MAX_PIPELINED: usize = 32;
/// How long a connection may be silent (RFC 7766, section 6.2.3, wants seconds).
const IDLE: Duration = Duration::from_secs(10);
/// How long a client may take to accept an answer.
const WRITE: Duration = Duration::from_secs(5);
/// How long to wait after a failed accept, such as for want of descriptors: retrying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What is read at once: a few questions.
const READ_SIZE: usize = 1024;

/// Accepts connections until the drain.
pub(crate) async fn serve(listener: TcpListener, responder: Arc<Responder>, drain: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = drain.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, client)) => {
                // Over the bound, the newest is closed at once: its client falls back or retries.
                let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
                let (responder, drain) = (Arc::clone(&responder), drain.clone());
                connections.spawn(async move {
                    Connection { stream, client, responder, unread: Vec::new() }.run(drain).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(%error, "a TCP accept failed");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    while connections.join_next().await.is_some() {}
}

struct Connection {
    stream: TcpStream,
    client: SocketAddr,
    responder: Arc<Responder>,
    unread: Vec<u8>,
}

impl Connection {
    /// Serves until the client is done, silent or broken, or the drain begins; then ends what is under way.
    async fn run(mut self, drain: CancellationToken) {
        let mut waiting: JoinSet<Vec<u8>> = JoinSet::new();
        loop {
            tokio::select! {
                () = drain.cancelled() => break,
                Some(Ok(answer)) = waiting.join_next(), if !waiting.is_empty() => {
                    if !self.send(&answer).await {
                        return;
                    }
                }
                read = timeout(IDLE, read(&mut self.stream, &mut self.unread)),
                    if waiting.len() < MAX_PIPELINED =>
                {
                    match read {
                        Ok(true) => {}
                        Err(_) if !waiting.is_empty() => {}
                        Ok(false) | Err(_) => break,
                    }
                }
            }
            while waiting.len() < MAX_PIPELINED {
                let Some(message) = self.next() else { break };
                match self.take(&message) {
                    // A stream that carries noise is not worth keeping, nor that of a stranger.
                    Taken::Nothing => return,
                    Taken::Answer(answer) => {
                        if !self.send(&answer).await {
                            return;
                        }
                    }
                    Taken::Later(job) => {
                        let responder = Arc::clone(&self.responder);
                        waiting.spawn(async move { responder.finish(job).await });
                    }
                }
            }
        }
        while let Some(Ok(answer)) = waiting.join_next().await {
            if !self.send(&answer).await {
                return;
            }
        }
    }

    fn take(&self, message: &[u8]) -> Taken {
        let asker = Asker { client: self.client, transport: Transport::Tcp, since: Instant::now() };
        match self.responder.admit(&asker) {
            Verdict::Answer => self.responder.take(message, asker, rand::random()),
            Verdict::Refuse => refuse(message).map_or(Taken::Nothing, Taken::Answer),
            Verdict::Ignore | Verdict::Limit => Taken::Nothing,
        }
    }

    /// Takes one whole message out of what has been read.
    fn next(&mut self) -> Option<Vec<u8>> {
        let (length, rest) = self.unread.split_first_chunk()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let message = rest.get(..length)?.to_vec();
        self.unread.drain(..length + 2);
        Some(message)
    }

    async fn send(&mut self, answer: &[u8]) -> bool {
        matches!(timeout(WRITE, write_framed(&mut self.stream, answer)).await, Ok(Ok(())))
    }
}

/// Reads some more; false at the end or after a fault. May be cancelled without losing anything.
async fn read(stream: &mut TcpStream, unread: &mut Vec<u8>) -> bool {
    unread.reserve(READ_SIZE);
    matches!(stream.read_buf(unread).await, Ok(1..))
}

/// Writes a message and its length in one go (RFC 7766, section 8).
pub(crate) async fn write_framed(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).map_err(std::io::Error::other)?;
    let mut framed = Vec::with_capacity(message.len() + 2);
    framed.extend_from_slice(&length.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

/// Reads one message.
pub(crate) async fn read_framed(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

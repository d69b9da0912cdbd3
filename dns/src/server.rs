//! The sockets that clients ask on: binds them, reads requests, and does what `respond` says. It decides
//! nothing about names. The daemon calls `start` once; the tasks end when the drain token is cancelled.
//!
//! An answer from the zone is sent from the receiving loop itself. Only a question that must wait, for the
//! first lists or for an upstream, gets a task, and there is a bound on those.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::forward::Forwarder;
use crate::loops;
use crate::metrics::Metrics;
use crate::name::DomainName;
use crate::names::Reader;
use crate::respond::{Reply, Wait, decide, extended, failure, respond};
use crate::tcp;
use crate::upstreams::Upstreams;
use crate::wire::{Rcode, Request, Transport};

/// Questions that may wait for an upstream or the first lists at one time. One waiting costs about 2 KiB.
const MAX_PENDING: usize = 4000;
/// Of these, questions that wait for the first lists: the rest stays free for external names.
const MAX_HELD: usize = 1000;
/// How long a question waits for the first lists: less than a client's shortest usual time-out, 2 s.
const HOLD: Duration = Duration::from_millis(1500);
/// How long the questions under way may take to end once the drain has begun: longer than an upstream may.
const DRAIN: Duration = Duration::from_secs(5);
/// The longest request taken over UDP. No question comes near it.
const MAX_REQUEST: usize = 4096;
/// The kernel's buffer of requests not yet read: a burst of a few thousand.
const RECEIVE_BUFFER: usize = 1 << 20;

/// Where to listen and whom to ask.
#[derive(Debug, Default)]
pub struct Config {
    /// Addresses to bind, UDP and TCP both. Never a wildcard: answers would leave from another address than
    /// the one asked. Port 0 is chosen by the kernel, the same for both.
    pub listen: Vec<SocketAddr>,
    /// Sockets bound already.
    pub sockets: Vec<Bound>,
    /// The upstreams of names that are not ours.
    pub upstreams: Upstreams,
    /// Domains with upstreams of their own. The deepest one counts; names of the cluster are never asked for.
    pub stub_domains: BTreeMap<DomainName, Vec<SocketAddr>>,
}

/// A pair of sockets on one address.
#[derive(Debug)]
pub struct Bound {
    /// For datagrams.
    pub udp: std::net::UdpSocket,
    /// For streams; listening.
    pub tcp: std::net::TcpListener,
}

/// Why the server does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The wildcard address.
    #[error(
        "DNS cannot listen on {0}: give the addresses one by one, so that answers leave from the one asked"
    )]
    Wildcard(SocketAddr),
    /// The port is taken, the address is not here, or there is no permission.
    #[error("DNS cannot listen on {address}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// A server under way.
#[derive(Debug)]
pub struct Server {
    /// The addresses it answers on.
    pub addresses: Vec<SocketAddr>,
    /// Asks upstream; its list can be replaced.
    pub forwarder: Arc<Forwarder>,
    /// The tasks. None ends before the drain but by a fault.
    pub tasks: JoinSet<()>,
}

/// Binds the sockets and starts the tasks. Call inside a tokio runtime.
pub fn start(
    config: Config,
    zone: &Reader,
    metrics: &Metrics,
    drain: &CancellationToken,
) -> Result<Server, StartError> {
    let mut sockets = config.sockets;
    for address in config.listen {
        sockets.push(Bound::bind(address)?);
    }
    let sockets: Vec<_> = sockets.into_iter().map(Bound::listen).collect::<Result<_, _>>()?;
    let addresses: Vec<SocketAddr> = sockets.iter().map(|(address, ..)| *address).collect();
    let upstreams = config.upstreams.without(&addresses);
    let forwarder = Arc::new(Forwarder::new(upstreams.read(), config.stub_domains, metrics.clone()));
    let (pending, held) = (Arc::new(Semaphore::new(MAX_PENDING)), Arc::new(Semaphore::new(MAX_HELD)));
    let mut tasks = JoinSet::new();
    tasks.spawn(upstreams.watch(Arc::clone(&forwarder), drain.clone()));
    tasks.spawn(loops::watch(Arc::clone(&forwarder), drain.clone()));
    for (address, udp, tcp) in sockets {
        let responder = Arc::new(Responder {
            zone: zone.clone(),
            forwarder: Arc::clone(&forwarder),
            metrics: metrics.clone(),
            server: format!("dns://{address}").into(),
            pending: Arc::clone(&pending),
            held: Arc::clone(&held),
        });
        tasks.spawn(serve_udp(udp, Arc::clone(&responder), drain.clone()));
        tasks.spawn(tcp::serve(tcp, responder, drain.clone()));
    }
    Ok(Server { addresses, forwarder, tasks })
}

impl Bound {
    /// Binds both sockets of an address.
    pub fn bind(address: SocketAddr) -> Result<Self, StartError> {
        if address.ip().is_unspecified() {
            return Err(StartError::Wildcard(address));
        }
        let bind = || {
            let udp = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
            // More than the kernel's limit is not given, which is no reason not to serve.
            let _ = udp.set_recv_buffer_size(RECEIVE_BUFFER);
            udp.bind(&address.into())?;
            let udp = std::net::UdpSocket::from(udp);
            let tcp = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            // Connections of a predecessor in TIME_WAIT must not keep the port.
            tcp.set_reuse_address(true)?;
            tcp.bind(&udp.local_addr()?.into())?;
            tcp.listen(tcp::BACKLOG)?;
            Ok(Self { udp, tcp: tcp.into() })
        };
        bind().map_err(|source| StartError::Bind { address, source })
    }

    fn listen(self) -> Result<(SocketAddr, UdpSocket, TcpListener), StartError> {
        let unknown = SocketAddr::from(([0, 0, 0, 0], 0));
        let address = self.udp.local_addr().unwrap_or(unknown);
        let register = || {
            self.udp.set_nonblocking(true)?;
            self.tcp.set_nonblocking(true)?;
            Ok((address, UdpSocket::from_std(self.udp)?, TcpListener::from_std(self.tcp)?))
        };
        register().map_err(|source| StartError::Bind { address, source })
    }
}

async fn serve_udp(socket: UdpSocket, responder: Arc<Responder>, drain: CancellationToken) {
    let socket = Arc::new(socket);
    let mut waiting: JoinSet<()> = JoinSet::new();
    let mut buffer = vec![0; MAX_REQUEST];
    loop {
        let received = tokio::select! {
            () = drain.cancelled() => break,
            Some(_) = waiting.join_next(), if !waiting.is_empty() => continue,
            received = socket.recv_from(&mut buffer) => received,
        };
        let (length, client) = match received {
            Ok(received) => received,
            Err(error) => {
                // The kernel reports a fault of an earlier datagram here; the socket is still good.
                tracing::debug!(%error, "a UDP receive failed");
                continue;
            }
        };
        match responder.take(&buffer[..length], Transport::Udp) {
            Taken::Nothing => {}
            Taken::Answer(answer) => send(&socket, &answer, client).await,
            Taken::Later(job) => {
                let (socket, responder) = (Arc::clone(&socket), Arc::clone(&responder));
                waiting.spawn(async move {
                    let answer = responder.finish(job).await;
                    send(&socket, &answer, client).await;
                });
            }
        }
    }
    let _ = timeout(DRAIN, async { while waiting.join_next().await.is_some() {} }).await;
}

async fn send(socket: &UdpSocket, answer: &[u8], client: SocketAddr) {
    if let Err(error) = socket.send_to(answer, client).await {
        tracing::debug!(%client, %error, "an answer could not be sent");
    }
}

/// What every socket of one address shares.
pub(crate) struct Responder {
    zone: Reader,
    forwarder: Arc<Forwarder>,
    metrics: Metrics,
    server: Arc<str>,
    pending: Arc<Semaphore>,
    held: Arc<Semaphore>,
}

/// What became of a request at once.
pub(crate) enum Taken {
    Nothing,
    Answer(Vec<u8>),
    Later(Job),
}

/// A request that has to wait.
pub(crate) struct Job {
    request: Request,
    wait: Wait,
    message: Vec<u8>,
    since: Instant,
    _place: OwnedSemaphorePermit,
}

impl Responder {
    /// Takes in a request.
    pub(crate) fn take(&self, message: &[u8], transport: Transport) -> Taken {
        let since = Instant::now();
        let answer = match self.zone.read(|zone| respond(zone, message, transport, rand::random())) {
            Reply::Drop => return Taken::Nothing,
            Reply::Send(answer) => answer,
            Reply::Wait(request, wait) => match self.known(&request, &wait) {
                Some(answer) => answer,
                None => match Arc::clone(&self.pending).try_acquire_owned() {
                    Ok(place) => {
                        let message = message.to_vec();
                        return Taken::Later(Job { request, wait, message, since, _place: place });
                    }
                    Err(_) => self.shed(&request),
                },
            },
        };
        self.count(message, &answer, (transport, since));
        Taken::Answer(answer)
    }

    fn known(&self, request: &Request, wait: &Wait) -> Option<Vec<u8>> {
        match wait {
            Wait::Upstream => self.forwarder.known(request),
            Wait::Lists | Wait::Alias(..) => None,
        }
    }

    /// Answers a request that has to wait. Bounded in time.
    pub(crate) async fn finish(&self, job: Job) -> Vec<u8> {
        let Job { request, wait, message, since, _place } = job;
        let transport = request.transport;
        let answer = match wait {
            Wait::Lists => self.hold(request).await,
            Wait::Upstream | Wait::Alias(..) => self.ask(&request, wait).await,
        };
        self.count(&message, &answer, (transport, since));
        answer
    }

    /// Waits for the first lists, then answers.
    async fn hold(&self, request: Request) -> Vec<u8> {
        let Ok(place) = self.held.try_acquire() else { return self.shed(&request) };
        let listed = timeout(HOLD, self.zone.wait_ready()).await;
        drop(place);
        if listed.is_err() {
            return failure(&request, Rcode::SERV_FAIL, Some(extended::NOT_READY));
        }
        match self.zone.read(|zone| decide(zone, request, rand::random())) {
            Reply::Send(answer) => answer,
            Reply::Wait(request, wait) => self.ask(&request, wait).await,
            Reply::Drop => Vec::new(),
        }
    }

    async fn ask(&self, request: &Request, wait: Wait) -> Vec<u8> {
        match wait {
            Wait::Upstream => self.forwarder.relay(request).await,
            Wait::Alias(chain, name) => self.forwarder.chase(request, chain, name).await,
            Wait::Lists => failure(request, Rcode::SERV_FAIL, Some(extended::NOT_READY)),
        }
    }

    fn shed(&self, request: &Request) -> Vec<u8> {
        self.metrics.shed.inc();
        failure(request, Rcode::SERV_FAIL, Some(extended::BUSY))
    }

    fn count(&self, message: &[u8], answer: &[u8], (transport, since): (Transport, Instant)) {
        self.metrics.count(&self.server, message, answer, (transport, since.elapsed()));
    }
}

//! The sockets that clients ask on: binds them, and starts the threads and tasks that serve them. The daemon
//! calls `start` once; everything ends when the drain token is cancelled, or with the tasks.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::access::Access;
use crate::forward::Forwarder;
use crate::loops;
use crate::metrics::Metrics;
use crate::name::DomainName;
use crate::names::Reader;
use crate::responder::{Responder, Shared};
use crate::tcp;
use crate::upstreams::Upstreams;
use crate::worker;

/// Sockets, each with a thread, on one address: more than a few cores would only ask, not be answered faster.
const MAX_WORKERS: usize = 4;
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
    /// Who is answered.
    pub access: Arc<Access>,
    /// One question in so many is logged, at level INFO of the target `dns::queries`; none if 0.
    pub log_every: u32,
}

/// The sockets on one address.
#[derive(Debug)]
pub struct Bound {
    /// For datagrams: the kernel shares the clients out over them.
    pub udp: Vec<std::net::UdpSocket>,
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
    let addresses: Vec<SocketAddr> = sockets.iter().map(Bound::address).collect();
    let upstreams = config.upstreams.without(&addresses);
    let forwarder = Arc::new(Forwarder::new(upstreams.read(), config.stub_domains, metrics.clone()));
    let mut tasks = JoinSet::new();
    tasks.spawn(upstreams.watch(Arc::clone(&forwarder), drain.clone()));
    tasks.spawn(loops::watch(Arc::clone(&forwarder), drain.clone()));
    let shared = Shared {
        zone: zone.clone(),
        forwarder: Arc::clone(&forwarder),
        access: config.access,
        log_every: config.log_every.into(),
        places: Arc::default(),
        started: Instant::now(),
    };
    for bound in sockets {
        let address = bound.address();
        let (udp, tcp) = bound.ready().map_err(|source| StartError::Bind { address, source })?;
        let server = metrics.server(&format!("dns://{address}"));
        let responder = Arc::new(Responder::new(shared.clone(), server));
        tasks.spawn(worker::serve(udp, Arc::clone(&responder), drain.clone()));
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
            let first = udp_socket(address)?;
            // Alone at first, so that an address that somebody else has is not shared with them. Only then may
            // others join, which are ours: the kernel looks at both sockets' option when the second is bound.
            first.bind(&address.into())?;
            first.set_reuse_port(true)?;
            let first = std::net::UdpSocket::from(first);
            let address = first.local_addr()?;
            let mut udp = vec![first];
            for _ in 1..workers() {
                let next = udp_socket(address)?;
                next.set_reuse_port(true)?;
                next.bind(&address.into())?;
                udp.push(next.into());
            }
            let tcp = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            // Connections of a predecessor in TIME_WAIT must not keep the port.
            tcp.set_reuse_address(true)?;
            tcp.bind(&address.into())?;
            tcp.listen(tcp::BACKLOG)?;
            Ok(Self { udp, tcp: tcp.into() })
        };
        bind().map_err(|source| StartError::Bind { address, source })
    }

    /// Sockets that another process bound, by address. What is none of ours is closed.
    pub fn adopt(descriptors: Vec<OwnedFd>) -> Vec<Self> {
        let mut datagrams: BTreeMap<SocketAddr, Vec<std::net::UdpSocket>> = BTreeMap::new();
        let mut streams = Vec::new();
        for socket in descriptors.into_iter().map(Socket::from) {
            let address = socket.local_addr().ok().and_then(|address| address.as_socket());
            match (address, socket.r#type()) {
                (Some(address), Ok(Type::DGRAM)) => datagrams.entry(address).or_default().push(socket.into()),
                (Some(address), Ok(Type::STREAM)) => streams.push((address, socket.into())),
                (Some(_) | None, _) => {}
            }
        }
        let pairs = streams
            .into_iter()
            .filter_map(|(address, tcp)| datagrams.remove(&address).map(|udp| Self { udp, tcp }));
        pairs.collect()
    }

    /// Further descriptors of the same sockets, for another process to adopt.
    ///
    /// # Errors
    /// There are too many descriptors.
    pub fn share(&self) -> io::Result<Vec<OwnedFd>> {
        let udp = self.udp.iter().map(|socket| socket.as_fd().try_clone_to_owned());
        udp.chain([self.tcp.as_fd().try_clone_to_owned()]).collect()
    }

    /// The address of all of them.
    pub fn address(&self) -> SocketAddr {
        let address = self.tcp.local_addr();
        address.unwrap_or_else(|_| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Set as those need them who serve: datagrams by threads that wait, streams by tasks that may not.
    fn ready(self) -> io::Result<(Vec<std::net::UdpSocket>, TcpListener)> {
        for udp in &self.udp {
            udp.set_nonblocking(false)?;
            udp.set_read_timeout(Some(worker::LOOK))?;
        }
        self.tcp.set_nonblocking(true)?;
        Ok((self.udp, TcpListener::from_std(self.tcp)?))
    }
}

fn udp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // More than the kernel's limit is not given, which is no reason not to serve.
    let _ = socket.set_recv_buffer_size(RECEIVE_BUFFER);
    Ok(socket)
}

fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(MAX_WORKERS)
}

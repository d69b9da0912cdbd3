//! The private frontend: UDP port 1 of loopback, which leads to a socket of this process on port 2. A datagram
//! through it shows that the hooks run and translate, as no list of attached programs can. It never leaves the
//! machine: without hooks it goes to a port of loopback where nobody listens.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ebpf::backend::CLUSTER;
use ebpf::frontend::FrontendWord;
use model::{ObjectName, Protocol};

use crate::cgroup::Cgroup;
use crate::tables::{Block, Family, Frontend, ServiceKey, Slot, Tables, Target};

/// TCPMUX, which is a service of TCP alone.
const PORT: u16 = 1;
/// Always the same, so that a restart finds the maps as it wants them; taken, any other does.
const SERVER_PORT: u16 = 2;
/// Loopback delivers at once; a busy machine takes longer to wake nobody.
const PATIENCE: Duration = Duration::from_millis(500);
const QUESTION: &[u8] = b"fairway?";
const ANSWER: &[u8] = b"fairway!";
const NAME: &str = "(probe)";

/// The sockets behind the frontend, one a family that this node has.
#[derive(Debug)]
pub(crate) struct Probe(Vec<UdpSocket>);

/// Whether a service is the probe's own, which nobody asked for.
pub(crate) fn is_probe(name: &ObjectName) -> bool {
    name.namespace.is_empty() && &*name.name == NAME
}

impl Probe {
    /// Binds the sockets. A family that this node does not have is left out; so are both where this process is
    /// not in the cgroup whose sockets are balanced.
    pub(crate) fn open(cgroup: &Path) -> Self {
        if !is_in(cgroup) {
            tracing::info!(cgroup = %cgroup.display(), "this process is not in it, so the self-check asks nothing through a frontend");
            return Self(Vec::new());
        }
        let bind = |ip: IpAddr| {
            let socket = UdpSocket::bind((ip, SERVER_PORT)).or_else(|_| UdpSocket::bind((ip, 0)))?;
            socket.set_read_timeout(Some(PATIENCE)).map(|()| socket)
        };
        let sockets = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()].map(bind);
        Self(sockets.into_iter().filter_map(Result::ok).collect())
    }

    /// Adds the frontend to what is wanted.
    pub(crate) fn add_to(&self, tables: &mut Tables) {
        for backend in self.0.iter().filter_map(|socket| socket.local_addr().ok()) {
            let key = key(Family::of(backend.ip()));
            let frontend = Frontend::new(backend.ip(), PORT, Protocol::Udp);
            let slot = Slot { ip: backend.ip(), port: backend.port(), windows: CLUSTER };
            tables.frontends.insert(frontend, Target::Service(key.clone(), FrontendWord::NODE_ONLY));
            tables.services.insert(key, Arc::new(Block::new(0, vec![slot])));
        }
    }

    /// Takes the frontend out of what is shown.
    pub(crate) fn remove_from(tables: &mut Tables) {
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            tables.frontends.remove(&Frontend::new(ip, PORT, Protocol::Udp));
            tables.services.remove(&key(Family::of(ip)));
        }
    }

    /// Asks through the frontend: from a connected socket, and from one that is not.
    pub(crate) fn ask(&self) -> Result<(), String> {
        for socket in &self.0 {
            let ip = socket.local_addr().map_err(|error| error.to_string())?.ip();
            let frontend = SocketAddr::new(ip, PORT);
            for connected in [true, false] {
                exchange(socket, frontend, connected).map_err(|error| {
                    let how = if connected { "connected" } else { "unconnected" };
                    format!("a datagram of a socket that is {how} does not pass the private frontend {frontend}: {error}")
                })?;
            }
        }
        Ok(())
    }
}

/// Whether this process is in the cgroup, as far as can be told.
fn is_in(cgroup: &Path) -> bool {
    let own = Cgroup::of(Path::new("/proc/self"));
    let held = Cgroup::at(cgroup).ok().zip(own).and_then(|(cgroup, (own, _))| cgroup.holds(&own));
    held.unwrap_or(true)
}

fn key(family: Family) -> ServiceKey {
    ServiceKey::new(ObjectName::cluster_scoped(NAME), "".into(), Protocol::Udp, family)
}

/// One question and its answer, which must seem to come from the frontend.
fn exchange(server: &UdpSocket, frontend: SocketAddr, connected: bool) -> io::Result<()> {
    let client = UdpSocket::bind((frontend.ip(), 0))?;
    client.set_read_timeout(Some(PATIENCE))?;
    if connected {
        client.connect(frontend)?;
        client.send(QUESTION)?;
    } else {
        client.send_to(QUESTION, frontend)?;
    }
    let asked = client.local_addr()?;
    let mut buffer = [0; 16];
    let silence = |error: io::Error| match error.kind() == io::ErrorKind::WouldBlock {
        true => io::Error::other(format!("nothing came within {PATIENCE:?}")),
        false => error,
    };
    // What an earlier, failed round left behind is of another client.
    while server.recv_from(&mut buffer).map_err(silence)?.1 != asked {}
    server.send_to(ANSWER, asked)?;
    let (_, from) = client.recv_from(&mut buffer).map_err(silence)?;
    if from == frontend {
        return Ok(());
    }
    Err(io::Error::other(format!("its answer seems to come from {from}")))
}

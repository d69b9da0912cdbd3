//! Which servers to ask: those of the node's resolv.conf, without stubs and without ourselves. `choose` is
//! pure; the rest reads the files, and looks again every few seconds. Used by `server`.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::forward::Forwarder;

/// The port of DNS.
const PORT: u16 = 53;
/// How often the files are read again. They change with the node's network, and are replaced by renaming,
/// which a watch on the file would lose.
const PERIOD: Duration = Duration::from_secs(5);
/// More are not asked; libc stops at three.
const MAX_UPSTREAMS: usize = 8;

/// Where the upstreams come from.
#[derive(Clone, Debug)]
pub enum Upstreams {
    /// As given.
    Fixed(Vec<SocketAddr>),
    /// From the node's files.
    Files {
        /// `/etc/resolv.conf`.
        resolv_conf: PathBuf,
        /// `/run/systemd/resolve/resolv.conf`: the servers behind the stub.
        behind_stub: PathBuf,
        /// Addresses that lead to us besides those we listen on: asking ourselves would be a loop.
        own: Vec<SocketAddr>,
    },
}

impl Default for Upstreams {
    fn default() -> Self {
        Self::of_node(Vec::new())
    }
}

impl Upstreams {
    /// Those of this node, without our own addresses.
    pub fn of_node(own: Vec<SocketAddr>) -> Self {
        Self::Files {
            resolv_conf: "/etc/resolv.conf".into(),
            behind_stub: "/run/systemd/resolve/resolv.conf".into(),
            own,
        }
    }

    /// The same without these addresses, which turned out to be ours too.
    pub(crate) fn without(mut self, addresses: &[SocketAddr]) -> Self {
        if let Self::Files { own, .. } = &mut self {
            own.extend(addresses);
        }
        self
    }

    /// The upstreams as of now. A file that cannot be read has none.
    pub fn read(&self) -> Vec<SocketAddr> {
        match self {
            Self::Fixed(addresses) => addresses.clone(),
            Self::Files { resolv_conf, behind_stub, own } => {
                choose(&text(resolv_conf), &text(behind_stub), own)
            }
        }
    }

    /// Keeps a forwarder's list as the files say, until the drain.
    pub(crate) async fn watch(self, forwarder: Arc<Forwarder>, drain: CancellationToken) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = drain.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let Self::Files { .. } = self else { continue };
            let now = self.read();
            if now != forwarder.upstreams() {
                tracing::info!(upstreams = ?now, "the upstream DNS servers changed");
                forwarder.replace(now);
            }
        }
    }
}

/// The servers that two files name: those of the first, or of the second where the first names a stub.
pub fn choose(resolv_conf: &str, behind_stub: &str, own: &[SocketAddr]) -> Vec<SocketAddr> {
    let direct = nameservers(resolv_conf);
    let stub = direct.iter().any(|server| is_stub(server.ip()));
    let chosen = if stub { nameservers(behind_stub) } else { direct.clone() };
    // A stub with nothing known behind it is better than nothing: it forwards too.
    let mut chosen = if stub && chosen.is_empty() { direct } else { chosen };
    chosen.retain(|server| !own.contains(server) && !server.ip().is_unspecified());
    let mut seen = Vec::new();
    chosen.retain(|server| {
        !seen.contains(server) && {
            seen.push(*server);
            true
        }
    });
    chosen.truncate(MAX_UPSTREAMS);
    chosen
}

/// The `nameserver` lines of a resolv.conf, in order (resolv.conf(5)).
fn nameservers(text: &str) -> Vec<SocketAddr> {
    let lines = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten()
    });
    lines.filter_map(address).collect()
}

/// An address, with its interface by number where it is link-local.
fn address(word: &str) -> Option<SocketAddr> {
    match word.split_once('%') {
        Some((ip, scope)) => Some(SocketAddrV6::new(ip.parse().ok()?, PORT, 0, scope.parse().ok()?).into()),
        None => Some(SocketAddr::new(word.parse().ok()?, PORT)),
    }
}

/// systemd-resolved's stubs.
fn is_stub(ip: IpAddr) -> bool {
    ip == IpAddr::from([127, 0, 0, 53]) || ip == IpAddr::from([127, 0, 0, 54])
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| {
        tracing::debug!(path = %path.display(), %error, "no upstreams from this file");
        String::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(resolv_conf: &str, behind_stub: &str, expect: &[&str]) {
        let own = ["10.96.0.10:53", "169.254.20.10:53", "192.0.2.1:5353"].map(|own| own.parse().unwrap());
        let chosen: Vec<String> =
            choose(resolv_conf, behind_stub, &own).iter().map(ToString::to_string).collect();
        assert_eq!(chosen, expect);
    }

    #[test]
    fn servers_are_read_in_order_and_once() {
        let text =
            "# head\nsearch a b\nnameserver 192.0.2.1\n nameserver\t2001:db8::1 tail\nnameserver 192.0.2.1\n";
        check(text, "nameserver 192.0.2.9", &["192.0.2.1:53", "[2001:db8::1]:53"]);
        check("nameserver fe80::1%2\nnameserver x\nnameserver\nnameserverx 1.1.1.1", "", &["[fe80::1%2]:53"]);
        check("", "nameserver 192.0.2.9", &[]);
    }

    #[test]
    fn a_stub_is_looked_behind() {
        check("nameserver 127.0.0.53\noptions edns0", "nameserver 192.0.2.9", &["192.0.2.9:53"]);
        check("nameserver 127.0.0.53", "", &["127.0.0.53:53"]);
    }

    #[test]
    fn we_never_ask_ourselves() {
        check("nameserver 10.96.0.10\nnameserver 192.0.2.1\nnameserver 0.0.0.0", "", &["192.0.2.1:53"]);
        check("nameserver 127.0.0.53", "nameserver 169.254.20.10", &[]);
    }
}

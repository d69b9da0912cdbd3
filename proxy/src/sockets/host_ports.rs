//! Where a port of the node leads now, looked up as the hooks do: a socket that was led elsewhere has lost its pod.
//! Only read; the terminator asks for each socket that went through such a port.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use ebpf::address::{Address, Port};
use ebpf::frontend::{FrontendKey, UDP};
use ebpf::hostport::{HostPortWord, on_any_address, pod_behind};
use ebpf::pod::PodAddresses;

use crate::sys;

/// The two maps that say it.
#[derive(Debug)]
pub(super) struct HostPorts {
    ports: OwnedFd,
    pods: OwnedFd,
}

impl HostPorts {
    pub(super) const fn new(ports: OwnedFd, pods: OwnedFd) -> Self {
        Self { ports, pods }
    }

    /// Whether datagrams to `dialled` are still led to `pod`.
    pub(super) fn lead(&self, dialled: SocketAddr, pod: SocketAddr) -> io::Result<bool> {
        let key = FrontendKey::new(Address::from(dialled.ip()), Port::new(dialled.port()), UDP);
        for key in [key, on_any_address(&key)] {
            let word: Option<u64> = sys::lookup(self.ports.as_fd(), &key)?;
            let Some(word) = word.map(HostPortWord) else { continue };
            let addresses: Option<PodAddresses> =
                sys::lookup(self.pods.as_fd(), &pod_behind(word.host_end()))?;
            let is_pod = |found: PodAddresses| {
                let wanted = Address::from(pod.ip());
                found.ipv4.is(&wanted) || found.ipv6.is(&wanted)
            };
            return Ok(word.port().number() == pod.port() && addresses.is_some_and(is_pod));
        }
        Ok(false)
    }
}

//! Where a port of the node leads now, looked up as the hooks do: a socket that was led elsewhere has lost its pod, and
//! one that goes straight to such a port was there before its pod. Only read; the terminator asks for each of them.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use ebpf::address::{Address, Port};
use ebpf::frontend::{FrontendKey, UDP};
use ebpf::hostport::{HostPortWord, on_any_address, pod_behind};
use ebpf::packet::uplink::range;
use ebpf::pod::PodAddresses;

use crate::sys;

/// The maps that say it.
#[derive(Debug)]
pub(super) struct HostPorts {
    ports: OwnedFd,
    pods: OwnedFd,
    /// Which addresses are the node's.
    ranges: OwnedFd,
    /// The cookie of the node's network namespace.
    node: u64,
}

/// Key of `ranges`: bits that count, address.
#[repr(C)]
struct Range(u32, Address);

impl HostPorts {
    /// For the node whose namespace this thread is in.
    pub(super) fn new(ports: OwnedFd, pods: OwnedFd, ranges: OwnedFd) -> io::Result<Self> {
        Ok(Self { ports, pods, ranges, node: sys::netns_cookie()? })
    }

    /// Every port that leads to a pod on some address.
    pub(super) fn numbers(&self) -> io::Result<HashSet<u16>> {
        let entries = sys::elements::<[u8; size_of::<FrontendKey>()], u64>(self.ports.as_fd())?;
        Ok(entries.into_iter().map(|(key, _)| FrontendKey::from_bytes(&key).port().number()).collect())
    }

    /// Whether datagrams to `dialled` are still led to `pod`.
    pub(super) fn lead(&self, dialled: SocketAddr, pod: SocketAddr) -> io::Result<bool> {
        let Some((_, word)) = self.word(dialled)? else { return Ok(false) };
        let is_pod = |found: PodAddresses| {
            let wanted = Address::from(pod.ip());
            found.ipv4.is(&wanted) || found.ipv6.is(&wanted)
        };
        Ok(word.port().number() == pod.port() && self.pod(pod_behind(word.host_end()))?.is_some_and(is_pod))
    }

    /// Whether a socket that goes straight to `dialled`, in the namespace with this cookie, would be led to a pod if it
    /// were connected now: on the node or in a pod of it, as `ebpf::hostport::lead` says.
    pub(super) fn have_come(&self, dialled: SocketAddr, cookie: u64) -> io::Result<bool> {
        let Some((key, word)) = self.word(dialled)? else { return Ok(false) };
        let (address, is_node) = (Address::from(dialled.ip()), cookie == self.node);
        let is_here = is_node || !address.is_loopback() && self.pod(cookie)?.is_some();
        if !is_here || !key.address().is(&address) && !self.is_own(address)? {
            return Ok(false);
        }
        let family = |pod: PodAddresses| if address.is_ipv4() { pod.ipv4 } else { pod.ipv6 };
        Ok(self.pod(pod_behind(word.host_end()))?.is_some_and(|pod| !family(pod).is_none()))
    }

    /// What stands for `dialled`, and under which key.
    fn word(&self, dialled: SocketAddr) -> io::Result<Option<(FrontendKey, HostPortWord)>> {
        let key = FrontendKey::new(Address::from(dialled.ip()), Port::new(dialled.port()), UDP);
        for key in [key, on_any_address(&key)] {
            if let Some(word) = sys::lookup(self.ports.as_fd(), &key)? {
                return Ok(Some((key, HostPortWord(word))));
            }
        }
        Ok(None)
    }

    fn pod(&self, key: u64) -> io::Result<Option<PodAddresses>> {
        sys::lookup(self.pods.as_fd(), &key)
    }

    fn is_own(&self, address: Address) -> io::Result<bool> {
        let flags: Option<u32> = sys::lookup(self.ranges.as_fd(), &Range(128, address))?;
        Ok(flags.is_some_and(|flags| flags & range::NODE != 0))
    }
}

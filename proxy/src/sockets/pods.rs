//! Pods of other runtimes: which namespace has the addresses of which Pod, so that affinity knows its clients.
//! What the walk over the namespaces sees is compared with the Pods of this node; it owns the map `found`.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use ebpf::address::Address;
use model::Snapshot;

use crate::sys;

/// What is said of a namespace, as the map has it: IPv4, IPv6.
type Addresses = [u8; 32];

/// One walk: the namespaces whose addresses are those of a Pod.
#[derive(Debug)]
pub(super) struct Finding {
    /// Every address of a Pod that has a network of its own.
    wanted: HashSet<IpAddr>,
    found: BTreeMap<u64, Addresses>,
}

impl Finding {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        let own = snapshot.pods.values().filter(|pod| !pod.host_network);
        Self { wanted: own.flat_map(|pod| pod.addresses.iter().copied()).collect(), found: BTreeMap::new() }
    }

    /// Looks at the addresses of the namespace of this thread.
    pub(super) fn look(&mut self, cookie: u64) -> io::Result<()> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        let mut value = [0; 32];
        for ip in sys::own_addresses()?.into_iter().filter(|ip| self.wanted.contains(ip)) {
            let half = if ip.is_ipv4() { 0..16 } else { 16..32 };
            value[half].copy_from_slice(&Address::from(ip).bytes());
        }
        if value != [0; 32] {
            self.found.insert(cookie, value);
        }
        Ok(())
    }

    /// Makes the map say what was found, and nothing else.
    pub(super) fn write(&self, map: &OwnedFd) -> io::Result<()> {
        let mut known: BTreeMap<u64, Addresses> = sys::elements(map.as_fd())?.into_iter().collect();
        for (cookie, value) in &self.found {
            if known.remove(cookie) != Some(*value) {
                sys::insert(map.as_fd(), cookie, value, true)?;
            }
        }
        known.into_keys().try_for_each(|cookie| sys::remove(map.as_fd(), &cookie).map(drop))
    }
}

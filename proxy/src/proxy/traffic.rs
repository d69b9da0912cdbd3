//! What the kernel counts by the way, by the names of the tables: connections of each service and each backend.
//! Only read; called for the listings and the metrics.

use std::collections::{BTreeMap, HashMap};
use std::io;

use model::ObjectName;

use super::Proxy;
use crate::adopt::Contents;
use crate::counts::Count;
use crate::probe::is_probe;
use crate::tables::{ServiceKey, Slot};

/// One backend of a service port, with its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendState {
    /// The service port.
    pub service: ServiceKey,
    /// The slot.
    pub slot: Slot,
    /// Its connections.
    pub count: Count,
}

/// All connections, as of now.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// By service, those of backends that have left included.
    pub services: BTreeMap<ObjectName, Count>,
    /// Every backend, in order, and how many sockets are connected to it.
    pub backends: Vec<(BackendState, u64)>,
}

impl Proxy {
    /// Every backend with its counters, in order.
    pub fn backends(&self) -> impl Iterator<Item = BackendState> + '_ {
        self.each_backend().map(|(_, state)| state)
    }

    /// Connections since the start, by service: those of backends that have left included.
    pub fn counts(&self) -> BTreeMap<ObjectName, Count> {
        let counts = self.current.as_ref().map(|current| self.counts.by_service(current, &self.kernel));
        counts.unwrap_or_default()
    }

    /// The counters, and what is open: counted by the records of the sockets, since a flow of an unconnected socket
    /// is opened and never closed.
    ///
    /// # Errors
    ///
    /// If the kernel does not list the records.
    pub fn traffic(&self) -> io::Result<Traffic> {
        let open = self.connected()?;
        let backends = self.each_backend().map(|(id, state)| (state, open.get(&id).copied().unwrap_or(0)));
        Ok(Traffic { services: self.counts(), backends: backends.collect() })
    }

    /// Connected sockets by the id of their backend.
    fn connected(&self) -> io::Result<HashMap<u32, u64>> {
        let ids = self.kernel.sizes().backends;
        let mut open = HashMap::new();
        for record in self.terminator.records()?.values() {
            let id = record.backend();
            if id < ids && record.led_to(&self.kernel.backend(id)) {
                *open.entry(id).or_default() += 1;
            }
        }
        Ok(open)
    }

    fn each_backend(&self) -> impl Iterator<Item = (u32, BackendState)> {
        let state = |service: &ServiceKey, slot: &Slot, id: u32| BackendState {
            service: service.clone(),
            slot: *slot,
            count: self.kernel.count_of_backend(id),
        };
        self.current.iter().flat_map(move |current| {
            let services = current.tables().services.iter();
            services.filter(|(key, _)| !is_probe(&key.name)).flat_map(move |(key, block)| {
                let ids = current.backend_ids(key).iter();
                std::iter::zip(&block.slots, ids).map(move |(slot, &id)| (id, state(key, slot, id)))
            })
        })
    }
}

//! A Service together with its EndpointSlices: the unit of change, of planning and of naming. Merging happens
//! here, on demand, so that an endpoint is stored once.

use std::net::IpAddr;
use std::sync::Arc;

use crate::endpoint::{Conditions, Endpoint, EndpointSlice};
use crate::service::{Service, ServicePort};

/// A Service and the slices that name it, ordered by slice name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The Service.
    pub service: Arc<Service>,
    /// Its slices.
    pub slices: Vec<Arc<EndpointSlice>>,
}

/// One address and port that serves a service port, merged over all slices (R11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortEndpoint<'a> {
    /// The address.
    pub address: IpAddr,
    /// The port it listens on. Host byte order.
    pub port: u16,
    /// Ready or serving if any slice says so, terminating only if all do.
    pub conditions: Conditions,
    /// On the node that was asked about, if any slice says so.
    pub local: bool,
    /// The endpoint in the first slice that has it: for its zone, hints, hostname and pod.
    pub endpoint: &'a Endpoint,
}

impl Member {
    /// The endpoints of one service port, each address and port once, ordered by address and port. `node` is
    /// the name of the node that counts as local.
    pub fn endpoints(&self, port: &ServicePort, node: &str) -> Vec<PortEndpoint<'_>> {
        let mut found = Vec::with_capacity(self.slices.iter().map(|slice| slice.endpoints.len()).sum());
        for slice in &self.slices {
            let numbers = slice.ports.iter().filter(|p| p.name == port.name && p.protocol == port.protocol);
            for number in numbers.map(|p| p.port) {
                found
                    .extend(slice.endpoints.iter().map(|endpoint| PortEndpoint::new(endpoint, number, node)));
            }
        }
        // Stable: of equal ones the first is that of the first slice.
        found.sort_by_key(|endpoint| (endpoint.address, endpoint.port));
        found.dedup_by(|later, first| {
            let is_same = (later.address, later.port) == (first.address, first.port);
            if is_same {
                first.merge(later);
            }
            is_same
        });
        found
    }

    /// Every endpoint of every slice, in slice order and with duplicates; for names, which do not ask for a
    /// port.
    pub fn all_endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.slices.iter().flat_map(|slice| &slice.endpoints)
    }
}

impl<'a> PortEndpoint<'a> {
    fn new(endpoint: &'a Endpoint, port: u16, node: &str) -> Self {
        let local = endpoint.node().is_some_and(|name| **name == *node);
        Self { address: endpoint.address, port, conditions: endpoint.conditions, local, endpoint }
    }

    fn merge(&mut self, other: &Self) {
        self.conditions.ready |= other.conditions.ready;
        self.conditions.serving |= other.conditions.serving;
        self.conditions.terminating &= other.conditions.terminating;
        self.local |= other.local;
    }
}

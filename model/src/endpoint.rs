//! EndpointSlices (`discovery.k8s.io/v1`) and the legacy Endpoints (`core/v1`), as plain values.
//!
//! Sources skip what R11 says to skip before they build these: FQDN slices, nil or 0 port numbers, empty
//! address lists. Consumers read an endpoint's first address only, as the API asks.

use std::net::IpAddr;
use std::sync::Arc;

use crate::name::{Name, ObjectName};
use crate::service::Protocol;

/// One EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Namespace and name of the slice.
    pub name: ObjectName,
    /// The label `kubernetes.io/service-name`: the service it belongs to, in the same namespace.
    pub service: Name,
    /// The ports that every endpoint of the slice has.
    pub ports: Vec<EndpointPort>,
    /// The endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A port of a slice. It answers the service port of the same name and protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPort {
    /// The port's name; "" for the unnamed port (a nil name is that too).
    pub name: Name,
    /// The transport protocol.
    pub protocol: Protocol,
    /// The number the endpoint listens on. Host byte order, never 0.
    pub port: u16,
}

/// One endpoint of a slice. A large cluster has 250,000 of them, so what many have in common is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Where it listens.
    pub address: IpAddr,
    /// Its conditions, nil values resolved (R1).
    pub conditions: Conditions,
    /// `nodeName` and `zone`; None where it has neither.
    pub location: Option<Arc<Location>>,
    /// `hostname`: it has a DNS name of its own below a headless service.
    pub hostname: Option<Name>,
    /// `hints`.
    pub hints: Option<Arc<Hints>>,
    /// `targetRef`, where it names a Pod: one of the slice's namespace. No two endpoints share it.
    pub pod: Option<Box<str>>,
}

// Beside its names, an endpoint at the size of the design takes 18 MB; a field more is a decision.
const _: () = assert!(size_of::<Endpoint>() <= 72);

/// Where an endpoint runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Location {
    /// `nodeName`.
    pub node: Option<Name>,
    /// `zone`.
    pub zone: Option<Name>,
}

/// `conditions`, with nil resolved: ready and serving default to true, terminating to false (R1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// Takes new connections.
    pub ready: bool,
    /// Answers, whether or not it is terminating.
    pub serving: bool,
    /// Is on its way out.
    pub terminating: bool,
}

/// `hints` (KEP-2433, KEP-4444).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `forZones`.
    pub zones: Vec<Name>,
    /// `forNodes`.
    pub nodes: Vec<Name>,
}

/// A legacy Endpoints object (R17).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Namespace and name: the name is that of the service.
    pub name: ObjectName,
    /// `subsets`.
    pub subsets: Vec<EndpointsSubset>,
}

/// One subset: every endpoint has every port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointsSubset {
    /// `addresses` (ready) and `notReadyAddresses` (not).
    pub endpoints: Vec<Endpoint>,
    /// `ports`.
    pub ports: Vec<EndpointPort>,
}

impl Endpoint {
    /// Its node, where known.
    pub fn node(&self) -> Option<&Name> {
        self.location.as_ref()?.node.as_ref()
    }

    /// Its zone, where known.
    pub fn zone(&self) -> Option<&Name> {
        self.location.as_ref()?.zone.as_ref()
    }
}

impl Location {
    /// A node and a zone, as an endpoint has them.
    pub fn new(node: Option<Name>, zone: Option<Name>) -> Option<Arc<Self>> {
        (node.is_some() || zone.is_some()).then(|| Arc::new(Self { node, zone }))
    }
}

impl Conditions {
    /// What unset conditions mean.
    pub const READY: Self = Self { ready: true, serving: true, terminating: false };

    /// Usable only while no ready endpoint is left (R1, KEP-1669).
    pub const fn is_fallback(self) -> bool {
        self.serving && self.terminating && !self.ready
    }
}

impl Endpoints {
    /// The slices that say the same, one a subset, as the mirroring controller makes them (R17).
    pub fn slices(&self) -> Vec<EndpointSlice> {
        self.subsets.iter().enumerate().map(|(index, subset)| self.slice(index, subset)).collect()
    }

    fn slice(&self, index: usize, subset: &EndpointsSubset) -> EndpointSlice {
        EndpointSlice {
            // No API object can have a name with a colon, so these never meet a real slice.
            name: ObjectName::new(
                self.name.namespace.clone(),
                format!("endpoints:{}:{index}", self.name.name),
            ),
            service: self.name.name.clone(),
            ports: subset.ports.clone(),
            endpoints: subset.endpoints.clone(),
        }
    }
}

//! What the cluster says, as plain values: Service, EndpointSlice, Endpoint, Node, Pod, Namespace.
//!
//! A source turns what it sees into an [`Event`]; [`Cluster::apply`] is the pure reducer that holds the
//! state being built; [`Snapshot`] is the immutable view that every consumer plans from. No I/O, no async,
//! no clock, no logging: everything here is a function of its arguments.

mod cluster;
mod endpoint;
mod event;
mod intern;
mod member;
mod name;
mod node;
mod service;
mod snapshot;
#[cfg(feature = "testing")]
pub mod testing;

pub use cluster::Cluster;
pub use endpoint::{
    Conditions, Endpoint, EndpointPort, EndpointSlice, Endpoints, EndpointsSubset, Hints, Location,
};
pub use event::{Event, Kind, Object};
pub use intern::Interner;
pub use member::{Member, PortEndpoint};
pub use name::{Name, ObjectName};
pub use node::{Node, Pod};
pub use service::{
    Affinity, ClusterIps, IngressMode, LoadBalancer, LoadBalancerIp, Protocol, Service, ServiceKind,
    ServicePort, Traffic, TrafficPolicy,
};
pub use snapshot::{Changed, Listed, Snapshot};

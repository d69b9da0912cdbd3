//! A change that a source has seen. Both sources speak this one language over one channel; `Cluster::apply` is
//! its only reader.

use crate::endpoint::{EndpointSlice, Endpoints};
use crate::name::{Name, ObjectName};
use crate::node::{Node, Pod};
use crate::service::Service;

/// A change seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The object now is this.
    Apply(Object),
    /// The object is gone.
    Delete(Kind, ObjectName),
    /// A complete list of the kind: what it lacks is gone (R10). The objects are all of that kind. The first
    /// one of a kind completes its list.
    Replace(Kind, Vec<Object>),
}

/// An object of a kind that Fairway watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Object {
    /// A Service.
    Service(Service),
    /// An EndpointSlice.
    EndpointSlice(EndpointSlice),
    /// A legacy Endpoints object.
    Endpoints(Endpoints),
    /// A Namespace: only its name matters.
    Namespace(Name),
    /// A Node.
    Node(Node),
    /// A Pod.
    Pod(Pod),
}

/// The kinds that Fairway watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `core/v1` Service.
    Service,
    /// `discovery.k8s.io/v1` EndpointSlice.
    EndpointSlice,
    /// `core/v1` Endpoints (R17).
    Endpoints,
    /// `core/v1` Namespace.
    Namespace,
    /// `core/v1` Node.
    Node,
    /// `core/v1` Pod.
    Pod,
}

impl Object {
    /// Its kind.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Service(_) => Kind::Service,
            Self::EndpointSlice(_) => Kind::EndpointSlice,
            Self::Endpoints(_) => Kind::Endpoints,
            Self::Namespace(_) => Kind::Namespace,
            Self::Node(_) => Kind::Node,
            Self::Pod(_) => Kind::Pod,
        }
    }

    /// Its name.
    pub fn name(&self) -> ObjectName {
        match self {
            Self::Service(service) => service.name.clone(),
            Self::EndpointSlice(slice) => slice.name.clone(),
            Self::Endpoints(endpoints) => endpoints.name.clone(),
            Self::Namespace(name) => ObjectName::cluster_scoped(name.clone()),
            Self::Node(node) => ObjectName::cluster_scoped(node.name.clone()),
            Self::Pod(pod) => pod.name.clone(),
        }
    }
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Self; 6] =
        [Self::Service, Self::EndpointSlice, Self::Endpoints, Self::Namespace, Self::Node, Self::Pod];

    /// The word of the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Service => "Service",
            Self::EndpointSlice => "EndpointSlice",
            Self::Endpoints => "Endpoints",
            Self::Namespace => "Namespace",
            Self::Node => "Node",
            Self::Pod => "Pod",
        }
    }
}

//! Tables: the logical contents of all maps. What is wanted and what is in the kernel have the same form, so
//! that their difference is the work to do. Cloning is O(1), and a difference costs what changed.

use std::fmt;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use ebpf::backend::{CLUSTER, LOCAL};
use imbl::OrdMap;
use model::{Name, ObjectName, Protocol};

/// The contents of all maps, by name instead of by id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// What clients dial, and where it leads.
    pub frontends: OrdMap<Frontend, Target>,
    /// The service ports and their slots.
    pub services: OrdMap<ServiceKey, Arc<Block>>,
}

/// What a client dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Frontend {
    /// The address.
    pub ip: IpAddr,
    /// The port, 0 for all others of the address. Host byte order.
    pub port: u16,
    /// The protocol; None for every one.
    pub protocol: Option<Protocol>,
}

/// Where a frontend leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To a service port; with flags of `ebpf::frontend::FrontendWord`.
    Service(ServiceKey, u16),
    /// Nowhere: the address has no such port (R4).
    Refuse,
}

/// One port of a service in one family: IPv4 frontends choose IPv4 endpoints only. Shared by all that name it: the
/// tables of a large cluster hold each key several times.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey(Arc<ServiceKeyParts>);

/// What a [`ServiceKey`] says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKeyParts {
    /// The service.
    pub name: ObjectName,
    /// The name of the port.
    pub port: Name,
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The family of frontends and endpoints.
    pub family: Family,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// The slots of a service port, ordered local-only, both, cluster-only, then by address and port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Session affinity in seconds, 0 for none.
    pub affinity_seconds: u32,
    /// The slots.
    pub slots: Vec<Slot>,
}

/// One backend of a service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Where it listens.
    pub ip: IpAddr,
    /// The port it listens on. Host byte order.
    pub port: u16,
    /// `ebpf::backend::LOCAL`, `CLUSTER` or both.
    pub windows: u8,
}

impl ServiceKey {
    /// The key of a port.
    pub fn new(name: ObjectName, port: Name, protocol: Protocol, family: Family) -> Self {
        Self(Arc::new(ServiceKeyParts { name, port, protocol, family }))
    }
}

impl Deref for ServiceKey {
    type Target = ServiceKeyParts;

    fn deref(&self) -> &ServiceKeyParts {
        &self.0
    }
}

impl Family {
    /// The family of an address.
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl Frontend {
    /// A frontend with a port.
    pub const fn new(ip: IpAddr, port: u16, protocol: Protocol) -> Self {
        Self { ip, port, protocol: Some(protocol) }
    }

    /// All other ports of an address.
    pub const fn any_port(ip: IpAddr) -> Self {
        Self { ip, port: 0, protocol: None }
    }
}

impl Block {
    /// A block of these slots, in order.
    pub fn new(affinity_seconds: u32, mut slots: Vec<Slot>) -> Self {
        slots.sort_unstable_by_key(|slot| (slot.class(), slot.ip, slot.port));
        // Blocks stay for as long as their service does.
        slots.shrink_to_fit();
        Self { affinity_seconds, slots }
    }

    /// One past the last slot of the local window.
    pub fn local_end(&self) -> usize {
        self.slots.partition_point(|slot| slot.windows & LOCAL != 0)
    }

    /// The first slot of the cluster window.
    pub fn cluster_start(&self) -> usize {
        self.slots.partition_point(|slot| slot.windows & CLUSTER == 0)
    }
}

impl Slot {
    fn class(&self) -> u8 {
        match (self.windows & LOCAL != 0, self.windows & CLUSTER != 0) {
            (true, false) => 0,
            (true, true) => 1,
            (false, _) => 2,
        }
    }
}

impl Target {
    /// The service port it leads to.
    pub const fn service(&self) -> Option<&ServiceKey> {
        match self {
            Self::Service(key, _) => Some(key),
            Self::Refuse => None,
        }
    }
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}/{}", self.name, self.port, self.protocol, self.family)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "v4",
            Self::V6 => "v6",
        })
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Some(protocol) => write!(f, "{}/{protocol}", std::net::SocketAddr::new(self.ip, self.port)),
            None => write!(f, "{}", self.ip),
        }
    }
}

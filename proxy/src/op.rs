//! One operation on the maps. A sequence of them is valid after every prefix: what an operation names was
//! written by one before it.

use std::net::IpAddr;

use ebpf::address::Port;
use ebpf::backend::Backend;
use ebpf::block::{Header, ServiceWord};
use ebpf::frontend::{FrontendKey, FrontendWord, TCP, UDP};
use model::Protocol;

use crate::tables::{Frontend, ServiceKey};

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Writes a backend that nothing names yet.
    WriteBackend(u32, Backend),
    /// Changes the windows of a backend in use.
    SetWindows(u32, u8),
    /// Writes a block that no service word names yet: first line, header, backend ids.
    WriteBlock(u32, Header, Vec<u32>),
    /// Swaps the word of a service.
    Publish(u32, ServiceWord),
    /// Adds or changes a frontend.
    PutFrontend(FrontendKey, FrontendWord),
    /// Removes a frontend.
    RemoveFrontend(FrontendKey),
    /// Waits until no hook holds what was replaced or removed before.
    Barrier,
}

/// The names of operations in metrics.
const KINDS: [&str; 7] =
    ["write_backend", "set_windows", "write_block", "publish", "put_frontend", "remove_frontend", "barrier"];

/// How many operations there were, by kind. A cold start counts half a million.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpCounts([u64; KINDS.len()]);

/// What applies operations: the kernel, the fake, or a list that only notes them.
pub trait Dataplane {
    /// Applies one operation.
    ///
    /// # Errors
    ///
    /// Only a hash can refuse: the operation had no effect then.
    fn apply(&mut self, op: &Op) -> Result<(), Refused>;

    /// An id has left `key`. Another may have it after the next barrier; what the kernel counts under it belongs
    /// to `key` until then.
    fn free(&mut self, _id: Freed, _key: &ServiceKey) {}
}

/// An id that is not in use any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freed {
    /// Of a service port.
    Service(u32),
    /// Of a backend.
    Backend(u32),
}

impl Dataplane for Vec<Op> {
    fn apply(&mut self, op: &Op) -> Result<(), Refused> {
        self.push(op.clone());
        Ok(())
    }
}

/// Why the kernel did not take an operation.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// E2BIG.
    #[error("the map {0} is full")]
    Full(&'static str),
    /// Anything else.
    #[error("the map {0} cannot be changed: {1}")]
    Failed(&'static str, std::io::Error),
}

impl Op {
    /// Its name in metrics.
    pub const fn kind(&self) -> &'static str {
        KINDS[self.number()]
    }

    /// The place of its name in [`KINDS`].
    const fn number(&self) -> usize {
        match self {
            Self::WriteBackend(..) => 0,
            Self::SetWindows(..) => 1,
            Self::WriteBlock(..) => 2,
            Self::Publish(..) => 3,
            Self::PutFrontend(..) => 4,
            Self::RemoveFrontend(..) => 5,
            Self::Barrier => 6,
        }
    }
}

impl OpCounts {
    /// One more.
    pub(crate) const fn note(&mut self, op: &Op) {
        self.0[op.number()] += 1;
    }

    /// How many there were of each kind, by its name in metrics.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        std::iter::zip(KINDS, self.0)
    }
}

impl Frontend {
    /// The key in the map.
    pub fn key(&self) -> FrontendKey {
        let protocol = match self.protocol {
            Some(protocol) => protocol.number(),
            None => return FrontendKey::any_port(self.ip.into()),
        };
        FrontendKey::new(self.ip.into(), Port::new(self.port), protocol)
    }

    /// The frontend of a key; None if the key is none of ours.
    pub fn from_key(key: &FrontendKey) -> Option<Self> {
        let protocol = match key.protocol() {
            TCP => Some(Protocol::Tcp),
            UDP => Some(Protocol::Udp),
            0 => None,
            _ => return None,
        };
        Some(Self { ip: IpAddr::from(*key.address()), port: key.port().number(), protocol })
    }
}

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
    /// Every name in metrics.
    pub(crate) const KINDS: [&'static str; 7] = [
        "write_backend",
        "set_windows",
        "write_block",
        "publish",
        "put_frontend",
        "remove_frontend",
        "barrier",
    ];

    /// Its name in metrics.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::WriteBackend(..) => "write_backend",
            Self::SetWindows(..) => "set_windows",
            Self::WriteBlock(..) => "write_block",
            Self::Publish(..) => "publish",
            Self::PutFrontend(..) => "put_frontend",
            Self::RemoveFrontend(..) => "remove_frontend",
            Self::Barrier => "barrier",
        }
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

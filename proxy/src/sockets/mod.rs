//! The sockets that went through a frontend: found by their records in every network namespace of the node,
//! listed, and ended when their endpoint is gone. Of the sockets without a record it ends one kind alone: those that go
//! straight to a port of the node which has come to lead to a pod.

mod blindness;
mod diag;
mod host_ports;
mod namespaces;
mod pods;
mod records;
mod scan;
mod stale;
mod terminator;

pub use blindness::{Blindness, blind_spots};
pub(crate) use records::RecordMaps;
pub use scan::{Connection, Connections, Unseen};
pub use terminator::Ended;
pub(crate) use terminator::{SocketMaps, Terminator};

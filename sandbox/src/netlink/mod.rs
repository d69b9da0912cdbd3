//! Links, addresses, neighbours and routes of one network namespace, by blocking netlink requests. The only
//! module that knows the netlink crates; none of their types leave it. Called by attach, detach and node; it
//! decides nothing.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the crates' enums are open: new attributes are not ours"
)]

mod address;
mod changes;
mod link;
pub(crate) mod netfilter;
mod node_route;
mod route;
mod vxlan;

use std::io;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::namespace::{NamespaceError, NetworkNamespace};

pub use changes::Changes;
pub use link::{Link, MacAddress, Veth};
pub(crate) use node_route::NodeRoute;
pub use route::HostRoute;
pub(crate) use vxlan::VxlanDevice;

/// A request that the kernel refused, or that could not be made.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {source}")]
pub struct NetlinkError {
    /// What was asked for, with its objects.
    what: String,
    source: io::Error,
}

impl NetlinkError {
    fn new(what: impl Into<String>, source: io::Error) -> Self {
        Self { what: what.into(), source }
    }

    /// What asks for a thing that is there already.
    pub fn is_exists(&self) -> bool {
        self.source.raw_os_error() == Some(libc::EEXIST)
    }

    /// What asks for a thing that is not there.
    pub fn is_missing(&self) -> bool {
        let missing = [libc::ENODEV, libc::ESRCH, libc::ENOENT, libc::EADDRNOTAVAIL, libc::ENXIO];
        self.source.raw_os_error().is_some_and(|code| missing.contains(&code))
    }
}

/// A netlink socket of one network namespace: that of the thread which opened it, for ever.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// A socket in the namespace of the calling thread.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = open_socket().map_err(|error| NetlinkError::new("opening a netlink socket", error))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// A socket in another namespace, for use from any thread.
    pub fn open_in(namespace: &NetworkNamespace) -> Result<Self, NetlinkError> {
        namespace.enter(Self::open).unwrap_or_else(|error| {
            let source = match error {
                NamespaceError::Enter(source) | NamespaceError::Open { source, .. } => source,
                other @ NamespaceError::Other(_) => io::Error::other(other),
            };
            Err(NetlinkError::new("entering the namespace", source))
        })
    }

    /// Asks for a change and waits for the kernel's word on it.
    fn change(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<()> {
        let sequence = self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        let mut answer = Ok(());
        self.receive(sequence, |_| {}).unwrap_or_else(|error| answer = Err(error));
        answer
    }

    /// Asks for every object of a kind.
    fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        let sequence = self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut objects = Vec::new();
        self.receive(sequence, |object| objects.push(object))?;
        Ok(objects)
    }

    /// Asks for one object. The acknowledgement behind it ends the answer.
    fn one(&mut self, message: RouteNetlinkMessage) -> io::Result<RouteNetlinkMessage> {
        let sequence = self.send(message, NLM_F_REQUEST | NLM_F_ACK)?;
        let mut found = None;
        self.receive(sequence, |object| found = Some(object))?;
        found.ok_or_else(|| io::Error::other("the kernel acknowledged without an answer"))
    }

    fn send(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut packet = NetlinkMessage::new(header, NetlinkPayload::from(message));
        packet.finalize();
        let mut bytes = vec![0; packet.buffer_len()];
        packet.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        Ok(self.sequence)
    }

    /// Hands every object of the answer to `take`, until the answer is complete.
    fn receive(&self, sequence: u32, mut take: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            let mut rest = datagram.as_slice();
            while !rest.is_empty() {
                let message =
                    NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest).map_err(io::Error::other)?;
                let length = aligned(message.header.length as usize).min(rest.len());
                rest = &rest[length.max(1)..];
                if message.header.sequence_number != sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => {
                        return if error.code.is_some() { Err(error.to_io()) } else { Ok(()) };
                    }
                    NetlinkPayload::InnerMessage(object) => take(object),
                    NetlinkPayload::Overrun(_) => {
                        return Err(io::Error::other("the answer overran the socket"));
                    }
                    // No-ops, and whatever a later version of the crate knows.
                    _ => {}
                }
            }
        }
    }
}

fn open_socket() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    // A failed change answers with its code alone: the request is known here.
    socket.set_cap_ack(true)?;
    Ok(socket)
}

/// Netlink messages begin at multiples of four.
const fn aligned(length: usize) -> usize {
    (length + 3) & !3
}

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
    DecodeError, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
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

/// A netlink datagram of the kernel is no longer (NLMSG_GOODSIZE, and what `netlink_dump` makes of it).
const DATAGRAM_LIMIT: usize = 32 << 10;

/// An object of an answer, not read yet.
struct Object {
    header: NetlinkHeader,
    payload: Vec<u8>,
}

impl Object {
    const fn kind(&self) -> u16 {
        self.header.message_type
    }

    fn read(&self) -> io::Result<RouteNetlinkMessage> {
        RouteNetlinkMessage::deserialize(&self.header, &self.payload).map_err(io::Error::other)
    }
}

impl NetlinkDeserializable for Object {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        Ok(Self { header: *header, payload: payload.to_vec() })
    }
}

/// A netlink socket of one network namespace: that of the thread which opened it, for ever.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    datagram: Vec<u8>,
}

impl Netlink {
    /// A socket in the namespace of the calling thread.
    pub fn open() -> Result<Self, NetlinkError> {
        let socket = open_socket().map_err(|error| NetlinkError::new("opening a netlink socket", error))?;
        Ok(Self { socket, sequence: 0, datagram: Vec::with_capacity(DATAGRAM_LIMIT) })
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
        self.ask(message, flags).map(drop)
    }

    /// Asks for every object of a kind.
    fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.objects(message)?.iter().map(Object::read).collect()
    }

    fn objects(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<Object>> {
        let sequence = self.send(message, NLM_F_REQUEST | NLM_F_DUMP)?;
        let mut objects = Vec::new();
        self.receive(sequence, |object| objects.push(object))?;
        Ok(objects)
    }

    /// Asks for one object.
    fn one(&mut self, message: RouteNetlinkMessage) -> io::Result<Object> {
        let found = self.ask(message, 0)?;
        found.ok_or_else(|| io::Error::other("the kernel acknowledged without an answer"))
    }

    /// Asks for a change or for an object; the acknowledgement behind it ends the answer.
    fn ask(&mut self, message: RouteNetlinkMessage, flags: u16) -> io::Result<Option<Object>> {
        let sequence = self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        let mut found = None;
        self.receive(sequence, |object| found = Some(object))?;
        Ok(found)
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
    fn receive(&mut self, sequence: u32, mut take: impl FnMut(Object)) -> io::Result<()> {
        loop {
            self.datagram.clear();
            let length = self.socket.recv(&mut self.datagram, libc::MSG_TRUNC)?;
            if length > self.datagram.len() {
                return Err(io::Error::other(format!("an answer of {length} bytes is too long")));
            }
            let mut rest = self.datagram.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<Object>::deserialize(rest).map_err(io::Error::other)?;
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

//! Raw sock_diag(7): the connected sockets of one network namespace, and SOCK_DESTROY. The only file with
//! netlink of this crate. It works in the namespace in which it was opened, and never decides.

use std::io;
use std::mem::offset_of;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use model::Protocol;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

/// The states of a connected socket that can still send: ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2,
/// CLOSE_WAIT, LAST_ACK, CLOSING of `enum tcp_state`. A connected UDP socket is ESTABLISHED.
const CONNECTED: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 8 | 1 << 9 | 1 << 11;
/// As much as the kernel puts into one message of a dump.
const BUFFER: usize = 32 * 1024;
/// Requests in one message: their answers must fit the receive buffer of a netlink socket.
const BATCH: usize = 64;

/// `struct inet_diag_sockid`: what names a socket, its cookie included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
struct SocketId {
    /// Source, destination; network order.
    ports: [u16; 2],
    source: [u8; 16],
    destination: [u8; 16],
    device: u32,
    cookie: [u32; 2],
}

/// `struct nlmsghdr`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Header {
    len: u32,
    kind: u16,
    flags: u16,
    sequence: u32,
    port: u32,
}

/// `struct nlmsghdr` and `struct inet_diag_req_v2`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Request {
    header: Header,
    family: u8,
    protocol: u8,
    extensions: u8,
    zero: u8,
    states: u32,
    id: SocketId,
}

/// `struct inet_diag_msg`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Message {
    family: u8,
    state: u8,
    timer: u8,
    retransmits: u8,
    id: SocketId,
    expires: u32,
    queues: [u32; 2],
    user: u32,
    inode: u32,
}

const _: () = assert!(size_of::<Request>() == 72 && size_of::<Message>() == 72);

/// A connected socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Socket {
    family: u8,
    id: SocketId,
    pub(super) protocol: Protocol,
    pub(super) inode: u32,
}

/// A sock_diag socket of one network namespace.
#[derive(Debug)]
pub(super) struct Diag(OwnedFd);

impl Socket {
    /// What SO_COOKIE says of it.
    pub(super) fn cookie(&self) -> u64 {
        let [low, high] = self.id.cookie;
        u64::from(high) << 32 | u64::from(low)
    }

    /// The own address.
    pub(super) fn local(&self) -> SocketAddr {
        address(self.family, &self.id.source, self.id.ports[0])
    }

    /// Where it is connected to in truth.
    pub(super) fn remote(&self) -> SocketAddr {
        address(self.family, &self.id.destination, self.id.ports[1])
    }
}

impl Diag {
    /// Opens one in the namespace of this thread.
    pub(super) fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: a system call without pointers.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_SOCK_DIAG) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just handed it out, and nobody else has it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Every connected socket of a protocol.
    pub(super) fn connected(&self, protocol: Protocol, mut each: impl FnMut(Socket)) -> io::Result<()> {
        for family in [libc::AF_INET, libc::AF_INET6] {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "2 and 10")]
            let family = family as u8;
            let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
            self.send(bytes_of(&request(SOCK_DIAG_BY_FAMILY, flags, family, protocol, SocketId::ANY)))?;
            self.receive(|kind, body| match kind {
                NLMSG_DONE => Ok(true),
                NLMSG_ERROR => failure(body).map_or(Ok(true), Err),
                _ => {
                    if let Some(Message { family, id, inode, .. }) = read_at(body, 0) {
                        each(Socket { family, id, protocol, inode });
                    }
                    Ok(false)
                }
            })?;
        }
        Ok(())
    }

    /// Ends sockets; how many there were. One that has ended by itself meanwhile is not counted.
    pub(super) fn destroy(&self, sockets: &[Socket]) -> io::Result<usize> {
        let mut ended = 0;
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        for batch in sockets.chunks(BATCH) {
            let mut message = Vec::with_capacity(batch.len() * size_of::<Request>());
            for socket in batch {
                let request = request(SOCK_DESTROY, flags, socket.family, socket.protocol, socket.id);
                message.extend_from_slice(bytes_of(&request));
            }
            self.send(&message)?;
            let (mut awaited, mut refused) = (batch.len(), None);
            self.receive(|_, body| {
                awaited -= 1;
                match failure(body) {
                    None => ended += 1,
                    Some(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESTALE)) => {}
                    Some(error) => refused = Some(error),
                }
                Ok(awaited == 0)
            })?;
            refused.map_or(Ok(()), Err)?;
        }
        Ok(ended)
    }

    fn send(&self, message: &[u8]) -> io::Result<()> {
        // SAFETY: the kernel reads no more than the length says.
        let sent = unsafe { libc::send(self.0.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Hands every message with its kind to `each`, until that says it is the last.
    fn receive(&self, mut each: impl FnMut(u16, &[u8]) -> io::Result<bool>) -> io::Result<()> {
        let mut buffer = vec![0_u8; BUFFER];
        loop {
            // SAFETY: the kernel writes no more than the length says.
            let read = unsafe { libc::recv(self.0.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            let read = usize::try_from(read).map_err(|_| io::Error::last_os_error())?;
            let mut rest = &buffer[..read];
            while let Some(header) = read_at::<Header>(rest, 0) {
                let len = header.len as usize;
                if len < size_of::<Header>() || len > rest.len() {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if each(header.kind, &rest[size_of::<Header>()..len])? {
                    return Ok(());
                }
                rest = &rest[aligned(len).min(rest.len())..];
            }
        }
    }
}

impl SocketId {
    const ANY: Self =
        Self { ports: [0; 2], source: [0; 16], destination: [0; 16], device: 0, cookie: [u32::MAX; 2] };
}

fn request(kind: u16, flags: i32, family: u8, protocol: Protocol, id: SocketId) -> Request {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "flags of 16 bits")]
    let flags = flags as u16;
    let header = Header { len: length(size_of::<Request>()), kind, flags, sequence: 0, port: 0 };
    Request { header, family, protocol: protocol.number(), extensions: 0, zero: 0, states: CONNECTED, id }
}

/// What an error message says; None for an acknowledgement.
fn failure(body: &[u8]) -> Option<io::Error> {
    match read_at::<i32>(body, 0) {
        Some(0) => None,
        Some(number) => Some(io::Error::from_raw_os_error(number.saturating_neg())),
        None => Some(io::ErrorKind::InvalidData.into()),
    }
}

const fn aligned(len: usize) -> usize {
    (len + 3) & !3
}

fn length(len: usize) -> u32 {
    u32::try_from(len).expect("requests are short")
}

fn address(family: u8, bytes: &[u8; 16], port: u16) -> SocketAddr {
    let ip = if i32::from(family) == libc::AF_INET {
        let [a, b, c, d, ..] = *bytes;
        IpAddr::from([a, b, c, d])
    } else {
        IpAddr::from(*bytes).to_canonical()
    };
    SocketAddr::new(ip, u16::from_be(port))
}

/// Types of which every sequence of bytes is a value.
trait Plain: Copy {}
impl Plain for i32 {}
impl Plain for Header {}
impl Plain for Message {}

fn read_at<T: Plain>(bytes: &[u8], offset: usize) -> Option<T> {
    let bytes = bytes.get(offset..offset + size_of::<T>())?;
    // SAFETY: as many bytes as the type has, and every sequence of them is a value of it.
    Some(unsafe { ptr::read_unaligned(bytes.as_ptr().cast()) })
}

/// Types without padding.
trait Solid {}
impl Solid for Request {}

const _: () = assert!(offset_of!(Request, id) + size_of::<SocketId>() == size_of::<Request>());

fn bytes_of<T: Solid>(value: &T) -> &[u8] {
    // SAFETY: all bytes of a value without padding are initialised.
    unsafe { std::slice::from_raw_parts(ptr::from_ref(value).cast(), size_of::<T>()) }
}

//! Datagrams by the batch: many are received with one system call and answered with one. The only file of this
//! crate with raw system calls; neither tokio nor rustix has `recvmmsg`. It looks into no message. Owned by
//! one `worker` each.

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::ptr::null_mut;

/// Datagrams taken at once. More would not make one cheaper, and the first waits for the last.
pub(crate) const BATCH: usize = 32;
/// The longest request taken. No question comes near it.
const MAX_REQUEST: usize = 4096;
/// From one buffer to the next: no power of two, or all would share a few lines of the processor's cache.
const STRIDE: usize = MAX_REQUEST + 64;

/// Where a datagram came from, as the kernel writes it: `sockaddr_in` or `sockaddr_in6`.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub(crate) struct Peer([u8; size_of::<libc::sockaddr_in6>()]);

/// The room for one batch, and the batch.
pub(crate) struct Batch {
    requests: Vec<u8>,
    peers: Vec<Peer>,
    incoming: Vec<libc::mmsghdr>,
    _slices: Vec<libc::iovec>,
    /// The answers one after another.
    answers: Vec<u8>,
    /// For each answer: to which request, and where it begins.
    replies: Vec<(usize, usize)>,
    outgoing: Vec<libc::mmsghdr>,
    outgoing_slices: Vec<libc::iovec>,
}

impl Batch {
    pub(crate) fn new() -> Self {
        let mut requests = vec![0; BATCH * STRIDE];
        let mut peers = vec![Peer([0; _]); BATCH];
        let mut slices: Vec<libc::iovec> =
            requests.chunks_mut(STRIDE).map(|buffer| slice(&mut buffer[..MAX_REQUEST])).collect();
        let incoming = slices.iter_mut().zip(&mut peers).map(|(slice, peer)| header(slice, peer)).collect();
        Self {
            requests,
            peers,
            incoming,
            _slices: slices,
            answers: Vec::with_capacity(BATCH * 512),
            replies: Vec::with_capacity(BATCH),
            outgoing: Vec::with_capacity(BATCH),
            outgoing_slices: Vec::with_capacity(BATCH),
        }
    }

    /// Waits for a datagram, as long as the socket's time-out says, and takes those that are there. How many.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        for incoming in &mut self.incoming {
            incoming.msg_hdr.msg_namelen = length(size_of::<Peer>());
        }
        let (headers, count) = (self.incoming.as_mut_ptr(), length(BATCH));
        // SAFETY: the headers point into vectors of `self` that never grow.
        let received =
            unsafe { libc::recvmmsg(socket.as_raw_fd(), headers, count, libc::MSG_WAITFORONE, null_mut()) };
        usize::try_from(received).map_err(|_| io::Error::last_os_error())
    }

    /// Who sent the request at an index below what `receive` said.
    pub(crate) fn client(&self, index: usize) -> Option<SocketAddr> {
        self.peers[index].address()
    }

    /// Lets `write` append the answer to a request, of which what did not fit is cut off; nothing is sent if
    /// it appends nothing.
    pub(crate) fn answer<T>(&mut self, index: usize, write: impl FnOnce(&[u8], &mut Vec<u8>) -> T) -> T {
        let length = usize::try_from(self.incoming[index].msg_len).unwrap_or_default().min(MAX_REQUEST);
        let (start, begun) = (index * STRIDE, self.answers.len());
        let written = write(&self.requests[start..start + length], &mut self.answers);
        if self.answers.len() > begun {
            self.replies.push((index, begun));
        }
        written
    }

    /// Sends the answers, and forgets them. How many system calls that took; the last error, after all were tried.
    pub(crate) fn send(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        self.outgoing.clear();
        self.outgoing_slices.clear();
        let ends = self.replies.iter().skip(1).map(|(_, begun)| *begun).chain([self.answers.len()]);
        for ((_, begun), end) in self.replies.iter().zip(ends) {
            self.outgoing_slices.push(slice(&mut self.answers[*begun..end]));
        }
        for (slice, (index, _)) in self.outgoing_slices.iter_mut().zip(&self.replies) {
            let mut header = header(slice, &mut self.peers[*index]);
            header.msg_hdr.msg_namelen = self.incoming[*index].msg_hdr.msg_namelen;
            self.outgoing.push(header);
        }
        let sent = send_all(socket, &mut self.outgoing);
        self.replies.clear();
        self.answers.clear();
        sent
    }
}

/// Sends every message; one that cannot be sent does not keep those behind it.
fn send_all(socket: &UdpSocket, mut messages: &mut [libc::mmsghdr]) -> io::Result<usize> {
    let (mut calls, mut failed) = (0, None);
    while !messages.is_empty() {
        let (headers, count) = (messages.as_mut_ptr(), length(messages.len()));
        // SAFETY: the headers point into buffers of the batch, which outlives this call.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers, count, 0) };
        let done = usize::try_from(sent).unwrap_or_else(|_| {
            failed = Some(io::Error::last_os_error());
            1
        });
        calls += 1;
        messages = &mut messages[done.max(1)..];
    }
    failed.map_or(Ok(calls), Err)
}

impl Peer {
    fn address(&self) -> Option<SocketAddr> {
        let octets = &self.0;
        let port = u16::from_be_bytes([octets[2], octets[3]]);
        let ip = match i32::from(u16::from_ne_bytes([octets[0], octets[1]])) {
            libc::AF_INET => IpAddr::from(Ipv4Addr::from(*octets[4..].first_chunk()?)),
            libc::AF_INET6 => IpAddr::from(Ipv6Addr::from(*octets[8..].first_chunk()?)),
            _ => return None,
        };
        Some(SocketAddr::new(ip, port))
    }
}

fn slice(buffer: &mut [u8]) -> libc::iovec {
    libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() }
}

fn header(slice: &mut libc::iovec, peer: &mut Peer) -> libc::mmsghdr {
    // SAFETY: a header of zeros is one without anything.
    let mut header: libc::mmsghdr = unsafe { zeroed() };
    header.msg_hdr.msg_name = std::ptr::from_mut(peer).cast();
    header.msg_hdr.msg_iov = slice;
    header.msg_hdr.msg_iovlen = 1;
    header
}

fn length(value: usize) -> u32 {
    u32::try_from(value).expect("a batch and an address are small")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UdpSocket, UdpSocket) {
        let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        (server, client)
    }

    #[test]
    fn a_batch_is_received_with_one_call_and_answered_with_one() {
        let (server, client) = pair();
        for number in 0..5 {
            client.send(&[number; 3]).unwrap();
        }
        let mut batch = Batch::new();
        assert_eq!(batch.receive(&server).unwrap(), 5);
        for index in 0..5 {
            assert_eq!(batch.client(index), client.local_addr().ok());
            // The one in the middle gets no answer.
            batch.answer(index, |request, out| {
                if request[0] != 2 {
                    out.extend_from_slice(&[request[0] + 10]);
                }
            });
        }
        batch.send(&server).unwrap();
        for expected in [10, 11, 13, 14] {
            let mut buffer = [0; 8];
            assert_eq!((client.recv(&mut buffer).unwrap(), buffer[0]), (1, expected));
        }
        client.send(b"more").unwrap();
        assert_eq!(batch.receive(&server).unwrap(), 1);
        batch.answer(0, |request, _| assert_eq!(request, b"more"));
    }

    #[test]
    fn system_calls_are_two_for_a_batch() {
        let (server, client) = pair();
        client.set_nonblocking(true).unwrap();
        let count = 4 * BATCH;
        for _ in 0..count {
            client.send(b"x").unwrap();
        }
        let (mut batch, mut answered, mut calls) = (Batch::new(), 0, 0);
        while answered < count {
            let received = batch.receive(&server).unwrap();
            for index in 0..received {
                batch.answer(index, |_, out| out.push(1));
            }
            calls += 1 + batch.send(&server).unwrap();
            answered += received;
        }
        assert_eq!((answered, calls), (count, 8));
    }

    #[test]
    fn what_is_too_long_is_cut() {
        let (server, client) = pair();
        client.send(&[7; MAX_REQUEST + 1]).unwrap();
        let mut batch = Batch::new();
        assert_eq!(batch.receive(&server).unwrap(), 1);
        batch.answer(0, |request, _| assert_eq!(request.len(), MAX_REQUEST));
    }

    #[test]
    fn an_answer_that_cannot_be_sent_does_not_keep_the_next() {
        let (server, client) = pair();
        let mut batch = Batch::new();
        for _ in 0..2 {
            client.send(b"x").unwrap();
        }
        assert_eq!(batch.receive(&server).unwrap(), 2);
        // Longer than a datagram can be.
        batch.answer(0, |_, out| out.extend_from_slice(&[0; 70_000]));
        batch.answer(1, |_, out| out.push(1));
        batch.send(&server).unwrap_err();
        let mut buffer = [0; 8];
        assert_eq!(client.recv(&mut buffer).unwrap(), 1);
    }

    #[test]
    fn peers_of_both_families_are_read() {
        let server = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        let client = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
        client.send_to(b"x", server.local_addr().unwrap()).unwrap();
        let mut batch = Batch::new();
        batch.receive(&server).unwrap();
        assert_eq!(batch.client(0), client.local_addr().ok());
    }
}

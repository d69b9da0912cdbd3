//! Word from the kernel that something of the network has changed: links, addresses or routes. What it was is not told:
//! whoever waits looks anew. The daemon waits on the file; it never blocks.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use super::NetlinkError;

/// Links, IPv4 addresses, IPv4 routes, IPv6 addresses, IPv6 routes: the bits of `RTMGRP_*`.
const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

/// A socket that is readable after a change.
pub struct Changes(Socket);

impl Changes {
    /// Listens in the network namespace of the calling thread.
    pub fn open() -> Result<Self, NetlinkError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_ROUTE)?;
            socket.set_non_blocking(true)?;
            socket.bind(&SocketAddr::new(0, GROUPS))?;
            Ok(socket)
        };
        open().map(Self).map_err(|error| NetlinkError::new("listening to changes of the network", error))
    }

    /// Reads all that waits. Words that were lost because nobody read are as good as read.
    pub fn drain(&self) -> io::Result<()> {
        loop {
            match self.0.recv_from_full() {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsRawFd for Changes {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl AsFd for Changes {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

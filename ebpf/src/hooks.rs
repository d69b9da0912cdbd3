//! The hooks; those of packets are in `packet.rs`. A cgroup program returns 1 to go on; 0 together with `bpf_set_retval` fails the call with that
//! error. Hooks of recvmsg and getpeername must return 1.

#[macro_use]
mod answers;
mod maps;
mod packet;
mod redirect;
mod seats;
mod socket;

use aya_ebpf::helpers::generated::bpf_set_retval;
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr};
use aya_ebpf::programs::{SockAddrContext, SockContext};
use ebpf::balance::{self, Verdict};

use self::socket::{Closing, Socket};

const GO_ON: i32 = 1;
const FAIL: i32 = 0;
const ECONNREFUSED: i32 = 111;
const EHOSTUNREACH: i32 = 113;

/// connect() of an IPv4 address.
#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    let socket = Socket::ipv4(ctx);
    match socket.dialled_key() {
        Some(key) => obey(&socket, balance::connect(&socket, &key)),
        None => GO_ON,
    }
}

/// connect() of an IPv6 address.
#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    let socket = Socket::ipv6(ctx);
    match socket.dialled_key() {
        Some(key) => obey(&socket, balance::connect(&socket, &key)),
        None => GO_ON,
    }
}

/// sendto() and sendmsg() with an IPv4 address.
#[cgroup_sock_addr(sendmsg4)]
fn sendmsg4(ctx: SockAddrContext) -> i32 {
    let socket = Socket::ipv4(ctx);
    match socket.dialled_key() {
        Some(key) => obey(&socket, balance::send(&socket, &key)),
        None => GO_ON,
    }
}

/// sendto() and sendmsg() with an IPv6 address.
#[cgroup_sock_addr(sendmsg6)]
fn sendmsg6(ctx: SockAddrContext) -> i32 {
    let socket = Socket::ipv6(ctx);
    match socket.dialled_key() {
        Some(key) => obey(&socket, balance::send(&socket, &key)),
        None => GO_ON,
    }
}

/// recvfrom() and recvmsg() of an IPv4 socket.
#[cgroup_sock_addr(recvmsg4)]
fn recvmsg4(ctx: SockAddrContext) -> i32 {
    let socket = Socket::ipv4(ctx);
    let (address, port) = (socket.address(), socket.port());
    if let Some((address, port)) = balance::receive(&socket, address, port, socket.is_peer()) {
        socket.set(address, port);
    }
    GO_ON
}

/// recvfrom() and recvmsg() of an IPv6 socket.
#[cgroup_sock_addr(recvmsg6)]
fn recvmsg6(ctx: SockAddrContext) -> i32 {
    let socket = Socket::ipv6(ctx);
    let (address, port) = (socket.address(), socket.port());
    if let Some((address, port)) = balance::receive(&socket, address, port, socket.is_peer()) {
        socket.set(address, port);
    }
    GO_ON
}

/// getpeername() of an IPv4 socket.
#[cgroup_sock_addr(getpeername4)]
fn getpeername4(ctx: SockAddrContext) -> i32 {
    let socket = Socket::ipv4(ctx);
    if let Some((address, port)) = balance::peer(&socket) {
        socket.set(address, port);
    }
    GO_ON
}

/// getpeername() of an IPv6 socket.
#[cgroup_sock_addr(getpeername6)]
fn getpeername6(ctx: SockAddrContext) -> i32 {
    let socket = Socket::ipv6(ctx);
    if let Some((address, port)) = balance::peer(&socket) {
        socket.set(address, port);
    }
    GO_ON
}

/// The last close() of any socket.
#[cgroup_sock(sock_release)]
fn release(ctx: SockContext) -> i32 {
    balance::release(&Closing(ctx));
    GO_ON
}

#[inline(always)]
fn obey(socket: &Socket, verdict: Verdict) -> i32 {
    match verdict {
        Verdict::Leave => GO_ON,
        Verdict::Send(address, port) => {
            socket.set(address, port);
            GO_ON
        }
        Verdict::Refuse => fail(ECONNREFUSED),
        Verdict::Unreachable => fail(EHOSTUNREACH),
    }
}

#[inline(always)]
fn fail(error: i32) -> i32 {
    // SAFETY: a helper without pointers.
    unsafe { bpf_set_retval(-error) };
    FAIL
}

//! One ICMP echo over a raw socket, so that no `ping` has to be installed. Root only, as everything here.
//!
//! Called by `probe ping` alone.

use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{checksum, print};

const TIMEOUT: Duration = Duration::from_secs(2);

/// `probe ping`: prints who answered.
pub(crate) fn run(address: IpAddr) -> Result<()> {
    let (protocol, request, reply) =
        if address.is_ipv4() { (Protocol::ICMPV4, 8, 0) } else { (Protocol::ICMPV6, 128, 129) };
    let target = SocketAddr::new(address, 0);
    let socket = Socket::new(Domain::for_address(target), Type::RAW, Some(protocol))
        .context("cannot open a raw socket")?;
    socket.connect(&target.into())?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))?;
    let id = u16::try_from(std::process::id() % 0xffff).unwrap_or_default().to_be_bytes();
    let mut echo = vec![request, 0, 0, 0, id[0], id[1], 0, 1];
    if address.is_ipv4() {
        // The kernel fills the ICMPv6 checksum in; ICMPv4's is ours.
        let sum = checksum(&echo).to_be_bytes();
        echo[2..4].copy_from_slice(&sum);
    }
    socket.send(&echo)?;
    let deadline = Instant::now() + TIMEOUT;
    while Instant::now() < deadline {
        let mut buffer = [MaybeUninit::uninit(); 256];
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        // SAFETY: the kernel has written `length` bytes.
        let packet: Vec<u8> = buffer.iter().take(length).map(|byte| unsafe { byte.assume_init() }).collect();
        // A raw IPv4 socket hands out the IP header as well.
        let header =
            if address.is_ipv4() { usize::from(packet.first().map_or(0, |byte| byte & 0xf)) * 4 } else { 0 };
        let icmp = packet.get(header..).unwrap_or_default();
        if icmp.first() == Some(&reply) && icmp.get(4..6) == Some(&id) {
            let from = from.as_socket().map(|from| from.ip().to_string());
            print(&json!({ "from": from }));
            return Ok(());
        }
    }
    bail!("no reply from {address}")
}

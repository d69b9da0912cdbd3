//! One datagram in fragments, sent in reversed order over a raw socket, as a network that reorders would deliver it.
//! The answer comes to an ordinary socket.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;
use socket2::Domain;

use crate::{any, checksum, print, raw_socket};

const TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of the datagram in one fragment: less than any link takes, and a multiple of eight.
const PART: usize = 1200;
const UDP: u8 = 17;
const FRAGMENT_HEADER: u8 = 44;

/// `probe fragments`: prints how many bytes came back.
pub(crate) fn run(target: SocketAddr, bytes: usize) -> Result<()> {
    let socket = UdpSocket::bind(any(target, 0))?;
    socket.connect(target).context("no way there")?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    let local = socket.local_addr()?;
    let raw = raw_socket(Domain::for_address(target))?;
    let datagram = datagram(local, target, bytes)?;
    // No two datagrams of one client have the same one at a time.
    let [.., a, b] = std::process::id().to_be_bytes();
    let to = SocketAddr::new(target.ip(), 0);
    for (place, bytes) in datagram.chunks(PART).enumerate().rev() {
        let more = (place + 1) * PART < datagram.len();
        let part = Part { id: [a, b], offset: place * PART, more, bytes };
        let packet = match (local.ip(), target.ip()) {
            (IpAddr::V4(from), IpAddr::V4(to)) => part.four(&from.octets(), &to.octets()),
            (IpAddr::V6(from), IpAddr::V6(to)) => part.six(&from.octets(), &to.octets()),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => anyhow::bail!("one family"),
        }?;
        raw.send_to(&packet, &to.into()).context("cannot send a fragment")?;
    }
    let mut answer = vec![0; 1 << 16];
    let came = socket.recv(&mut answer).unwrap_or(0);
    print(&json!({ "came": came }));
    Ok(())
}

/// The UDP datagram with its checksum.
fn datagram(from: SocketAddr, to: SocketAddr, bytes: usize) -> Result<Vec<u8>> {
    let length = u16::try_from(bytes + 8).context("too long")?.to_be_bytes();
    let mut datagram = [from.port().to_be_bytes(), to.port().to_be_bytes(), length, [0, 0]].concat();
    datagram.resize(bytes + 8, b'x');
    let mut sum = Vec::new();
    for ip in [from.ip(), to.ip()] {
        match ip {
            IpAddr::V4(ip) => sum.extend(ip.octets()),
            IpAddr::V6(ip) => sum.extend(ip.octets()),
        }
    }
    sum.extend([0, UDP, length[0], length[1]]);
    sum.extend(&datagram);
    datagram[6..8].copy_from_slice(&checksum(&sum).to_be_bytes());
    Ok(datagram)
}

/// One fragment.
struct Part<'a> {
    id: [u8; 2],
    offset: usize,
    more: bool,
    bytes: &'a [u8],
}

impl Part<'_> {
    /// The kernel fills in length and checksum of the header.
    fn four(&self, from: &[u8], to: &[u8]) -> Result<Vec<u8>> {
        let [high, low] = (u16::try_from(self.offset / 8)? | u16::from(self.more) << 13).to_be_bytes();
        let header = [0x45, 0, 0, 0, self.id[0], self.id[1], high, low, 64, UDP, 0, 0];
        Ok([&header, from, to, self.bytes].concat())
    }

    fn six(&self, from: &[u8], to: &[u8]) -> Result<Vec<u8>> {
        let [long, short] = u16::try_from(self.bytes.len() + 8)?.to_be_bytes();
        let [high, low] = (u16::try_from(self.offset)? | u16::from(self.more)).to_be_bytes();
        let header = [0x60, 0, 0, 0, long, short, FRAGMENT_HEADER, 64];
        let fragment = [UDP, 0, high, low, 0, 0, self.id[0], self.id[1]];
        Ok([&header, from, to, &fragment, self.bytes].concat())
    }
}

//! A flood of the first packets of connections, each from a port and an address of its own, over a raw socket. Nobody
//! is at those addresses, so that no connection is ever made.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Result, ensure};
use serde_json::json;
use socket2::Domain;

use crate::{checksum, print, raw_socket};

const TCP: u8 = 6;
const SYN: u8 = 2;
/// Addresses that are sent from, and ports of each.
const ADDRESSES: u32 = 64;
const PORTS: u32 = 60_000;

/// `probe syns`: prints how many were sent.
pub(crate) fn run(target: SocketAddrV4, from: Ipv4Addr, count: u32) -> Result<()> {
    ensure!(count <= ADDRESSES * PORTS, "at most {} are distinct", ADDRESSES * PORTS);
    let raw = raw_socket(Domain::IPV4)?;
    let to = SocketAddrV4::new(*target.ip(), 0).into();
    let mut refused = 0_u32;
    for number in 0..count {
        let from = Ipv4Addr::from_bits(from.to_bits() + number % ADDRESSES);
        let port = u16::try_from(1024 + number / ADDRESSES)?;
        // A full queue on the way loses packets, as any network does.
        refused += u32::from(raw.send_to(&syn(from, port, target), &to).is_err());
    }
    print(&json!({ "sent": count - refused }));
    Ok(())
}

/// The kernel fills in length and checksum of the IP header.
fn syn(from: Ipv4Addr, port: u16, target: SocketAddrV4) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, TCP, 0, 0];
    packet.extend(from.octets());
    packet.extend(target.ip().octets());
    let mut segment = [port.to_be_bytes(), target.port().to_be_bytes()].concat();
    segment.extend([0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 0xff, 0xff, 0, 0, 0, 0]);
    let pseudo = [&from.octets()[..], &target.ip().octets(), &[0, TCP, 0, 20], &segment].concat();
    segment[16..18].copy_from_slice(&checksum(&pseudo).to_be_bytes());
    packet.extend(segment);
    packet
}

//! A DNS server outside the cluster with a handful of names: there is no internet in a test.
//!
//! `NAME.example.com` has the address 198.51.100.1 and no IPv6 address; anything else does not exist.
//! UDP only, one question a message, written by hand so that it shares no code with what it tests.

use std::net::{SocketAddr, UdpSocket};

use anyhow::{Context, Result};
use serde_json::json;

use crate::print;

const ADDRESS: [u8; 4] = [198, 51, 100, 1];
const TYPE_A: u16 = 1;

/// Answers until it is killed.
pub(crate) fn run(listen: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    print(&json!({ "listening": listen.to_string() }));
    let mut buffer = [0; 1500];
    loop {
        let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
        if let Some(reply) = buffer.get(..length).and_then(reply) {
            let _ = socket.send_to(&reply, from);
        }
    }
}

fn reply(query: &[u8]) -> Option<Vec<u8>> {
    let (labels, end) = name(query)?;
    let kind = u16::from_be_bytes([*query.get(end)?, *query.get(end + 1)?]);
    let known = labels.ends_with("example.com");
    let answers = u8::from(known && kind == TYPE_A);
    // QR, RD, RA; the rcode is NXDOMAIN for a name that does not exist.
    let mut reply =
        vec![query[0], query[1], 0x81, if known { 0x80 } else { 0x83 }, 0, 1, 0, answers, 0, 0, 0, 0];
    reply.extend_from_slice(query.get(12..end + 4)?);
    if answers == 1 {
        reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        reply.extend_from_slice(&ADDRESS);
    }
    Some(reply)
}

/// The question's name in lower case, and where its type begins.
fn name(query: &[u8]) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    let mut at = 12;
    loop {
        let length = usize::from(*query.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8_lossy(query.get(at..at + length)?).to_lowercase());
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_name_has_an_address_and_an_unknown_one_does_not_exist() {
        let question = |name: &str| {
            let mut query = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            for label in name.split('.') {
                query.push(u8::try_from(label.len()).unwrap());
                query.extend_from_slice(label.as_bytes());
            }
            query.extend_from_slice(&[0, 0, 1, 0, 1]);
            reply(&query).unwrap()
        };
        let known = question("api.Example.com");
        assert_eq!((known[3] & 0xf, known[7]), (0, 1));
        assert!(known.ends_with(&ADDRESS));
        assert_eq!(question("web.shop.svc")[3] & 0xf, 3);
    }
}

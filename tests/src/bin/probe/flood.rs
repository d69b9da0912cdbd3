//! Many UDP flows, each from a port of its own, and for each the answer that is its own and nobody else's.
//!
//! Questions differ in length, and answers are as long as their questions: a mixed-up answer has another.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use crate::{Flood, print};

/// Sockets that are open at once.
const BATCH: usize = 500;
/// The first port that is used.
const FIRST_PORT: u16 = 1024;
/// Lengths of questions.
const LENGTHS: usize = 997;
const SHORTEST: usize = 64;
/// How long a batch waits after its last answer.
const QUIET: Duration = Duration::from_millis(100);

/// `probe flood`: prints how many flows were answered, not answered, and answered with another's answer.
pub(crate) fn run(flood: &Flood) -> Result<()> {
    let ports = (FIRST_PORT..=u16::MAX).flat_map(|port| flood.from.iter().map(move |ip| (*ip, port)));
    let flows: Vec<(IpAddr, u16)> = ports.take(flood.count).collect();
    let (mut answered, mut mixed) = (0_usize, 0_usize);
    for (batch, ends) in flows.chunks(BATCH).enumerate() {
        let mut waiting = Vec::with_capacity(BATCH);
        for (place, (ip, port)) in ends.iter().enumerate() {
            let socket = UdpSocket::bind(SocketAddr::new(*ip, *port)).context("cannot bind")?;
            socket.set_nonblocking(true)?;
            let length = SHORTEST + (batch * BATCH + place) % LENGTHS;
            socket.send_to(&vec![b'x'; length], flood.target).context("cannot send")?;
            waiting.push((socket, length));
        }
        let mut last = Instant::now();
        while !waiting.is_empty() && last.elapsed() < QUIET {
            let before = waiting.len();
            let mut buffer = [0; 2048];
            waiting.retain(|(socket, length)| match socket.recv(&mut buffer) {
                Ok(received) => {
                    answered += 1;
                    mixed += usize::from(received != *length);
                    false
                }
                Err(_) => true,
            });
            if waiting.len() == before {
                std::thread::sleep(Duration::from_millis(1));
            } else {
                last = Instant::now();
            }
        }
    }
    print(&json!({ "answered": answered, "unanswered": flows.len() - answered, "mixed": mixed }));
    Ok(())
}

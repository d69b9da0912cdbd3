//! Asks a DNS server for one name at a steady rate, each question from a socket of its own as a libc does, and tells
//! how many were not answered and over how long a time.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use crate::{Resolve, any, errno_name, print};

/// Questions a second of one thread: one that waits for an answer in vain must not hold up the others.
const PER_THREAD: u32 = 5;

#[derive(Default)]
struct Seen {
    answered: u64,
    /// When those questions were sent that were not answered.
    failed: Vec<Duration>,
    errors: std::collections::BTreeMap<String, u64>,
}

/// Asks, says first that it has begun, and in the end what came of it.
pub(crate) fn run(resolve: &Resolve) -> Result<()> {
    let query = question(&resolve.name).context("no domain name")?;
    let (begun, seen) = (Instant::now(), Mutex::new(Seen::default()));
    let threads = resolve.rate.div_ceil(PER_THREAD);
    print(&json!({"begun": true}));
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (query, seen) = (&query, &seen);
            scope.spawn(move || {
                let step = Duration::from_secs(1) / PER_THREAD;
                let mut next = begun + step * thread / threads;
                while next < begun + Duration::from_secs(resolve.seconds) {
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    let sent = begun.elapsed();
                    let said = ask(resolve.target, query, Duration::from_millis(resolve.timeout));
                    let mut seen = seen.lock().expect("no thread panics");
                    match said {
                        Ok(()) => seen.answered += 1,
                        Err(error) => {
                            seen.failed.push(sent);
                            *seen.errors.entry(errno_name(&error)).or_default() += 1;
                        }
                    }
                    next += step;
                }
            });
        }
    });
    let seen = seen.into_inner().expect("no thread panics");
    let span = seen.failed.iter().max().zip(seen.failed.iter().min()).map(|(last, first)| *last - *first);
    print(&json!({
        "answered": seen.answered, "failed": seen.failed.len(), "errors": seen.errors,
        "span_millis": u64::try_from(span.unwrap_or_default().as_millis())?,
    }));
    Ok(())
}

fn ask(target: SocketAddr, query: &[u8], timeout: Duration) -> std::io::Result<()> {
    let socket = UdpSocket::bind(any(target, 0))?;
    socket.connect(target)?;
    socket.set_read_timeout(Some(timeout))?;
    socket.send(query)?;
    let mut answer = [0; 512];
    let length = socket.recv(&mut answer)?;
    if length < 12 || answer[..2] != query[..2] || answer[3] & 15 != 0 {
        return Err(std::io::Error::other("not the answer"));
    }
    Ok(())
}

/// A question for the A records of a name; None where it is no name.
pub(crate) fn question(name: &str) -> Option<Vec<u8>> {
    let mut octets = vec![0x46, 0x57, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.trim_end_matches('.').split('.') {
        octets.push(u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?);
        octets.extend_from_slice(label.as_bytes());
    }
    octets.extend_from_slice(&[0, 0, 1, 0, 1]);
    Some(octets)
}

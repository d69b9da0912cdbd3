//! The same exchange with several targets in turn, timed: short connections, requests over kept connections, or
//! datagrams of an unconnected socket; and the server for the first, which answers each connection in its accept
//! loop, so that no thread start blurs the figures.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{Exchange, Race, print};

/// Exchanges in a row before the next target has its turn: what disturbs one disturbs all.
const BATCH: u32 = 50;
const TIMEOUT: Duration = Duration::from_secs(2);

/// Answers every connection once, in the shape of `probe serve`.
pub(crate) fn echo(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    print(&json!({ "listening": listen.to_string() }));
    let mut buffer = [0; 64];
    for mut stream in listener.incoming().map_while(Result::ok) {
        // A client that went away is the next one's turn.
        if stream.read(&mut buffer).is_ok() {
            let _ = stream.write_all(b"echo\n");
        }
    }
    Ok(())
}

/// `probe race`: prints for every round and target what an exchange took, in nanoseconds.
pub(crate) fn run(race: &Race) -> Result<()> {
    let runners = race.targets.iter().map(|target| Runner::new(race.exchange, *target));
    let mut runners = runners.collect::<Result<Vec<_>>>()?;
    let mut rounds = Vec::new();
    // The first round warms up and is not told.
    for round in 0..=race.rounds {
        let mut times: Vec<Vec<u64>> = vec![Vec::new(); runners.len()];
        for batch in 0..race.count.div_ceil(BATCH) as usize {
            // Who begins alternates as well.
            for turn in 0..runners.len() {
                let at = (batch + turn) % runners.len();
                for _ in 0..BATCH {
                    times[at].push(runners[at].exchange()?);
                }
            }
        }
        if round > 0 {
            rounds.push(times.iter_mut().map(|times| told(times)).collect::<Vec<Value>>());
        }
    }
    print(&json!({ "rounds": rounds }));
    Ok(())
}

/// One target with what is kept of it.
enum Runner {
    Connect(SocketAddr),
    Kept(TcpStream),
    Datagrams(UdpSocket, SocketAddr),
}

impl Runner {
    fn new(exchange: Exchange, target: SocketAddr) -> Result<Self> {
        Ok(match exchange {
            Exchange::Connect => Self::Connect(target),
            Exchange::Kept => {
                let stream = TcpStream::connect(target).with_context(|| format!("no way to {target}"))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(TIMEOUT))?;
                Self::Kept(stream)
            }
            Exchange::Datagrams => {
                let socket = UdpSocket::bind("0.0.0.0:0")?;
                socket.set_read_timeout(Some(TIMEOUT))?;
                Self::Datagrams(socket, target)
            }
        })
    }

    /// One exchange; what its measured part took. Of a short connection that is all but the close.
    fn exchange(&mut self) -> Result<u64> {
        let mut answer = [0; 64];
        let begun = Instant::now();
        let read = match self {
            Self::Connect(target) => {
                let stream = TcpStream::connect(*target)?;
                // A reset instead of a minute in TIME-WAIT, else the ports run out; the same for every target.
                socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
                (&stream).write_all(b"who\n")?;
                (&stream).read(&mut answer)?
            }
            Self::Kept(stream) => {
                stream.write_all(b"who\n")?;
                stream.read(&mut answer)?
            }
            Self::Datagrams(socket, target) => {
                socket.send_to(b"who\n", *target)?;
                socket.recv_from(&mut answer)?.0
            }
        };
        let taken = begun.elapsed();
        anyhow::ensure!(read > 0, "no answer");
        Ok(u64::try_from(taken.as_nanos()).unwrap_or(u64::MAX))
    }
}

/// Mean and quantiles of one round.
fn told(times: &mut [u64]) -> Value {
    times.sort_unstable();
    let at = |part: usize| times[times.len() * part / 100];
    let mean = times.iter().sum::<u64>() / times.len() as u64;
    json!({ "mean": mean, "p50": at(50), "p99": at(99) })
}

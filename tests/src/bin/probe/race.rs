//! Short connections to a service and to its endpoint in turn, timed; and the server for them, which answers
//! each connection in its accept loop, so that no thread start blurs the figures.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use crate::{Race, print};

/// Connections in a row before the other kind has its turn: what disturbs one disturbs both.
const BATCH: u32 = 50;

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

/// `probe race`: prints the nanoseconds per connection of every round.
pub(crate) fn run(race: &Race) -> Result<()> {
    let mut rounds = Vec::new();
    // The first round warms up and is not told.
    for round in 0..=race.rounds {
        let mut total = [Duration::ZERO; 2];
        for batch in 0..race.count.div_ceil(BATCH) {
            // Who begins alternates as well.
            let first = usize::from(batch % 2 == 0);
            for kind in [first, 1 - first] {
                let target = if kind == 0 { race.service } else { race.direct };
                let begun = Instant::now();
                for _ in 0..BATCH {
                    exchange(target)?;
                }
                total[kind] += begun.elapsed();
            }
        }
        let each = |time: Duration| time.as_nanos() / u128::from(race.count.div_ceil(BATCH) * BATCH);
        if round > 0 {
            rounds.push(json!({ "service": each(total[0]), "direct": each(total[1]) }));
        }
    }
    print(&json!({ "rounds": rounds }));
    Ok(())
}

fn exchange(target: SocketAddr) -> Result<()> {
    let stream = TcpStream::connect(target)?;
    // A reset instead of a minute in TIME-WAIT, else the ports run out; the same on both sides of the race.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    (&stream).write_all(b"who\n")?;
    let mut answer = [0; 64];
    anyhow::ensure!((&stream).read(&mut answer)? > 0, "no answer");
    Ok(())
}

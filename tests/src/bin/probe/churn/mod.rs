//! Services come and go by the hundred a second while clients resolve their names and connect at once. Tells how often
//! that failed, and whether ever another service answered: each has a backend of its own that says its address.
//!
//! `author` writes the objects for `probe api`; the clients here know of them only what the names say.

mod author;

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream, UdpSocket};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::json;

use crate::{Churn, errno_name, print, resolve};
use author::{Author, Life, PORT};

/// Clients that try one after another.
const CLIENTS: usize = 4;
/// A service that lives so long after its name was answered must be reached.
const LASTING: Duration = Duration::from_secs(1);
/// A name that has stood so long must be known.
const KNOWN: Duration = Duration::from_secs(1);
/// A client that was kept from connecting for longer did not connect at once.
const AT_ONCE: Duration = Duration::from_millis(100);
/// How long an answer or a connection may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What came of the tries.
#[derive(Default)]
struct Tally {
    /// Tries of services that lived on, and of these the failed ones.
    lasting: [u64; 2],
    /// The same of services that were soon deleted.
    passing: [u64; 2],
    /// Another service answered.
    misdirected: u64,
    /// The name was not there, as it may be: the service was new, or going.
    nameless: u64,
    /// The client was kept from connecting at once.
    late: u64,
    errors: BTreeMap<String, u64>,
}

/// What one try came to.
enum Tried {
    Nameless,
    Unanswered(io::Error),
    /// Connected, or not, and who answered.
    Dialed(Instant, io::Result<Ipv4Addr>),
}

/// Writes and tries until there were as many tries of services that lived on as are wanted.
pub(crate) fn run(churn: &Churn) -> Result<()> {
    let lives: Mutex<Vec<Life>> = Mutex::default();
    let (tally, lasting) = (Mutex::new(Tally::default()), AtomicU64::new(0));
    let mut author = Author::new(churn)?;
    print(&json!({"begun": true}));
    let done = || lasting.load(Ordering::Relaxed) >= churn.tries;
    let begun = Instant::now();
    std::thread::scope(|scope| -> Result<()> {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|client| {
                let (lives, tally, lasting) = (&lives, &tally, &lasting);
                scope.spawn(move || -> Result<()> {
                    let mut client = Client::new(churn.server, client as u64)?;
                    while !done() {
                        let Some((number, life)) = client.pick(lives) else { continue };
                        let tried = client.attempt(number)?;
                        let mut tally = tally.lock().expect("no thread panics");
                        tally.count(tried, number, life);
                        lasting.store(tally.lasting[0], Ordering::Relaxed);
                    }
                    Ok(())
                })
            })
            .collect();
        while !clients.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            author.write(&lives)?;
        }
        clients.into_iter().try_for_each(|client| client.join().expect("no thread panics"))
    })?;
    let (tally, written) = (tally.into_inner()?, lives.into_inner()?.len());
    let seconds = begun.elapsed().saturating_sub(author::LEAD).as_secs_f64();
    print(&json!({
        "lasting": tally.lasting, "passing": tally.passing, "misdirected": tally.misdirected,
        "nameless": tally.nameless, "late": tally.late, "errors": tally.errors,
        "services": written, "reused": author.reused, "rate": f64::from(u32::try_from(written)?) / seconds,
    }));
    Ok(())
}

impl Tally {
    fn count(&mut self, tried: Tried, number: u64, life: Life) {
        let now = Instant::now();
        match tried {
            // Of a name that stood and stands nobody may say that it is not there.
            Tried::Nameless if life.born + KNOWN < now && now + LASTING < life.dies => {
                self.fail(true, "no such name");
            }
            Tried::Nameless => self.nameless += 1,
            Tried::Unanswered(error) => {
                self.fail(now + LASTING < life.dies, &format!("DNS: {}", errno_name(&error)))
            }
            Tried::Dialed(answered, outcome) => {
                let lasting = answered + LASTING < life.dies;
                let late = now > answered + AT_ONCE;
                match outcome {
                    Ok(from) if from == author::backend(number) => self.row(lasting)[0] += 1,
                    Ok(_) if late && !lasting => self.late += 1,
                    Ok(from) => {
                        self.misdirected += 1;
                        self.fail(lasting, &format!("s{number} led to {from}"));
                    }
                    Err(error) => self.fail(lasting, &errno_name(&error)),
                }
            }
        }
    }

    fn row(&mut self, lasting: bool) -> &mut [u64; 2] {
        if lasting { &mut self.lasting } else { &mut self.passing }
    }

    fn fail(&mut self, lasting: bool, error: &str) {
        let row = self.row(lasting);
        row[0] += 1;
        row[1] += 1;
        let kind = if lasting { "lasting" } else { "passing" };
        *self.errors.entry(format!("{kind}: {error}")).or_default() += 1;
    }
}

struct Client {
    socket: UdpSocket,
    random: u64,
}

impl Client {
    fn new(server: SocketAddr, seed: u64) -> Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(server)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, random: 0x9e37_79b9_7f4a_7c15 ^ seed << 32 })
    }

    /// One of the services that are there, or have just gone.
    fn pick(&mut self, lives: &Mutex<Vec<Life>>) -> Option<(u64, Life)> {
        self.random = author::next(self.random);
        let lives = lives.lock().expect("no thread panics");
        let oldest = lives.len().saturating_sub(author::LIVING);
        let number =
            oldest + usize::try_from(self.random).unwrap_or_default() % (lives.len() - oldest).max(1);
        let life = *lives.get(number)?;
        (Instant::now() < life.dies + AT_ONCE).then_some((number as u64, life))
    }

    fn attempt(&self, number: u64) -> Result<Tried> {
        let address = match self.resolve(number)? {
            Ok(Some(address)) => address,
            Ok(None) => return Ok(Tried::Nameless),
            Err(error) => return Ok(Tried::Unanswered(error)),
        };
        Ok(Tried::Dialed(Instant::now(), dial(SocketAddrV4::new(address, PORT))))
    }

    /// The address of a service; None if there is none.
    fn resolve(&self, number: u64) -> Result<io::Result<Option<Ipv4Addr>>> {
        let mut query = resolve::question(&author::domain_name(number)).context("a domain name")?;
        // What comes too late for one question is no answer to the next.
        let [.., high, low] = number.to_be_bytes();
        query[..2].copy_from_slice(&[high, low]);
        let mut answer = [0; 512];
        Ok(self.socket.send(&query).and_then(|_| {
            loop {
                let length = self.socket.recv(&mut answer)?;
                let Some(answer) = answer.get(..length).filter(|answer| answer.starts_with(&query[..2]))
                else {
                    continue;
                };
                return match (answer[3] & 15, answer.last_chunk::<4>()) {
                    (0, Some(address)) if answer[7] == 1 => Ok(Some(Ipv4Addr::from(*address))),
                    (0 | 3, _) => Ok(None),
                    (code, _) => Err(io::Error::other(format!("rcode {code}"))),
                };
            }
        }))
    }
}

/// Connects, and reads which backend it is.
fn dial(address: SocketAddrV4) -> io::Result<Ipv4Addr> {
    let stream = TcpStream::connect_timeout(&address.into(), PATIENCE)?;
    // A reset instead of a minute in TIME-WAIT, else the ports run out.
    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    (&stream).write_all(b"who\n")?;
    let mut answer = String::new();
    BufReader::new(&stream).read_line(&mut answer)?;
    let address = answer.split(' ').next().and_then(|word| word.parse().ok());
    address.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

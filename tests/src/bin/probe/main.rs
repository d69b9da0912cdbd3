//! The program that tests and demo put into pods: it answers with its own name, and asks and counts answers.
//!
//! One JSON object per line on standard output, so that a test reads results and not prose. It knows
//! nothing of Fairway.

mod api;
mod churn;
mod client;
mod flood;
mod flow;
mod fragments;
mod ping;
mod race;
mod resolve;
mod server;
mod syns;
mod upstream;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, Parser, Subcommand, ValueEnum};
use socket2::{Domain, Protocol, Socket, Type};

/// Answers with its own name, or asks and counts answers.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer every line, HTTP request and datagram with the own name and the client's address.
    Serve(Serve),
    /// Make connections one after the other; print who answered how often.
    Tcp(Ask),
    /// Send datagrams one after the other; print who answered how often, and from which address.
    Udp(Datagrams),
    /// Keep one flow: an exchange for every line of standard input.
    Keep(Keep),
    /// Open many UDP flows; print how many were answered, and whether by the right answer.
    Flood(Flood),
    /// Send one datagram in fragments, the last one first; print whether the whole of it was answered.
    Fragments {
        /// Whom to ask.
        target: SocketAddr,
        /// The length of the question.
        #[arg(long, default_value_t = 5000)]
        bytes: usize,
    },
    /// Send the first packets of many connections from ports and addresses of nobody.
    Syns {
        /// To whom.
        target: SocketAddrV4,
        /// The first of 64 addresses to send from.
        #[arg(long)]
        from: Ipv4Addr,
        /// How many.
        #[arg(long)]
        count: u32,
    },
    /// Connect one socket to a service, disconnect it, and connect it to a pod.
    Reconnect {
        /// The service.
        service: SocketAddr,
        /// The pod.
        pod: SocketAddr,
    },
    /// Send one ICMP echo and await its reply.
    Ping {
        /// Whom.
        address: IpAddr,
    },
    /// Answer as an API server does, from files.
    Api {
        /// Where to listen.
        listen: SocketAddr,
        /// The folder of the files.
        folder: PathBuf,
    },
    /// Write services that come and go for `probe api`, resolve their names and connect at once; print how often
    /// that failed.
    Churn(Churn),
    /// Answer every connection once, as cheaply as can be.
    Echo {
        /// Where to listen.
        listen: SocketAddr,
    },
    /// Time exchanges with several targets in turn.
    Race(Race),
    /// Ask a DNS server for a name at a steady rate; print what was not answered, and over how long a time.
    Resolve(Resolve),
    /// Answer DNS questions for a few names as a server outside the cluster would.
    Upstream {
        /// Where to listen.
        listen: SocketAddr,
    },
}

#[derive(Args)]
struct Serve {
    /// What to answer; the address asked if this is not said.
    #[arg(long, default_value = "")]
    name: String,
    /// TCP addresses to listen on.
    #[arg(long)]
    tcp: Vec<SocketAddr>,
    /// UDP addresses to listen on.
    #[arg(long)]
    udp: Vec<SocketAddr>,
}

#[derive(Args)]
struct Ask {
    /// Whom to ask.
    target: SocketAddr,
    /// How often.
    #[arg(long, default_value_t = 1)]
    count: u32,
    /// The least length of question and answer.
    #[arg(long, default_value_t = 0)]
    bytes: usize,
    /// How long to wait for an answer, in milliseconds.
    #[arg(long, default_value_t = 2000)]
    timeout: u64,
}

#[derive(Args)]
struct Datagrams {
    #[command(flatten)]
    ask: Ask,
    /// Source port, the same for every datagram.
    #[arg(long, default_value_t = 0)]
    local_port: u16,
    /// Connect the socket instead of naming the target with every datagram.
    #[arg(long)]
    connected: bool,
    /// Use one socket for all datagrams.
    #[arg(long)]
    one_socket: bool,
    /// Ask an IPv4 target from an IPv6 socket.
    #[arg(long)]
    mapped: bool,
}

#[derive(Args)]
struct Keep {
    /// Whom to ask.
    target: SocketAddr,
    /// A connected UDP socket instead of a TCP connection.
    #[arg(long)]
    udp: bool,
    /// Source port of the UDP socket, shared with others.
    #[arg(long, default_value_t = 0)]
    local_port: u16,
}

#[derive(Args)]
struct Resolve {
    /// The server.
    target: SocketAddr,
    /// The name.
    name: String,
    /// Questions a second.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// For how long.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How long to wait for an answer, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    timeout: u64,
}

#[derive(Args)]
struct Churn {
    /// The folder of `probe api`.
    folder: PathBuf,
    /// The DNS server.
    #[arg(long)]
    server: SocketAddr,
    /// Services made in a second, and as many deleted.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Tries of services that live on.
    #[arg(long)]
    tries: u64,
}

#[derive(Args)]
struct Flood {
    /// Whom to ask.
    target: SocketAddr,
    /// Own addresses to ask from.
    #[arg(long)]
    from: Vec<IpAddr>,
    /// How many flows.
    #[arg(long)]
    count: usize,
}

#[derive(Args)]
struct Race {
    /// What is timed.
    exchange: Exchange,
    /// The targets.
    #[arg(required = true)]
    targets: Vec<SocketAddr>,
    /// Rounds that are told.
    #[arg(long)]
    rounds: u32,
    /// Exchanges with each target a round.
    #[arg(long)]
    count: u32,
}

/// What a race is about.
#[derive(Clone, Copy, ValueEnum)]
enum Exchange {
    /// A connection with one question.
    Connect,
    /// A question over a connection that is kept.
    Kept,
    /// A datagram of an unconnected socket and its answer.
    Datagrams,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Serve(serve) => server::run(&serve).map(|never| match never {}),
        Command::Tcp(ask) => client::tcp(&ask),
        Command::Udp(datagrams) => client::udp(&datagrams),
        Command::Keep(keep) => flow::keep(&keep),
        Command::Flood(flood) => flood::run(&flood),
        Command::Fragments { target, bytes } => fragments::run(target, bytes),
        Command::Syns { target, from, count } => syns::run(target, from, count),
        Command::Reconnect { service, pod } => flow::reconnect(service, pod),
        Command::Ping { address } => ping::run(address),
        Command::Api { listen, folder } => api::run(listen, &folder),
        Command::Churn(churn) => churn::run(&churn),
        Command::Echo { listen } => race::echo(listen),
        Command::Race(race) => race::run(&race),
        Command::Resolve(resolve) => resolve::run(&resolve),
        Command::Upstream { listen } => upstream::run(listen),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "probe: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Writes one line of JSON.
fn print(value: &serde_json::Value) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{value}");
    let _ = out.flush();
}

/// The name of an error as the kernel's headers have it: what a test compares.
fn errno_name(error: &std::io::Error) -> String {
    use rustix::io::Errno;
    let Some(errno) = Errno::from_io_error(error) else {
        return format!("{:?}", error.kind());
    };
    let known = [
        (Errno::CONNREFUSED, "ECONNREFUSED"),
        (Errno::CONNRESET, "ECONNRESET"),
        (Errno::CONNABORTED, "ECONNABORTED"),
        (Errno::DESTADDRREQ, "EDESTADDRREQ"),
        (Errno::HOSTUNREACH, "EHOSTUNREACH"),
        (Errno::NETUNREACH, "ENETUNREACH"),
        (Errno::PERM, "EPERM"),
        (Errno::PIPE, "EPIPE"),
        (Errno::TIMEDOUT, "ETIMEDOUT"),
        // A receive timeout; a connect timeout has no errno and is named by its kind.
        (Errno::AGAIN, "timeout"),
    ];
    known
        .iter()
        .find(|(code, _)| *code == errno)
        .map_or_else(|| format!("{errno:?}"), |(_, name)| (*name).to_owned())
}

/// Any address of this machine, in the family of those whom it is to talk to.
const fn any(target: SocketAddr, port: u16) -> SocketAddr {
    let ip = match target.ip() {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    SocketAddr::new(ip, port)
}

/// A raw socket; what is sent has its IP header.
fn raw_socket(domain: Domain) -> anyhow::Result<Socket> {
    const IPPROTO_RAW: i32 = 255;
    Socket::new(domain, Type::RAW, Some(Protocol::from(IPPROTO_RAW))).context("cannot open a raw socket")
}

/// RFC 1071.
fn checksum(data: &[u8]) -> u16 {
    let pairs = data.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u64 = pairs.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

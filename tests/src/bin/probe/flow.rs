//! One socket over a longer time: an exchange for every line of standard input, or from a service to a pod
//! with a disconnect between.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::{Keep, any, errno_name, print};

const TIMEOUT: Duration = Duration::from_secs(2);

/// `probe keep`: prints the peer once connected, then one line for every exchange.
pub(crate) fn keep(arguments: &Keep) -> Result<()> {
    let mut exchange: Box<dyn FnMut() -> io::Result<String>> = if arguments.udp {
        let socket = shared(arguments)?;
        socket.connect(arguments.target).context("cannot connect")?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        print(&json!({ "peer": socket.peer_addr()?.to_string() }));
        Box::new(move || ask_datagram(&socket))
    } else {
        let stream = TcpStream::connect_timeout(&arguments.target, TIMEOUT).context("cannot connect")?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        print(&json!({ "peer": stream.peer_addr()?.to_string() }));
        Box::new(move || ask_stream(&stream))
    };
    for line in io::stdin().lines() {
        line?;
        print(&outcome(exchange()));
    }
    Ok(())
}

/// A UDP socket that shares its port.
fn shared(arguments: &Keep) -> Result<UdpSocket> {
    let domain = socket2::Domain::for_address(arguments.target);
    let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&any(arguments.target, arguments.local_port).into()).context("cannot bind")?;
    Ok(socket.into())
}

/// `probe reconnect`: what getpeername says of one socket that goes from a service to a pod.
pub(crate) fn reconnect(service: SocketAddr, pod: SocketAddr) -> Result<()> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(service), socket2::Type::STREAM, None)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.connect(&service.into()).context("cannot connect to the service")?;
    let first = peer(&socket)?;
    rustix::net::connect_unspec(&socket).context("cannot disconnect")?;
    socket.connect(&pod.into()).context("cannot connect to the pod")?;
    let second = peer(&socket)?;
    print(&json!({ "service": first, "pod": second }));
    let stream = TcpStream::from(socket);
    for line in io::stdin().lines() {
        line?;
        print(&outcome(ask_stream(&stream)));
    }
    Ok(())
}

fn peer(socket: &socket2::Socket) -> Result<String> {
    let address = socket.peer_addr()?.as_socket().context("an IP socket has an IP peer")?;
    Ok(address.to_string())
}

fn ask_stream(stream: &TcpStream) -> io::Result<String> {
    let mut writer = stream;
    writer.write_all(b"who\n")?;
    let mut answer = String::new();
    match BufReader::new(stream).read_line(&mut answer)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(answer),
    }
}

fn ask_datagram(socket: &UdpSocket) -> io::Result<String> {
    socket.send(b"who\n")?;
    let mut buffer = [0; 1500];
    let length = socket.recv(&mut buffer)?;
    Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned())
}

fn outcome(result: io::Result<String>) -> Value {
    match result {
        Ok(answer) => json!({ "answer": answer.split_whitespace().next().unwrap_or_default() }),
        Err(error) => json!({ "error": errno_name(&error) }),
    }
}

//! Addresses, servers that say who they are, and clients. Everything a test starts here ends with its own
//! process.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

/// How long a client waits for an answer that must come.
const PATIENCE: Duration = Duration::from_secs(5);

/// Gives the loopback device another address.
pub(crate) fn add_address(ip: &str) {
    // Even on loopback an IPv6 address is tentative until a kernel thread has looked at it, unless asked not to.
    let prefix = if ip.contains(':') { "128 nodad" } else { "32" };
    super::run(&format!("ip addr add {ip}/{prefix} dev lo"));
}

/// A TCP server that answers every connection with its own address and the client's; it lives as long as the
/// process.
pub(crate) fn tcp_server(address: &str) {
    let listener = TcpListener::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            std::thread::spawn(move || {
                let me = stream.local_addr().expect("a local address");
                while let Ok(1..) = stream.read(&mut [0; 64]) {
                    let _ = stream.write_all(format!("{me}\n").as_bytes());
                }
            });
        }
    });
}

/// A UDP server that answers every datagram with its own address.
pub(crate) fn udp_server(address: &str) {
    let socket = UdpSocket::bind(address).unwrap_or_else(|error| panic!("{address}: {error}"));
    let me = socket.local_addr().expect("a local address").to_string();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(me.as_bytes(), client);
        }
    });
}

/// An address on the loopback device with a TCP and a UDP server on one port.
pub(crate) fn backend(ip: &str, port: u16) {
    add_address(ip);
    serve(ip, port);
}

/// A TCP and a UDP server.
pub(crate) fn serve(ip: &str, port: u16) {
    let address = SocketAddr::new(ip.parse().expect("an address"), port).to_string();
    tcp_server(&address);
    udp_server(&address);
}

/// Connects.
pub(crate) fn dial(address: &str) -> std::io::Result<TcpStream> {
    let address: SocketAddr = address.parse().unwrap_or_else(|_| panic!("{address:?} is no socket address"));
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// What the server at the other end says of itself.
pub(crate) fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(b"who?").expect("the server takes a question");
    let mut buffer = [0; 128];
    let read = stream.read(&mut buffer).expect("the server answers");
    String::from_utf8_lossy(&buffer[..read]).trim().to_owned()
}

/// Which server a new connection reaches.
pub(crate) fn reach(address: &str) -> String {
    ask(&mut dial(address).unwrap_or_else(|error| panic!("{address}: {error}")))
}

/// Why a connection cannot be made.
pub(crate) fn refused(address: &str) -> std::io::ErrorKind {
    dial(address).expect_err("the connection must fail").kind()
}

/// An unconnected UDP socket of the family of `like`.
pub(crate) fn udp_socket(like: &str) -> UdpSocket {
    let like: SocketAddr = like.parse().expect("a socket address");
    let any: IpAddr = if like.is_ipv4() { "0.0.0.0" } else { "::" }.parse().expect("an address");
    let socket = UdpSocket::bind((any, 0)).expect("a socket");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    socket
}

/// Sends a datagram and waits for the answer: what the server says of itself, and where it seems to come from.
pub(crate) fn exchange(socket: &UdpSocket, address: &str) -> std::io::Result<(String, SocketAddr)> {
    socket.send_to(b"who?", address)?;
    let mut buffer = [0; 128];
    let (read, from) = socket.recv_from(&mut buffer)?;
    Ok((String::from_utf8_lossy(&buffer[..read]).into_owned(), from))
}

/// connect(AF_UNSPEC): the socket has no peer any more.
pub(crate) fn disconnect(socket: &UdpSocket) {
    use std::os::fd::AsRawFd;
    let nobody = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };
    // SAFETY: a valid address of the size given.
    let result = unsafe { libc::connect(socket.as_raw_fd(), &raw const nobody, 16) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Whether a connection is made within half a second: an address that nobody has swallows it silently.
pub(crate) fn reachable(vip: &str) -> bool {
    TcpStream::connect_timeout(&vip.parse().expect("a socket address"), Duration::from_millis(500)).is_ok()
}

/// Runs `body` in a network namespace of its own, as a pod would: same cgroup, other namespace.
pub(crate) fn in_pod<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let pod = scope.spawn(|| {
            // SAFETY: a system call without pointers; it changes this thread alone.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_NEWNET) }, 0, "a namespace for the pod");
            super::run("ip link set lo up");
            // The process by which the node finds a pod's namespace.
            let mut pause = std::process::Command::new("sleep").arg("3600").spawn().expect("a pause process");
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            pause.kill().and_then(|()| pause.wait()).expect("the pause process ends");
            done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        });
        pod.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The cookie of a socket.
pub(crate) fn cookie(socket: &UdpSocket) -> u64 {
    let mut cookie = 0_u64;
    let mut len: libc::socklen_t = 8;
    // SAFETY: the option writes at most `len` bytes to `cookie`.
    let result = unsafe {
        let value = (&raw mut cookie).cast();
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_COOKIE, value, &raw mut len)
    };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
    cookie
}

/// How many sockets have a record in their seat, and how many beside it.
pub(crate) fn records(bpf_dir: &Path) -> (usize, usize) {
    let open = |name: &str| aya::maps::MapData::from_pin(bpf_dir.join(name)).expect("it is pinned");
    let seats: aya::maps::Array<_, [u64; 8]> =
        aya::maps::Map::Array(open(ebpf::maps::RECORDS)).try_into().expect("its kind");
    let aside: aya::maps::HashMap<_, u64, [u8; 32]> =
        aya::maps::Map::HashMap(open(ebpf::maps::REVERSE)).try_into().expect("its kind");
    (seats.iter().filter(|seat| seat.as_ref().expect("an element")[0] != 0).count(), aside.keys().count())
}

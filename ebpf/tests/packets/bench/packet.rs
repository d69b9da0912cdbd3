//! Packets in memory: made from addresses and ports, read back, and every checksum of them summed anew.
//! Nothing here shares code with what it tests.

use std::cell::RefCell;
use std::net::IpAddr;

use ebpf::address::Address;

const ETHERNET: usize = 14;
const PAYLOAD: usize = 40;

/// One frame.
#[derive(Clone)]
pub(crate) struct Packet(pub(super) RefCell<Vec<u8>>);

type End<'a> = (&'a str, u16);

/// The source port.
pub(crate) fn client_port(packet: &Packet) -> u16 {
    let bytes = packet.bytes();
    let at = transport(&bytes);
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

impl Packet {
    /// A packet with some payload.
    pub(crate) fn new(from: End<'_>, to: End<'_>, protocol: u8, flags: u8) -> Self {
        let mut body = Vec::new();
        body.extend(from.1.to_be_bytes());
        body.extend(to.1.to_be_bytes());
        if protocol == 6 {
            body.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
        } else {
            body.extend(u16::try_from(8 + PAYLOAD).unwrap().to_be_bytes());
            body.extend([0, 0]);
        }
        body.extend((0..PAYLOAD).map(|byte| u8::try_from(byte).unwrap()));
        Self::around(from.0, to.0, protocol, body)
    }

    /// An echo.
    pub(crate) fn echo(from: &str, to: &str, kind: u8, id: u16) -> Self {
        let mut body = vec![kind, 0, 0, 0];
        body.extend(id.to_be_bytes());
        body.extend([0, 9, 1, 2, 3, 4]);
        Self::around(from, to, if from.contains(':') { 58 } else { 1 }, body)
    }

    /// "Too big", about a packet.
    pub(crate) fn error(from: &str, about: &Self) -> Self {
        let inside = about.bytes()[ETHERNET..].to_vec();
        let six = inside[0] >> 4 == 6;
        let source = if six { ip(&inside[8..24]) } else { ip(&inside[12..16]) };
        let mut body = if six { vec![2, 0, 0, 0, 0, 0, 5, 0] } else { vec![3, 4, 0, 0, 0, 0, 5, 0] };
        body.extend(&inside[..if six { 48 } else { 28 }]);
        Self::around(from, &source.to_string(), if six { 58 } else { 1 }, body)
    }

    fn around(from: &str, to: &str, protocol: u8, mut body: Vec<u8>) -> Self {
        let (from, to): (IpAddr, IpAddr) = (from.parse().unwrap(), to.parse().unwrap());
        let field = check_field(protocol);
        let sum = sum(&body, &pseudo(from, to, protocol, body.len()), protocol);
        body[field..field + 2].copy_from_slice(&sum.to_be_bytes());
        let mut bytes = vec![0; 12];
        match (from, to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                bytes.extend([8, 0, 0x45, 0]);
                bytes.extend(u16::try_from(20 + body.len()).unwrap().to_be_bytes());
                bytes.extend([0, 77, 0, 0, 64, protocol, 0, 0]);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
                let sum = whole(&bytes[ETHERNET..]);
                bytes[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
                bytes.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
                bytes.extend([protocol, 64]);
                bytes.extend(from.octets());
                bytes.extend(to.octets());
            }
            _ => panic!("one family"),
        }
        bytes.extend(body);
        Self(RefCell::new(bytes))
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.borrow().clone()
    }

    /// Its first bytes.
    pub(crate) fn cut(&self, length: usize) -> Self {
        Self(RefCell::new(self.bytes()[..length].to_vec()))
    }

    /// The same with a tag or two before the type.
    pub(crate) fn tagged(&self, tags: usize) -> Self {
        let mut bytes = self.bytes();
        for _ in 0..tags {
            bytes.splice(12..12, [0x81, 0, 0, 5]);
        }
        Self(RefCell::new(bytes))
    }

    /// An IPv4 packet with four bytes of options.
    pub(crate) fn with_options(&self) -> Self {
        let mut bytes = self.bytes();
        bytes[ETHERNET] = 0x46;
        bytes.splice(ETHERNET + 20..ETHERNET + 20, [1, 1, 1, 0]);
        let total = u16::try_from(bytes.len() - ETHERNET).unwrap();
        bytes[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&total.to_be_bytes());
        Self(RefCell::new(bytes))
    }

    /// The packet in two fragments.
    pub(crate) fn fragments(&self) -> [Self; 2] {
        let bytes = self.bytes();
        let at = transport(&bytes);
        let (header, body) = bytes.split_at(at);
        [(0, &body[..16]), (16, &body[16..])].map(|(offset, part)| {
            let mut bytes = header.to_vec();
            let more = u16::from(offset == 0);
            if is_six(&bytes) {
                let protocol = std::mem::replace(&mut bytes[ETHERNET + 6], 44);
                bytes.extend([protocol, 0]);
                bytes.extend((u16::try_from(offset).unwrap() | more).to_be_bytes());
                bytes.extend([0, 0, 0, 99]);
                let length = u16::try_from(part.len() + 8).unwrap();
                bytes[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&length.to_be_bytes());
            } else {
                let field = u16::try_from(offset / 8).unwrap() | more << 13;
                bytes[ETHERNET + 6..ETHERNET + 8].copy_from_slice(&field.to_be_bytes());
                let length = u16::try_from(part.len() + 20).unwrap();
                bytes[ETHERNET + 2..ETHERNET + 4].copy_from_slice(&length.to_be_bytes());
                bytes[ETHERNET + 10..ETHERNET + 12].fill(0);
                let sum = whole(&bytes[ETHERNET..]);
                bytes[ETHERNET + 10..ETHERNET + 12].copy_from_slice(&sum.to_be_bytes());
            }
            bytes.extend(part);
            Self(RefCell::new(bytes))
        })
    }

    /// What a receiver makes of the fragments.
    pub(crate) fn joined([first, second]: &[Self; 2]) -> Self {
        let (first, second) = (first.bytes(), second.bytes());
        let ip = if is_six(&first) { 40 } else { 20 };
        let behind = if is_six(&first) { 48 } else { 20 };
        let addresses = Self(RefCell::new(first.clone())).addresses();
        let protocol = if is_six(&first) { first[ETHERNET + ip] } else { first[ETHERNET + 9] };
        let mut body = first[ETHERNET + behind..].to_vec();
        body.extend(&second[ETHERNET + behind..]);
        let field = check_field(protocol);
        let sum = [body[field], body[field + 1]];
        let (from, to) = (IpAddr::from(addresses.0), IpAddr::from(addresses.1));
        let joined = Self::around(&from.to_string(), &to.to_string(), protocol, body);
        let at = transport(&joined.bytes()) + field;
        joined.0.borrow_mut()[at..at + 2].copy_from_slice(&sum);
        joined
    }

    pub(crate) fn addresses(&self) -> (Address, Address) {
        let bytes = self.bytes();
        let (from, to) = ends(&bytes[ETHERNET..]);
        (from.into(), to.into())
    }

    pub(crate) fn echo_id(&self) -> u16 {
        let bytes = self.bytes();
        let at = transport(&bytes) + 4;
        u16::from_be_bytes([bytes[at], bytes[at + 1]])
    }

    /// Compares addresses and ports, and every checksum.
    #[track_caller]
    pub(crate) fn is(&self, from: End<'_>, to: End<'_>) {
        let bytes = self.bytes();
        let tags = bytes.len() - untagged(&bytes).len();
        let bytes = untagged(&bytes);
        assert_eq!(read(&bytes[ETHERNET..]), written(from, to), "{tags} bytes of tags");
        self.check();
    }

    /// The same for the packet inside an error.
    #[track_caller]
    pub(crate) fn inside(&self, from: End<'_>, to: End<'_>) {
        self.check();
        let bytes = self.bytes();
        let inside = &bytes[transport(&bytes) + 8..];
        assert_eq!(read(inside), written(from, to));
        if inside[0] >> 4 == 4 {
            assert_eq!(whole(&inside[..20]), 0, "the header inside");
        }
    }

    /// Every checksum is right.
    #[track_caller]
    pub(crate) fn check(&self) {
        let bytes = untagged(&self.bytes());
        let (from, to) = ends(&bytes[ETHERNET..]);
        let at = transport(&bytes);
        let protocol = bytes[ETHERNET + if is_six(&bytes) { 6 } else { 9 }];
        if !is_six(&bytes) {
            assert_eq!(whole(&bytes[ETHERNET..ETHERNET + 20]), 0, "the IPv4 header");
        }
        let body = &bytes[at..];
        let pseudo = pseudo(from, to, protocol, body.len());
        assert!([0, 0xffff].contains(&sum(body, &pseudo, protocol)), "the transport header of {protocol}");
    }
}

fn written(from: End<'_>, to: End<'_>) -> (IpAddr, u16, IpAddr, u16) {
    (from.0.parse().unwrap(), from.1, to.0.parse().unwrap(), to.1)
}

/// Addresses and ports of an IP packet.
fn read(bytes: &[u8]) -> (IpAddr, u16, IpAddr, u16) {
    let (from, to) = ends(bytes);
    let at = if bytes[0] >> 4 == 6 { 40 } else { 20 };
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    (from, port(at), to, port(at + 2))
}

fn untagged(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    while bytes[12..14] == [0x81, 0] {
        bytes.drain(12..16);
    }
    bytes
}

fn is_six(bytes: &[u8]) -> bool {
    bytes[ETHERNET] >> 4 == 6
}

fn transport(bytes: &[u8]) -> usize {
    ETHERNET + if is_six(bytes) { 40 } else { 20 }
}

fn ends(bytes: &[u8]) -> (IpAddr, IpAddr) {
    if bytes[0] >> 4 == 6 {
        return (ip(&bytes[8..24]), ip(&bytes[24..40]));
    }
    (ip(&bytes[12..16]), ip(&bytes[16..20]))
}

fn ip(bytes: &[u8]) -> IpAddr {
    match <[u8; 4]>::try_from(bytes) {
        Ok(bytes) => bytes.into(),
        Err(_) => <[u8; 16]>::try_from(bytes).unwrap().into(),
    }
}

fn check_field(protocol: u8) -> usize {
    match protocol {
        6 => 16,
        17 => 6,
        _ => 2,
    }
}

fn pseudo(from: IpAddr, to: IpAddr, protocol: u8, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for ip in [from, to] {
        match ip {
            IpAddr::V4(ip) => bytes.extend(ip.octets()),
            IpAddr::V6(ip) => bytes.extend(ip.octets()),
        }
    }
    bytes.extend(u32::try_from(length).unwrap().to_be_bytes());
    bytes.extend([0, protocol]);
    bytes
}

/// The checksum of a transport header; ICMP of IPv4 alone has no pseudo-header.
fn sum(body: &[u8], pseudo: &[u8], protocol: u8) -> u16 {
    let pseudo = if protocol == 1 { &[] } else { pseudo };
    whole(&[pseudo, body].concat())
}

fn whole(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let sum: u32 = words.sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap()
}

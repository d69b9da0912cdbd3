//! A hostPort: a port of the node that leads to a port of a pod. Taken in the map of the hooks, where one pod wins;
//! the other is told who has it. Called by attach; the daemon asks which of them a Service answers on.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;

use crate::attachment::Attachment;
use crate::bpf::{HostPortEntry, HostPortKey, HostPorts, MapError};
use crate::netlink::{Netlink, NetlinkError};

/// A port of the node that leads to a port of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The node's address that it is limited to; None is any. An unspecified one is any of its family.
    pub address: Option<IpAddr>,
    /// The port of the node.
    pub port: u16,
    /// Its protocol.
    pub protocol: HostProtocol,
    /// The port of the pod.
    pub container_port: u16,
}

/// The protocols that the hooks lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostProtocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// A port of the node cannot lead to the pod.
#[derive(Debug, thiserror::Error)]
pub enum HostPortError {
    /// Another pod has it.
    #[error("hostPort {port} is taken by {owner}")]
    Taken {
        /// The port.
        port: HostPort,
        /// Who has it, for people.
        owner: String,
    },
    /// The pod has no address of the family.
    #[error("hostPort {0}: the pod has no address of that family")]
    Family(HostPort),
    /// The daemon has not made the map.
    #[error("hostPort {0}: there is no map for it yet: the daemon has not started on this node")]
    NoMap(HostPort),
    /// The map.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The owner could not be looked for.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Leads `ports` to the pod with these addresses whose host end is `index`. At an error, what was taken so far is in
/// the map still: [`HostPorts::release`] gives it back.
pub(crate) fn take(
    node: &mut Netlink,
    map: Option<&HostPorts>,
    ports: &[HostPort],
    (index, addresses): (u32, &[IpAddr]),
) -> Result<(), HostPortError> {
    let Some(first) = ports.first() else { return Ok(()) };
    let map = map.ok_or(HostPortError::NoMap(*first))?;
    for port in ports {
        let keys = port.keys(addresses);
        if keys.is_empty() {
            return Err(HostPortError::Family(*port));
        }
        for key in keys {
            take_one(node, map, (*port, key), index)?;
        }
    }
    Ok(())
}

fn take_one(
    node: &mut Netlink,
    map: &HostPorts,
    (port, key): (HostPort, HostPortKey),
    index: u32,
) -> Result<(), HostPortError> {
    let entry = HostPortEntry { index, container_port: port.container_port };
    // The second time is for a port whose owner is gone without a DEL.
    for _ in 0..2 {
        if map.take(key, entry)? {
            let own = node.addresses()?.into_iter().map(|(_, address, _)| address);
            for address in addresses_of_services(&own.collect::<Vec<_>>(), map, key)? {
                tracing::warn!(%address, port = key.port, "a Service answers on this hostPort, and wins");
            }
            return Ok(());
        }
        let Some(owner) = map.get(key)? else { continue };
        if owner == entry {
            // Two containers may name one pair of ports.
            return Ok(());
        }
        let links = node.veths()?;
        match links.iter().find(|link| link.index == owner.index) {
            Some(link) => return Err(HostPortError::Taken { port, owner: owner_name(link) }),
            None => map.remove_gone(&[(key, owner)], |_| true)?,
        };
    }
    Err(HostPortError::Taken { port, owner: "a pod that is just being attached".to_owned() })
}

fn owner_name(link: &crate::netlink::Link) -> String {
    match Attachment::of(link) {
        Some(Attachment { pod: Some(pod), .. }) => format!("pod {pod}"),
        Some(attachment) => format!("container {}", attachment.container_id),
        None => format!("link {}", link.name),
    }
}

/// Every hostPort that does not reach its pod because a Service answers there, as a sentence. In the network namespace
/// of the node.
pub fn shadowed(bpf_dir: &Path) -> Result<Vec<String>, HostPortError> {
    let Some(map) = HostPorts::open(bpf_dir)? else { return Ok(Vec::new()) };
    let entries = map.entries()?;
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let mut node = Netlink::open()?;
    let (links, own) = (node.veths()?, node.addresses()?);
    let own: Vec<IpAddr> = own.into_iter().map(|(_, address, _)| address).collect();
    let mut sentences = Vec::new();
    for (key, entry) in entries {
        let Some(link) = links.iter().find(|link| link.index == entry.index) else { continue };
        for address in addresses_of_services(&own, &map, key)? {
            let dialled = SocketAddr::new(address, key.port);
            let protocol = HostProtocol::from_number(key.protocol).map_or("?", HostProtocol::as_str);
            let owner = owner_name(link);
            sentences.push(format!(
                "a Service answers on {dialled}/{protocol}, so the hostPort of {owner} does not: give one of them another port"
            ));
        }
    }
    sentences.sort();
    Ok(sentences)
}

/// Where a Service answers of what the key stands for, `own` being the node's addresses.
fn addresses_of_services(own: &[IpAddr], map: &HostPorts, key: HostPortKey) -> Result<Vec<IpAddr>, MapError> {
    let dialled = if key.address.is_unspecified() { own } else { &[key.address] };
    let mut found = Vec::new();
    for address in dialled.iter().filter(|address| address.is_ipv4() == key.address.is_ipv4()) {
        if map.is_of_service(HostPortKey { address: *address, ..key })? {
            found.push(*address);
        }
    }
    Ok(found)
}

impl HostPort {
    /// The entries of the map that lead to a pod with these addresses.
    fn keys(&self, addresses: &[IpAddr]) -> Vec<HostPortKey> {
        let families = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
        let dialled = self.address.map_or(families.to_vec(), |address| vec![address.to_canonical()]);
        let has = |family: &IpAddr| addresses.iter().any(|address| address.is_ipv4() == family.is_ipv4());
        let key = |address| HostPortKey { address, port: self.port, protocol: self.protocol.number() };
        dialled.into_iter().filter(has).map(key).collect()
    }
}

impl HostProtocol {
    /// By its name, in any case; None for one that is not led.
    pub fn of(name: &str) -> Option<Self> {
        [Self::Tcp, Self::Udp].into_iter().find(|protocol| protocol.as_str().eq_ignore_ascii_case(name))
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }

    /// As in the IP header.
    const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }

    fn from_number(number: u8) -> Option<Self> {
        [Self::Tcp, Self::Udp].into_iter().find(|protocol| protocol.number() == number)
    }
}

/// `[[IP:]PORT:]CONTAINER-PORT[/PROTOCOL]`, as on the command line; an IPv6 address in brackets.
impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not [[IP:]PORT:]CONTAINER-PORT[/tcp|udp]");
        let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = HostProtocol::of(protocol).ok_or_else(wrong)?;
        let (rest, container) = rest.rsplit_once(':').unwrap_or(("", rest));
        let (address, port) = rest.rsplit_once(':').unwrap_or(("", rest));
        let number = |text: &str| text.parse().ok().filter(|port| *port != 0).ok_or_else(wrong);
        let container_port = number(container)?;
        let port = if port.is_empty() { container_port } else { number(port)? };
        let bare = address.strip_prefix('[').and_then(|address| address.strip_suffix(']')).unwrap_or(address);
        let address = match bare {
            "" => None,
            bare => Some(bare.parse().map_err(|_| wrong())?),
        };
        Ok(Self { address, port, protocol, container_port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(IpAddr::V4(ip)) => write!(f, "{ip}:")?,
            Some(IpAddr::V6(ip)) => write!(f, "[{ip}]:")?,
            None => {}
        }
        write!(f, "{}/{}", self.port, self.protocol.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(address: Option<&str>, pod: &[&str], expected: &[&str]) {
        let parse = |text: &&str| text.parse::<IpAddr>().unwrap();
        let port = HostPort {
            address: address.as_ref().map(parse),
            port: 8080,
            protocol: HostProtocol::Udp,
            container_port: 80,
        };
        let addresses: Vec<IpAddr> = pod.iter().map(parse).collect();
        let found: Vec<_> = port.keys(&addresses).iter().map(|key| key.address.to_string()).collect();
        assert_eq!(found, expected, "{address:?} to {pod:?}");
    }

    #[test]
    fn a_port_is_taken_in_the_families_of_the_pod() {
        check(None, &["10.1.0.5", "fd00::5"], &["0.0.0.0", "::"]);
        check(None, &["10.1.0.5"], &["0.0.0.0"]);
        check(Some("0.0.0.0"), &["10.1.0.5", "fd00::5"], &["0.0.0.0"]);
        check(Some("127.0.0.1"), &["10.1.0.5", "fd00::5"], &["127.0.0.1"]);
        check(Some("::ffff:192.0.2.7"), &["10.1.0.5"], &["192.0.2.7"]);
        check(Some("2001:db8::7"), &["10.1.0.5"], &[]);
    }

    #[test]
    fn ports_are_read_as_they_are_typed() {
        let read = |text: &str| {
            text.parse::<HostPort>().map(|port| format!("{port} to {}", port.container_port)).ok()
        };
        assert_eq!(read("80").as_deref(), Some("80/TCP to 80"));
        assert_eq!(read("8080:80").as_deref(), Some("8080/TCP to 80"));
        assert_eq!(read("127.0.0.1:8080:80/udp").as_deref(), Some("127.0.0.1:8080/UDP to 80"));
        assert_eq!(read("[::1]:8080:80").as_deref(), Some("[::1]:8080/TCP to 80"));
        for wrong in ["", "0", "80:", "a:80", "x:80:80", "80/sctp", "65536"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn ports_are_shown_as_they_are_dialled() {
        let port = |address: Option<&str>| HostPort {
            address: address.map(|text| text.parse().unwrap()),
            port: 80,
            protocol: HostProtocol::of("tcp").unwrap(),
            container_port: 80,
        };
        assert_eq!(port(None).to_string(), "80/TCP");
        assert_eq!(port(Some("192.0.2.7")).to_string(), "192.0.2.7:80/TCP");
        assert_eq!(port(Some("::1")).to_string(), "[::1]:80/TCP");
        assert_eq!(HostProtocol::of("SCTP"), None);
    }
}

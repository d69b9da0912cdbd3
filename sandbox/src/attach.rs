//! ADD: gives a pod's network namespace a link, addresses and routes. The kernel is the database: an address is
//! taken by inserting its route, and the link itself is the record. Nothing is written to a file, and no daemon
//! is asked. Called by standalone pods and by the CNI plug-in.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use ipnet::IpNet;

use crate::attachment::{Attachment, End, LINK_GROUP, link_name, mac_address};
use crate::bpf::{HostPorts, MapError};
use crate::clock::monotonic_seconds;
use crate::detach::remove_unfinished;
use crate::host_port::{self, HostPort, HostPortError};
use crate::maps::{forget, tell};
use crate::namespace::{NamespaceError, NetworkNamespace, current_cookie};
use crate::netlink::{HostRoute, Link, Netlink, NetlinkError, Veth};
use crate::range::{RangeError, candidates};
use crate::record::PodId;
use crate::sysctl;

/// The gateway of every pod. Link-local, so that no address of the range is burnt on it, and never asked for:
/// pods know its Ethernet address.
const GATEWAY4: IpAddr = IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1));
const GATEWAY6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
/// The loopback link has this index in every namespace.
pub(crate) const LOOPBACK: u32 = 1;

/// A container id of this length leaves the alias room for everything but the pod's name.
const IDENTITY_LIMIT: usize = 128;

/// What to attach.
pub struct AttachOptions<'a> {
    /// The pod's network namespace.
    pub namespace: &'a NetworkNamespace,
    /// The container id: with `ifname` the identity of the attachment.
    pub container_id: &'a str,
    /// The name of the link inside the pod.
    pub ifname: &'a str,
    /// The pod, for people and for the daemon, where it is known.
    pub pod: Option<&'a PodId>,
    /// The node's pod ranges: at most one of each family is used, the first.
    pub ranges: &'a [IpNet],
    /// The MTU of both ends.
    pub mtu: u32,
    /// Where the daemon pins its maps; None leaves the maps to the daemon.
    pub bpf_dir: Option<&'a Path>,
    /// The ports of the node that lead to the pod.
    pub host_ports: &'a [HostPort],
}

/// Why an ADD failed. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    /// The identity is taken; what it stands for lives on.
    #[error("{ifname} of container {container_id} is attached already")]
    Exists {
        /// The container.
        container_id: String,
        /// The link inside the pod.
        ifname: String,
    },
    /// The pod has a link of that name, from somebody else.
    #[error("the network namespace has a link {0} already")]
    Occupied(String),
    /// No address can be taken.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// A word that the record could not hold.
    #[error("{0:?} is not an identifier of a container or link")]
    Identity(String),
    /// The pod's namespace is unusable.
    #[error(transparent)]
    Namespace(#[from] NamespaceError),
    /// The kernel refused a step.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The kernel programs could not be told.
    #[error(transparent)]
    Map(#[from] MapError),
    /// A port of the node cannot lead to the pod.
    #[error(transparent)]
    HostPort(#[from] HostPortError),
    /// A setting of the pod's namespace could not be made.
    #[error(transparent)]
    Sysctl(#[from] sysctl::SysctlError),
}

/// Attaches a pod to the network namespace of the calling thread.
pub fn attach(options: &AttachOptions<'_>) -> Result<Attachment, AttachError> {
    for word in [options.container_id, options.ifname] {
        if word.is_empty() || word.len() > IDENTITY_LIMIT || !word.bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(AttachError::Identity(word.to_owned()));
        }
    }
    let ranges = ranges_used(options.ranges);
    if ranges.is_empty() {
        return Err(RangeError::None.into());
    }
    let mut pod = Inside::open(options.namespace)?;
    let mut node = Netlink::open()?;
    let links = node.veths()?;
    remove_unfinished(&mut node, &links);
    let taken = taken(&mut node, &links)?;
    let link = make_link(&mut node, options)?;
    let result = take_addresses(&mut node, &ranges, link.index, &taken)
        .and_then(|addresses| fill(&mut node, &mut pod, options, &link, addresses));
    if result.is_err() {
        // The host end holds all there is: its routes, its record and the end in the pod go with it.
        match node.delete_link(link.index) {
            Err(error) if !error.is_missing() => tracing::warn!(link = link.name, %error, "undoing an ADD"),
            Ok(()) | Err(_) => {}
        }
    }
    result
}

/// A socket in the pod's namespace, and the number by which eBPF programs know it.
struct Inside {
    netlink: Netlink,
    cookie: u64,
}

impl Inside {
    fn open(namespace: &NetworkNamespace) -> Result<Self, AttachError> {
        namespace.enter(|| {
            let cookie = current_cookie().map_err(NamespaceError::Enter)?;
            Ok(Self { netlink: Netlink::open()?, cookie })
        })?
    }
}

pub(crate) fn ranges_used(ranges: &[IpNet]) -> Vec<IpNet> {
    let first = |want_v4: bool| ranges.iter().find(|range| range.addr().is_ipv4() == want_v4);
    first(true).into_iter().chain(first(false)).copied().collect()
}

fn make_link(node: &mut Netlink, options: &AttachOptions<'_>) -> Result<Link, AttachError> {
    use std::os::fd::AsFd;
    let (id, ifname) = (options.container_id, options.ifname);
    let name = link_name(id, ifname);
    let made = node.add_veth(&Veth {
        name: &name,
        mac: mac_address(id, ifname, End::Host),
        peer_namespace: options.namespace.as_fd(),
        peer_name: ifname,
        peer_mac: mac_address(id, ifname, End::Pod),
        mtu: options.mtu,
        group: LINK_GROUP,
        born: monotonic_seconds(),
    });
    made.map_err(|error| match error.is_exists() {
        // The kernel does not say which end's name is taken.
        true if node.link(&name).is_ok() => {
            AttachError::Exists { container_id: id.to_owned(), ifname: ifname.to_owned() }
        }
        true => AttachError::Occupied(ifname.to_owned()),
        false => error.into(),
    })
}

fn fill(
    node: &mut Netlink,
    pod: &mut Inside,
    options: &AttachOptions<'_>,
    link: &Link,
    addresses: Vec<IpAddr>,
) -> Result<Attachment, AttachError> {
    let attachment = Attachment {
        link: link.name.clone(),
        index: link.index,
        addresses,
        cookie: pod.cookie,
        container_id: options.container_id.to_owned(),
        ifname: options.ifname.to_owned(),
        pod: options.pod.cloned(),
    };
    node.set_alias(link.index, &attachment.alias())?;
    let pod_mac = mac_address(options.container_id, options.ifname, End::Pod);
    for address in &attachment.addresses {
        node.add_neighbour(link.index, *address, pod_mac)?;
    }
    let done = options.bpf_dir.map_or(Ok(()), |bpf_dir| tell(bpf_dir, &attachment));
    let done = done.map_err(AttachError::from);
    let done = done.and_then(|()| furnish(&mut pod.netlink, options, link.peer, &attachment.addresses));
    // Last, so that a port leads to a pod that can answer.
    if let Err(error) = done.and_then(|()| take_host_ports(node, options, &attachment)) {
        forget(options.bpf_dir, link.index, Some(pod.cookie));
        return Err(error);
    }
    Ok(attachment)
}

/// Addresses that must not be given out although no route may hold them: a link that was set down, or a
/// restart of networkd, loses its routes but not its record; the node's own addresses have none.
pub(crate) fn taken(node: &mut Netlink, links: &[Link]) -> Result<BTreeSet<IpAddr>, NetlinkError> {
    let recorded = links.iter().filter_map(Attachment::of).flat_map(|attachment| attachment.addresses);
    let own = node.addresses()?.into_iter().map(|(_, address, _)| address);
    Ok(recorded.chain(own).collect())
}

fn take_addresses(
    node: &mut Netlink,
    ranges: &[IpNet],
    link: u32,
    taken: &BTreeSet<IpAddr>,
) -> Result<Vec<IpAddr>, AttachError> {
    ranges.iter().map(|range| take_address(node, *range, link, taken)).collect()
}

fn take_address(
    node: &mut Netlink,
    range: IpNet,
    link: u32,
    taken: &BTreeSet<IpAddr>,
) -> Result<IpAddr, AttachError> {
    for address in candidates(range, link).filter(|address| !taken.contains(address)) {
        match node.add_host_route(HostRoute { address, link }) {
            Ok(()) => return Ok(address),
            Err(error) if error.is_exists() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(RangeError::Full(range.trunc()).into())
}

/// Where a pod with that address sends what leaves it.
pub(crate) const fn gateway(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { GATEWAY4 } else { GATEWAY6 }
}

/// What happens inside the pod, whose end has the index `link` there.
fn furnish(
    pod: &mut Netlink,
    options: &AttachOptions<'_>,
    link: u32,
    addresses: &[IpAddr],
) -> Result<(), AttachError> {
    if addresses.iter().any(IpAddr::is_ipv6) {
        options.namespace.enter(|| sysctl::enable_ipv6(options.ifname))??;
    }
    pod.set_up(LOOPBACK)?;
    for address in addresses {
        pod.add_address(link, *address)?;
    }
    pod.set_up(link)?;
    let host_mac = mac_address(options.container_id, options.ifname, End::Host);
    for address in addresses {
        let gateway = gateway(*address);
        pod.add_neighbour(link, gateway, host_mac)?;
        pod.add_default_route(link, gateway)?;
    }
    Ok(())
}

fn take_host_ports(
    node: &mut Netlink,
    options: &AttachOptions<'_>,
    attachment: &Attachment,
) -> Result<(), AttachError> {
    if options.host_ports.is_empty() {
        return Ok(());
    }
    let map = options.bpf_dir.map(HostPorts::open).transpose()?.flatten();
    let pod = (attachment.index, attachment.addresses.as_slice());
    Ok(host_port::take(node, map.as_ref(), options.host_ports, pod)?)
}

//! A VXLAN device and who is behind it: made whole, read back, with forwarding entries instead of learning. Called by
//! node routes, which decide.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_REPLACE};
use netlink_packet_route::link::{InfoData, InfoKind, InfoVxlan, LinkAttribute, LinkInfo, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteType;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::address::family;
use super::link::to_link;
use super::{MacAddress, Netlink, NetlinkError, Object};

/// The network identifier of our devices: on the wire they are nobody else's.
const IDENTIFIER: u32 = 0x4657;

/// A VXLAN device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct VxlanDevice {
    pub(crate) name: String,
    pub(crate) mac: MacAddress,
    /// The node's address that carries it.
    pub(crate) local: IpAddr,
    /// The UDP port.
    pub(crate) port: u16,
    pub(crate) mtu: u32,
}

impl Netlink {
    /// Makes a device, up; its index.
    pub(crate) fn add_vxlan(&mut self, device: &VxlanDevice) -> Result<u32, NetlinkError> {
        let local = match device.local {
            IpAddr::V4(ip) => InfoVxlan::Local(ip),
            IpAddr::V6(ip) => InfoVxlan::Local6(ip),
        };
        let attributes = vec![
            LinkAttribute::Mtu(device.mtu),
            LinkAttribute::Address(device.mac.0.to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Vxlan),
                LinkInfo::Data(InfoData::Vxlan(vec![
                    InfoVxlan::Id(IDENTIFIER),
                    local,
                    InfoVxlan::Port(device.port),
                    InfoVxlan::Learning(false),
                ])),
            ]),
        ];
        Ok(self.add_link(&device.name, attributes)?.index)
    }

    /// The device of a name: its index, whether it is up, and what it is. A link of that name of another kind or
    /// another network has no address and no port.
    pub(crate) fn vxlan(&mut self, name: &str) -> Result<Option<(u32, bool, VxlanDevice)>, NetlinkError> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.to_owned())];
        let answer = match self.one(RouteNetlinkMessage::GetLink(message)) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
            answer => {
                answer.map_err(|error| NetlinkError::new(format!("looking for the link {name}"), error))?
            }
        };
        let Some(link) = to_link(&answer) else { return Ok(None) };
        let (local, port) = tunnel_of(&answer).unwrap_or((IpAddr::from([0, 0, 0, 0]), 0));
        let mac = link.mac.unwrap_or(MacAddress([0; 6]));
        let device = VxlanDevice { name: link.name, mac, local, port, mtu: link.mtu };
        Ok(Some((link.index, link.is_up, device)))
    }

    /// The permanent neighbours on a link.
    pub(crate) fn neighbours(&mut self, index: u32) -> Result<Vec<(IpAddr, MacAddress)>, NetlinkError> {
        let mut found = self.entries(AddressFamily::Inet, index)?;
        found.extend(self.entries(AddressFamily::Inet6, index)?);
        Ok(found)
    }

    /// Which Ethernet address is behind which node.
    pub(crate) fn forwarding(&mut self, index: u32) -> Result<Vec<(IpAddr, MacAddress)>, NetlinkError> {
        self.entries(AddressFamily::Bridge, index)
    }

    /// Says that `mac` is behind the node `remote`.
    pub(crate) fn add_forwarding(
        &mut self,
        index: u32,
        remote: IpAddr,
        mac: MacAddress,
    ) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewNeighbour(forwarding_entry(index, remote, mac));
        self.change(message, NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(|error| NetlinkError::new(format!("forwarding to {remote}"), error))
    }

    /// Takes that back.
    pub(crate) fn delete_forwarding(
        &mut self,
        index: u32,
        remote: IpAddr,
        mac: MacAddress,
    ) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::DelNeighbour(forwarding_entry(index, remote, mac));
        self.change(message, 0)
            .map_err(|error| NetlinkError::new(format!("no longer forwarding to {remote}"), error))
    }

    /// Forgets a permanent neighbour.
    pub(crate) fn delete_neighbour(&mut self, index: u32, ip: IpAddr) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(ip);
        message.header.ifindex = index;
        message.attributes = vec![NeighbourAttribute::Destination(to_neighbour(ip))];
        self.change(RouteNetlinkMessage::DelNeighbour(message), 0)
            .map_err(|error| NetlinkError::new(format!("forgetting the neighbour {ip}"), error))
    }

    fn entries(
        &mut self,
        family: AddressFamily,
        index: u32,
    ) -> Result<Vec<(IpAddr, MacAddress)>, NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family;
        message.header.ifindex = index;
        let answers = self.dump(RouteNetlinkMessage::GetNeighbour(message));
        let answers = answers.map_err(|error| NetlinkError::new("listing neighbours", error))?;
        Ok(answers.iter().filter_map(|answer| to_entry(answer, index)).collect())
    }
}

fn forwarding_entry(index: u32, remote: IpAddr, mac: MacAddress) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = index;
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.header.kind = RouteType::Unspec;
    message.attributes = vec![
        NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
        NeighbourAttribute::Destination(to_neighbour(remote)),
    ];
    message
}

const fn to_neighbour(ip: IpAddr) -> NeighbourAddress {
    match ip {
        IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
        IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
    }
}

fn to_entry(message: &RouteNetlinkMessage, index: u32) -> Option<(IpAddr, MacAddress)> {
    let RouteNetlinkMessage::NewNeighbour(message) = message else { return None };
    if message.header.ifindex != index || message.header.state != NeighbourState::Permanent {
        return None;
    }
    let ip = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        // The crate knows the form of an address by the family of the message, and Bridge is none.
        NeighbourAttribute::Destination(NeighbourAddress::Other(bytes)) => match bytes.as_slice() {
            bytes if bytes.len() == 4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            bytes => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        },
        _ => None,
    })?;
    let mac = message.attributes.iter().find_map(|attribute| match attribute {
        NeighbourAttribute::LinkLayerAddress(bytes) => <[u8; 6]>::try_from(&bytes[..]).ok().map(MacAddress),
        _ => None,
    })?;
    Some((ip, mac))
}

/// The local address and the port of one of our devices.
fn tunnel_of(object: &Object) -> Option<(IpAddr, u16)> {
    let Ok(RouteNetlinkMessage::NewLink(message)) = object.read() else { return None };
    let info = message.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => infos.iter().find_map(|info| match info {
            LinkInfo::Data(InfoData::Vxlan(info)) => Some(info),
            _ => None,
        }),
        _ => None,
    })?;
    let (mut identifier, mut local, mut port) = (None, None, None);
    for attribute in info {
        match attribute {
            InfoVxlan::Id(id) => identifier = Some(*id),
            InfoVxlan::Local(ip) => local = Some(IpAddr::V4(*ip)),
            InfoVxlan::Local6(ip) => local = Some(IpAddr::V6(*ip)),
            InfoVxlan::Port(number) => port = Some(*number),
            _ => {}
        }
    }
    (identifier == Some(IDENTIFIER)).then_some((local?, port?))
}

//! Links: a veth born in place, found, raised, labelled, deleted. Never moves a link between namespaces: that
//! waits for an RCU grace period. Called by attach, detach and node.

use std::fmt;
use std::os::fd::{AsRawFd, BorrowedFd};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_ECHO, NLM_F_EXCL, NlaBuffer, NlasIterator};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkExtentMask, LinkFlags, LinkHeader, LinkInfo, LinkMessage,
};

use super::{Netlink, NetlinkError, Object};

/// `include/uapi/linux/rtnetlink.h` and `if_link.h`.
const RTM_NEWLINK: u16 = 16;
const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_TXQLEN: u16 = 13;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_INFO_KIND: u16 = 1;
/// The length of `struct ifinfomsg`.
const HEADER_LENGTH: usize = 16;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MacAddress(pub [u8; 6]);

/// A pair of links to be made: one end here, the other born in another namespace.
pub struct Veth<'a> {
    /// The name of the end here.
    pub name: &'a str,
    /// The Ethernet address of the end here.
    pub mac: MacAddress,
    /// The namespace of the other end.
    pub peer_namespace: BorrowedFd<'a>,
    /// The name of the other end.
    pub peer_name: &'a str,
    /// The Ethernet address of the other end.
    pub peer_mac: MacAddress,
    /// The MTU of both.
    pub mtu: u32,
    /// The link group of the end here.
    pub group: u32,
    /// When the link is made, in seconds of CLOCK_MONOTONIC: see [`Link::born`].
    pub born: u32,
}

/// A link as the kernel shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its index in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its group.
    pub group: u32,
    /// For our links, when it was made, in seconds of CLOCK_MONOTONIC. The kernel keeps no such time; this is
    /// the length of the transmit queue, which a veth does not have and which can be given at birth.
    pub born: u32,
    /// Its alias, where set.
    pub alias: Option<String>,
    /// Its MTU.
    pub mtu: u32,
    /// Its Ethernet address, where it has one.
    pub mac: Option<MacAddress>,
    /// Of a veth, the index of the other end in its own namespace; else 0, which no link has.
    pub peer: u32,
    /// It is a veth.
    pub is_veth: bool,
    /// It is administratively up.
    pub is_up: bool,
}

impl Netlink {
    /// Makes a pair of links. Both have their MTU, Ethernet address and names from the first moment, and the
    /// end here is up: moving a link afterwards costs an RCU grace period of 15 to 20 ms.
    pub fn add_veth(&mut self, veth: &Veth<'_>) -> Result<Link, NetlinkError> {
        let mut peer = LinkMessage::default();
        peer.attributes = vec![
            LinkAttribute::IfName(veth.peer_name.to_owned()),
            LinkAttribute::NetNsFd(veth.peer_namespace.as_raw_fd()),
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::Address(veth.peer_mac.0.to_vec()),
        ];
        let attributes = vec![
            LinkAttribute::Mtu(veth.mtu),
            LinkAttribute::Address(veth.mac.0.to_vec()),
            LinkAttribute::Group(veth.group),
            LinkAttribute::TxQueueLen(veth.born),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))),
            ]),
        ];
        self.add_link(veth.name, attributes)
    }

    /// Makes a link, up.
    pub(super) fn add_link(
        &mut self,
        name: &str,
        mut attributes: Vec<LinkAttribute>,
    ) -> Result<Link, NetlinkError> {
        attributes.push(LinkAttribute::IfName(name.to_owned()));
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        message.attributes = attributes;
        let flags = NLM_F_CREATE | NLM_F_EXCL | NLM_F_ECHO;
        let made = self.ask(RouteNetlinkMessage::NewLink(message), flags);
        let made = made.map_err(|error| NetlinkError::new(format!("making the link {name}"), error))?;
        // Linux 6.1 makes no echo of a new link.
        made.as_ref().and_then(to_link).map_or_else(|| self.link(name), Ok)
    }

    /// The link of a name.
    pub fn link(&mut self, name: &str) -> Result<Link, NetlinkError> {
        let answer = self.one(question(LinkAttribute::IfName(name.to_owned())));
        let link = answer.map(|answer| to_link(&answer)).transpose();
        link.unwrap_or_else(|| Err(std::io::Error::from_raw_os_error(libc::ENODEV)))
            .map_err(|error| NetlinkError::new(format!("looking for the link {name}"), error))
    }

    /// Every link of the namespace.
    pub fn links(&mut self) -> Result<Vec<Link>, NetlinkError> {
        self.list(RouteNetlinkMessage::GetLink(LinkMessage::default()))
    }

    /// The veths of the namespace, and whatever else a kernel lists that cannot choose by kind.
    pub fn veths(&mut self) -> Result<Vec<Link>, NetlinkError> {
        self.list(question(LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Veth)])))
    }

    fn list(&mut self, message: RouteNetlinkMessage) -> Result<Vec<Link>, NetlinkError> {
        let links = self.objects(message).map_err(|error| NetlinkError::new("listing links", error))?;
        Ok(links.iter().filter_map(to_link).collect())
    }

    /// Sets a link up.
    pub fn set_up(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.flags = LinkFlags::Up;
        message.header.change_mask = LinkFlags::Up;
        self.change(RouteNetlinkMessage::SetLink(message), 0)
            .map_err(|error| NetlinkError::new(format!("setting link {index} up"), error))
    }

    /// Sets a link's alias, at most 255 bytes. RTM_NEWLINK ignores one.
    pub fn set_alias(&mut self, index: u32, alias: &str) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.attributes = vec![LinkAttribute::IfAlias(alias.to_owned())];
        self.change(RouteNetlinkMessage::SetLink(message), 0)
            .map_err(|error| NetlinkError::new(format!("setting the alias of link {index}"), error))
    }

    /// Deletes a link; its routes and neighbours and the other end go with it.
    pub fn delete_link(&mut self, index: u32) -> Result<(), NetlinkError> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        self.change(RouteNetlinkMessage::DelLink(message), 0)
            .map_err(|error| NetlinkError::new(format!("deleting link {index}"), error))
    }
}

/// Asks for links; not for their statistics, which are most of what the kernel says of one.
fn question(attribute: LinkAttribute) -> RouteNetlinkMessage {
    let mut message = LinkMessage::default();
    message.attributes = vec![attribute, LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats])];
    RouteNetlinkMessage::GetLink(message)
}

/// Reads the few of some sixty attributes that matter here: every ADD reads those of every pod of the node, and the
/// crate makes a value of each.
pub(super) fn to_link(object: &Object) -> Option<Link> {
    if object.kind() != RTM_NEWLINK {
        return None;
    }
    let header = LinkHeader::parse(&object.payload).ok()?;
    let mut link = Link {
        index: header.index,
        name: String::new(),
        group: 0,
        born: 0,
        alias: None,
        mtu: 0,
        mac: None,
        peer: 0,
        is_veth: false,
        is_up: header.flags.contains(LinkFlags::Up),
    };
    for attribute in NlasIterator::new(object.payload.get(HEADER_LENGTH..)?).flatten() {
        let value = attribute.value();
        match attribute.kind() {
            IFLA_ADDRESS => link.mac = value.try_into().ok().map(MacAddress),
            IFLA_IFNAME => link.name = text(value),
            IFLA_MTU => link.mtu = number(value),
            IFLA_LINK => link.peer = number(value),
            IFLA_TXQLEN => link.born = number(value),
            IFLA_LINKINFO => {
                let kind = |info: &NlaBuffer<&[u8]>| info.kind() == IFLA_INFO_KIND;
                let kind = NlasIterator::new(value).flatten().find(kind);
                link.is_veth = kind.is_some_and(|kind| text(kind.value()) == "veth");
            }
            IFLA_IFALIAS => link.alias = Some(text(value)),
            IFLA_GROUP => link.group = number(value),
            _ => {}
        }
    }
    Some(link)
}

/// Text ends with its first zero.
fn text(value: &[u8]) -> String {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    String::from_utf8_lossy(text).into_owned()
}

fn number(value: &[u8]) -> u32 {
    value.try_into().map_or(0, u32::from_ne_bytes)
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

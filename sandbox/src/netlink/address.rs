//! Addresses of links, and permanent neighbours: what makes a link usable at once, without duplicate address
//! detection or ARP. Called by attach and node.

use std::net::IpAddr;

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::RouteType;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{MacAddress, Netlink, NetlinkError};

impl Netlink {
    /// Gives a link an address of its own (/32 or /128) that can be used at once: without NODAD an IPv6
    /// address is tentative for more than a second.
    pub fn add_address(&mut self, index: u32, ip: IpAddr) -> Result<(), NetlinkError> {
        self.add(index, ip, address_message(index, ip))
    }

    /// The same for an address to be served on: the kernel never takes it for a source by itself. It would towards
    /// pods, whose links have no address on this side, and they would see the node as that address.
    pub(crate) fn add_served_address(&mut self, index: u32, ip: IpAddr) -> Result<(), NetlinkError> {
        let mut message = address_message(index, ip);
        if ip.is_ipv4() {
            message.header.scope = AddressScope::Host;
        } else {
            // For ever valid and never preferred (RFC 6724, section 5, rule 3).
            let mut lifetimes = CacheInfo::default();
            lifetimes.ifa_valid = u32::MAX;
            message.attributes.push(AddressAttribute::CacheInfo(lifetimes));
        }
        self.add(index, ip, message)
    }

    fn add(&mut self, index: u32, ip: IpAddr, mut message: AddressMessage) -> Result<(), NetlinkError> {
        message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        self.change(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_EXCL)
            .map_err(|error| NetlinkError::new(format!("adding the address {ip} to link {index}"), error))
    }

    /// Takes an address back.
    pub fn remove_address(&mut self, index: u32, ip: IpAddr) -> Result<(), NetlinkError> {
        self.change(RouteNetlinkMessage::DelAddress(address_message(index, ip)), 0)
            .map_err(|error| NetlinkError::new(format!("removing the address {ip} from link {index}"), error))
    }

    /// The addresses of the namespace with the index of their link and the length of their prefix.
    pub fn addresses(&mut self) -> Result<Vec<(u32, IpAddr, u8)>, NetlinkError> {
        let answers = self.dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()));
        let answers = answers.map_err(|error| NetlinkError::new("listing addresses", error))?;
        Ok(answers.iter().filter_map(to_address).collect())
    }

    /// Tells a link the Ethernet address of a neighbour, for good: it is never asked for.
    pub fn add_neighbour(&mut self, index: u32, ip: IpAddr, mac: MacAddress) -> Result<(), NetlinkError> {
        let mut message = NeighbourMessage::default();
        message.header.family = family(ip);
        message.header.ifindex = index;
        message.header.state = NeighbourState::Permanent;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![
            NeighbourAttribute::Destination(match ip {
                IpAddr::V4(ip) => NeighbourAddress::Inet(ip),
                IpAddr::V6(ip) => NeighbourAddress::Inet6(ip),
            }),
            NeighbourAttribute::LinkLayerAddress(mac.0.to_vec()),
        ];
        self.change(RouteNetlinkMessage::NewNeighbour(message), NLM_F_CREATE | NLM_F_REPLACE)
            .map_err(|error| NetlinkError::new(format!("adding the neighbour {ip} to link {index}"), error))
    }
}

fn address_message(index: u32, ip: IpAddr) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(ip);
    message.header.prefix_len = full_length(ip);
    message.header.index = index;
    message.attributes = vec![AddressAttribute::Address(ip)];
    if ip.is_ipv4() {
        message.attributes.push(AddressAttribute::Local(ip));
    }
    message
}

fn to_address(message: &RouteNetlinkMessage) -> Option<(u32, IpAddr, u8)> {
    let RouteNetlinkMessage::NewAddress(message) = message else { return None };
    // On a link with a peer, Local is the own address and Address the other's.
    let own = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let any = || {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    };
    Some((message.header.index, own.or_else(any)?, message.header.prefix_len))
}

pub(super) const fn family(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}

pub(super) const fn full_length(ip: IpAddr) -> u8 {
    match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

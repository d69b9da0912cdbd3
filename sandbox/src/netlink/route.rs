//! Routes: one address on one link, which is also how an address is taken, the way out of a pod, and the
//! kernel's answer to where a packet would go. Called by attach, detach and node.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::address::{family, full_length};
use super::{Netlink, NetlinkError};

/// Marks our routes: no protocol of iproute2's list has this number.
pub(super) const PROTOCOL: RouteProtocol = RouteProtocol::Other(70);
/// One metric for both families: uniqueness is per destination, table, metric and TOS.
pub(super) const METRIC: u32 = 1024;

/// A route to one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// The address.
    pub address: IpAddr,
    /// The link that leads there.
    pub link: u32,
}

impl Netlink {
    /// Routes one address to a link. The kernel lets one caller win, whatever the links are: this is how an
    /// address is taken. The loser's error is [`NetlinkError::is_exists`].
    pub fn add_host_route(&mut self, route: HostRoute) -> Result<(), NetlinkError> {
        let message = RouteNetlinkMessage::NewRoute(host_route(route));
        self.change(message, NLM_F_CREATE | NLM_F_EXCL).map_err(|error| {
            NetlinkError::new(format!("routing {} to link {}", route.address, route.link), error)
        })
    }

    /// Takes such a route back.
    pub fn delete_host_route(&mut self, route: HostRoute) -> Result<(), NetlinkError> {
        self.change(RouteNetlinkMessage::DelRoute(host_route(route)), 0).map_err(|error| {
            NetlinkError::new(
                format!("deleting the route of {} to link {}", route.address, route.link),
                error,
            )
        })
    }

    /// Every route that [`Netlink::add_host_route`] made in the namespace.
    pub fn host_routes(&mut self) -> Result<Vec<HostRoute>, NetlinkError> {
        Ok(self.all_routes()?.iter().filter_map(to_host_route).collect())
    }

    /// Every route of the namespace, as the kernel tells it.
    pub(super) fn all_routes(&mut self) -> Result<Vec<RouteNetlinkMessage>, NetlinkError> {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut message = RouteMessage::default();
            message.header.address_family = family;
            let answers = self.dump(RouteNetlinkMessage::GetRoute(message));
            routes.extend(answers.map_err(|error| NetlinkError::new("listing routes", error))?);
        }
        Ok(routes)
    }

    /// Sends everything that has no better route to `gateway`, which is on the link whatever its address.
    pub fn add_default_route(&mut self, index: u32, gateway: IpAddr) -> Result<(), NetlinkError> {
        let mut on_link = route_message(gateway, index);
        if gateway.is_ipv4() {
            on_link.header.scope = RouteScope::Link;
        }
        let mut default = route_message(unspecified(gateway), index);
        default.header.destination_prefix_length = 0;
        default.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Destination(_)));
        default.attributes.push(RouteAttribute::Gateway(RouteAddress::from(gateway)));
        for message in [on_link, default] {
            self.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE).map_err(|error| {
                NetlinkError::new(format!("routing through the gateway {gateway} on link {index}"), error)
            })?;
        }
        Ok(())
    }

    /// The source address that the namespace would use towards `destination`, None without a route.
    pub fn source_towards(&mut self, destination: IpAddr) -> Result<Option<IpAddr>, NetlinkError> {
        let route = self.route_towards(destination)?;
        Ok(route.iter().find_map(|attribute| match attribute {
            RouteAttribute::PrefSource(source) => to_ip(source),
            _ => None,
        }))
    }

    /// The link by which the node reaches a destination.
    pub fn link_towards(&mut self, destination: IpAddr) -> Result<Option<u32>, NetlinkError> {
        let route = self.route_towards(destination)?;
        Ok(route.iter().find_map(|attribute| match attribute {
            RouteAttribute::Oif(link) => Some(*link),
            _ => None,
        }))
    }

    /// What the kernel says of its route to a destination; nothing where there is none.
    fn route_towards(&mut self, destination: IpAddr) -> Result<Vec<RouteAttribute>, NetlinkError> {
        let mut message = RouteMessage::default();
        message.header.address_family = family(destination);
        message.header.destination_prefix_length = full_length(destination);
        message.attributes = vec![RouteAttribute::Destination(RouteAddress::from(destination))];
        let answer = self.one(RouteNetlinkMessage::GetRoute(message)).and_then(|answer| answer.read());
        let answer = match answer {
            Ok(RouteNetlinkMessage::NewRoute(answer)) => answer,
            Ok(_) => return Ok(Vec::new()),
            Err(error) if error.raw_os_error() == Some(libc::ENETUNREACH) => return Ok(Vec::new()),
            Err(error) => {
                return Err(NetlinkError::new(format!("looking for a route to {destination}"), error));
            }
        };
        Ok(answer.attributes)
    }
}

fn host_route(route: HostRoute) -> RouteMessage {
    let mut message = route_message(route.address, route.link);
    message.attributes.push(RouteAttribute::Priority(METRIC));
    if route.address.is_ipv4() {
        message.header.scope = RouteScope::Link;
    }
    message
}

fn route_message(destination: IpAddr, index: u32) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family(destination);
    message.header.destination_prefix_length = full_length(destination);
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = PROTOCOL;
    message.header.kind = RouteType::Unicast;
    message.attributes =
        vec![RouteAttribute::Destination(RouteAddress::from(destination)), RouteAttribute::Oif(index)];
    message
}

fn to_host_route(message: &RouteNetlinkMessage) -> Option<HostRoute> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let has_gateway =
        message.attributes.iter().any(|attribute| matches!(attribute, RouteAttribute::Gateway(_)));
    if message.header.protocol != PROTOCOL || has_gateway {
        return None;
    }
    let address = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(address) => to_ip(address),
        _ => None,
    })?;
    let link = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Oif(index) => Some(*index),
        _ => None,
    })?;
    let is_host = message.header.destination_prefix_length == full_length(address);
    is_host.then_some(HostRoute { address, link })
}

pub(super) const fn to_ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

const fn unspecified(like: IpAddr) -> IpAddr {
    match like {
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    }
}

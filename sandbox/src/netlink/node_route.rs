//! Routes to the ranges of other nodes. Told from host routes by their gateway, and from other people's by our
//! protocol. Called by node routes.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteType,
};

use super::address::family;
use super::route::{METRIC, PROTOCOL, to_ip};
use super::{Netlink, NetlinkError};

/// A route to a range through a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeRoute {
    pub(crate) range: IpNet,
    pub(crate) gateway: IpAddr,
    pub(crate) link: u32,
    /// Where it is less than the link's.
    pub(crate) mtu: Option<u32>,
}

impl Netlink {
    /// Adds a route. The gateway is taken to be on the link.
    pub(crate) fn add_node_route(&mut self, route: &NodeRoute) -> Result<(), NetlinkError> {
        let mut message = message(route);
        message.header.flags = RouteFlags::Onlink;
        message.attributes.extend(route.mtu.map(|mtu| RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)])));
        self.change(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_EXCL).map_err(|error| {
            NetlinkError::new(format!("routing {} through {}", route.range, route.gateway), error)
        })
    }

    /// Takes such a route back.
    pub(crate) fn delete_node_route(&mut self, route: &NodeRoute) -> Result<(), NetlinkError> {
        self.change(RouteNetlinkMessage::DelRoute(message(route)), 0).map_err(|error| {
            NetlinkError::new(
                format!("deleting the route of {} through {}", route.range, route.gateway),
                error,
            )
        })
    }

    /// Every such route.
    pub(crate) fn node_routes(&mut self) -> Result<Vec<NodeRoute>, NetlinkError> {
        Ok(self.all_routes()?.iter().filter_map(to_node_route).collect())
    }
}

fn message(route: &NodeRoute) -> RouteMessage {
    let network = route.range.network();
    let mut message = RouteMessage::default();
    message.header.address_family = family(network);
    message.header.destination_prefix_length = route.range.prefix_len();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message.header.protocol = PROTOCOL;
    message.header.kind = RouteType::Unicast;
    message.attributes = vec![
        RouteAttribute::Destination(RouteAddress::from(network)),
        RouteAttribute::Gateway(RouteAddress::from(route.gateway)),
        RouteAttribute::Oif(route.link),
        RouteAttribute::Priority(METRIC),
    ];
    message
}

fn to_node_route(message: &RouteNetlinkMessage) -> Option<NodeRoute> {
    let RouteNetlinkMessage::NewRoute(message) = message else { return None };
    let header = &message.header;
    if header.protocol != PROTOCOL || header.table != RouteHeader::RT_TABLE_MAIN {
        return None;
    }
    let (mut network, mut gateway, mut link, mut mtu) = (None, None, None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(address) => network = to_ip(address),
            RouteAttribute::Gateway(address) => gateway = to_ip(address),
            RouteAttribute::Oif(index) => link = Some(*index),
            RouteAttribute::Metrics(metrics) => {
                mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            _ => {}
        }
    }
    let range = IpNet::new(network?, header.destination_prefix_length).ok()?;
    Some(NodeRoute { range, gateway: gateway?, link: link?, mtu })
}

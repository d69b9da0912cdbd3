//! Puts back what attached pods have lost: a link set down, or a restart of networkd, takes a pod's routes and
//! neighbours. Called by the daemon, again and again; the kernel's records say what should be.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::attachment::{Attachment, End, mac_address};
use crate::netlink::{HostRoute, Netlink, NetlinkError};

/// Looks for losses. What is missing once may be a DEL at work: it is put back when it is missing twice.
#[derive(Debug, Default)]
pub struct Repair {
    suspects: BTreeSet<(u32, IpAddr)>,
}

impl Repair {
    /// Looks once, in the network namespace of the calling thread; what was put back, for people.
    pub fn look(&mut self) -> Result<Vec<String>, NetlinkError> {
        let mut node = Netlink::open()?;
        // The links first: whoever has a record had its routes before.
        let links = node.veths()?;
        let routes = node.host_routes()?;
        let mut suspects = BTreeSet::new();
        let mut repaired = Vec::new();
        for link in &links {
            let Some(attachment) = Attachment::of(link) else { continue };
            for address in &attachment.addresses {
                let route = HostRoute { address: *address, link: link.index };
                if link.is_up && routes.contains(&route) {
                    continue;
                }
                if !self.suspects.contains(&(link.index, *address)) {
                    suspects.insert((link.index, *address));
                } else if put_back(&mut node, &attachment, route)? {
                    repaired.push(format!("route of {address} to {}", name(&attachment)));
                }
            }
        }
        self.suspects = suspects;
        Ok(repaired)
    }

    /// Something was missing at the last look: the next should be soon.
    pub fn is_suspicious(&self) -> bool {
        !self.suspects.is_empty()
    }
}

/// False if the link has gone meanwhile.
fn put_back(node: &mut Netlink, attachment: &Attachment, route: HostRoute) -> Result<bool, NetlinkError> {
    let mac = mac_address(&attachment.container_id, &attachment.ifname, End::Pod);
    let mut steps = || {
        node.set_up(route.link)?;
        node.add_neighbour(route.link, route.address, mac)?;
        node.add_host_route(route)
    };
    match steps() {
        Err(error) if error.is_missing() => Ok(false),
        Err(error) if error.is_exists() => {
            // Its own, if the link alone was down; else somebody else's, and two pods have one address.
            if !node.host_routes()?.contains(&route) {
                tracing::error!(address = %route.address, pod = name(attachment), "another link has this pod's address");
            }
            Ok(true)
        }
        result => result.map(|()| true),
    }
}

fn name(attachment: &Attachment) -> String {
    match &attachment.pod {
        Some(pod) => format!("pod {pod}"),
        None => format!("container {}", attachment.container_id),
    }
}

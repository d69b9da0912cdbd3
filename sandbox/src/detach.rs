//! DEL: takes an attachment back. Whatever is left of it, and whether or not anything is, it is gone
//! afterwards; so it can be repeated, and needs no namespace. Also the list of what is attached.

use std::path::Path;

use crate::attach::forget_pod;
use crate::attachment::{Attachment, LINK_GROUP, link_name};
use crate::netlink::{HostRoute, Netlink, NetlinkError};

/// Detaches from the network namespace of the calling thread. Unknown is fine: the answer says whether there
/// was anything.
pub fn detach(container_id: &str, ifname: &str, bpf_dir: Option<&Path>) -> Result<bool, NetlinkError> {
    let mut node = Netlink::open()?;
    let link = match node.link(&link_name(container_id, ifname)) {
        Ok(link) if link.is_veth && link.group == LINK_GROUP => link,
        // Somebody else's link of that name is not ours to delete.
        Ok(_) => return Ok(false),
        Err(error) if error.is_missing() => return Ok(false),
        Err(error) => return Err(error),
    };
    if let Some(attachment) = Attachment::of(&link) {
        forget_pod(bpf_dir, attachment.cookie);
        for address in attachment.addresses {
            ignore_missing(node.delete_host_route(HostRoute { address, link: link.index }))?;
        }
    }
    ignore_missing(node.delete_link(link.index))?;
    Ok(true)
}

/// Every attachment in the network namespace of the calling thread, in the order of the links' indices.
pub fn attachments() -> Result<Vec<Attachment>, NetlinkError> {
    let mut found: Vec<_> = Netlink::open()?.links()?.iter().filter_map(Attachment::of).collect();
    found.sort_by_key(|attachment| attachment.index);
    Ok(found)
}

fn ignore_missing(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.is_missing() => Ok(()),
        result => result,
    }
}

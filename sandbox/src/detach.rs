//! DEL: takes an attachment back. Whatever is left of it, and whether or not anything is, it is gone
//! afterwards; so it can be repeated, and needs no namespace. Also the list of what is attached.

use std::collections::BTreeSet;
use std::path::Path;

use crate::attachment::{Attachment, LINK_GROUP, is_unfinished, link_name};
use crate::clock::monotonic_seconds;
use crate::maps::{forget, prune};
use crate::netlink::{HostRoute, Link, Netlink, NetlinkError};
use crate::sandbox::is_standalone;

/// Detaches from the network namespace of the calling thread. Unknown is fine: the answer says whether there
/// was anything.
pub fn detach(container_id: &str, ifname: &str, bpf_dir: Option<&Path>) -> Result<bool, NetlinkError> {
    let mut node = Netlink::open()?;
    let link = match node.link(&link_name(container_id, ifname)) {
        Ok(link) if link.is_veth && link.group == LINK_GROUP => link,
        // Somebody else's link of that name is not ours to delete.
        Ok(_) => return Ok(false),
        Err(error) if error.is_missing() => {
            // It may have gone with the pod's namespace, and left what the maps say of it.
            if let Some(Err(error)) = bpf_dir.map(prune) {
                tracing::warn!(%error, "what the maps say of pods that are gone stays until the daemon looks");
            }
            return Ok(false);
        }
        Err(error) => return Err(error),
    };
    let attachment = Attachment::of(&link);
    forget(bpf_dir, link.index, attachment.as_ref().map(|attachment| attachment.cookie));
    if let Some(attachment) = attachment {
        for address in attachment.addresses {
            ignore_missing(node.delete_host_route(HostRoute { address, link: link.index }))?;
        }
    }
    ignore_missing(node.delete_link(link.index))?;
    Ok(true)
}

/// Whose attachment is whose: container id and name of the link inside the pod.
pub type Identity = (String, String);

/// Detaches whatever is not in `valid`, but for the pods that `fairway sandbox` runs: they are not the container
/// runtime's. An ADD that may still be at work is left alone.
pub fn collect(valid: &BTreeSet<Identity>, bpf_dir: Option<&Path>) -> Result<(), NetlinkError> {
    let mut node = Netlink::open()?;
    let links = node.veths()?;
    remove_unfinished(&mut node, &links);
    let mut outcome = Ok(());
    for attachment in links.iter().filter_map(Attachment::of) {
        let identity = (attachment.container_id, attachment.ifname);
        if valid.contains(&identity) || is_standalone(&identity.0) {
            continue;
        }
        // One that cannot be detached does not keep the others.
        outcome = detach(&identity.0, &identity.1, bpf_dir).map(|_| ()).and(outcome);
    }
    outcome
}

/// Removes what killed ADDs have left.
pub(crate) fn remove_unfinished(node: &mut Netlink, links: &[Link]) {
    let now = monotonic_seconds();
    for link in links.iter().filter(|link| is_unfinished(link, now)) {
        tracing::warn!(link = link.name, "removing what an unfinished ADD has left");
        if let Err(error) = ignore_missing(node.delete_link(link.index)) {
            tracing::warn!(link = link.name, %error, "an unfinished ADD stays");
        }
    }
}

/// Every attachment in the network namespace of the calling thread, in the order of the links' indices.
pub fn attachments() -> Result<Vec<Attachment>, NetlinkError> {
    let mut found: Vec<_> = Netlink::open()?.veths()?.iter().filter_map(Attachment::of).collect();
    found.sort_by_key(|attachment| attachment.index);
    Ok(found)
}

fn ignore_missing(result: Result<(), NetlinkError>) -> Result<(), NetlinkError> {
    match result {
        Err(error) if error.is_missing() => Ok(()),
        result => result,
    }
}

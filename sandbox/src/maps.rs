//! What the kernel programs know of pods: told by attach, forgotten by detach, and freed of pods that went without a
//! DEL. The maps are the daemon's; where it has not made them there is nothing to tell.

use std::collections::BTreeSet;
use std::path::Path;

use crate::attachment::Attachment;
use crate::bpf::{HostPorts, MapError, PodKey, Pods};
use crate::netlink::{Netlink, NetlinkError};

/// The maps could not be freed of pods that are gone.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// A map.
    #[error(transparent)]
    Map(#[from] MapError),
    /// The links could not be listed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
}

/// Says which addresses the pod has. Again is fine.
pub fn tell(bpf_dir: &Path, attachment: &Attachment) -> Result<(), MapError> {
    match Pods::open(bpf_dir)? {
        Some(pods) => pods.insert(attachment.cookie, attachment.index, &attachment.addresses),
        None => Ok(()),
    }
}

/// Whether everything is told that [`tell`] says.
pub(crate) fn is_told(bpf_dir: &Path, attachment: &Attachment) -> Result<bool, MapError> {
    let Some(pods) = Pods::open(bpf_dir)? else { return Ok(true) };
    let keys = [PodKey::Namespace(attachment.cookie), PodKey::Link(attachment.index)];
    Ok(keys
        .into_iter()
        .map(|key| pods.contains(key))
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .all(|told| told))
}

/// Takes the pod of a host end out, as far as that is possible; its cookie where it is known.
pub(crate) fn forget(bpf_dir: Option<&Path>, index: u32, cookie: Option<u64>) {
    let Some(bpf_dir) = bpf_dir else { return };
    let forgotten = || -> Result<(), MapError> {
        if let Some(ports) = HostPorts::open(bpf_dir)? {
            ports.release(index)?;
        }
        let Some(pods) = Pods::open(bpf_dir)? else { return Ok(()) };
        pods.remove(PodKey::Link(index))?;
        cookie.map_or(Ok(()), |cookie| pods.remove(PodKey::Namespace(cookie)))
    };
    if let Err(error) = forgotten() {
        tracing::warn!(index, %error, "a pod stays in the maps until the daemon looks");
    }
}

/// What the maps have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapEntries {
    /// How many entries: two for each pod.
    pub pods: usize,
    /// How many entries: one for each hostPort and family.
    pub host_ports: usize,
    /// The host ends of pods that have hostPorts.
    pub led_to: BTreeSet<u32>,
}

/// Counts what the maps say of pods.
pub fn map_entries(bpf_dir: &Path) -> Result<MapEntries, MapError> {
    let pods = Pods::open(bpf_dir)?.map(|pods| pods.keys()).transpose()?.unwrap_or_default();
    let ports = HostPorts::open(bpf_dir)?.map(|ports| ports.entries()).transpose()?.unwrap_or_default();
    let led_to = ports.iter().map(|(_, entry)| entry.index).collect();
    Ok(MapEntries { pods: pods.len(), host_ports: ports.len(), led_to })
}

/// Removes what the maps say of pods that are gone; how many entries that was. Called in the network namespace of the
/// node.
pub fn prune(bpf_dir: &Path) -> Result<usize, PruneError> {
    // The maps before the links: whatever is told of a pod, its link was there before.
    let pods = Pods::open(bpf_dir)?;
    let ports = HostPorts::open(bpf_dir)?;
    let keys = pods.as_ref().map(Pods::keys).transpose()?.unwrap_or_default();
    let taken = ports.as_ref().map(HostPorts::entries).transpose()?.unwrap_or_default();
    if keys.is_empty() && taken.is_empty() {
        return Ok(0);
    }
    let links = Netlink::open()?.veths()?;
    let indices: BTreeSet<u32> = links.iter().map(|link| link.index).collect();
    let cookies: BTreeSet<u64> =
        links.iter().filter_map(Attachment::of).map(|attachment| attachment.cookie).collect();
    let mut removed = 0;
    if let Some(pods) = &pods {
        let is_gone = |key: &&PodKey| match key {
            PodKey::Namespace(cookie) => !cookies.contains(cookie),
            PodKey::Link(index) => !indices.contains(index),
        };
        for key in keys.iter().filter(is_gone) {
            pods.remove(*key)?;
            removed += 1;
        }
    }
    if let Some(ports) = &ports {
        removed += ports.remove_gone(&taken, |index| !indices.contains(&index))?;
    }
    Ok(removed)
}

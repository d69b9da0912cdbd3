//! Pods whose sockets the hooks cannot see: their processes are in no cgroup below the node's, or one makes packets
//! itself, as a virtual machine does. Reads `/proc` alone, and enters namespaces; for `fairway check`.

use std::collections::BTreeMap;
use std::fs::{read_dir, read_link};
use std::io;
use std::path::{Path, PathBuf};

use super::namespaces;
use crate::cgroup::Cgroup;
use crate::sys;

/// What a virtual machine's process has open; that of a tunnel, too.
const TUN: &str = "/dev/net/tun";

/// Why the sockets of a namespace are not seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Blindness {
    /// This process is in no cgroup of the node.
    Cgroup {
        /// Its id.
        process: u32,
        /// Its cgroup, as the kernel tells it.
        cgroup: String,
    },
    /// This process makes packets itself: what it does not send by sockets of this kernel is not seen.
    OwnPackets {
        /// Its id.
        process: u32,
    },
}

/// The cookies of the network namespaces, besides this thread's own, with sockets that hooks at `cgroup` cannot see.
///
/// # Errors
///
/// If `/proc` cannot be read, or the cgroup is of no mount.
pub fn blind_spots(cgroup: &Path) -> io::Result<BTreeMap<u64, Blindness>> {
    let inside = Cgroup::at(cgroup)?;
    let mut found = BTreeMap::new();
    for process in read_dir("/proc")?.filter_map(Result::ok) {
        let Some(id) = process.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let folder = process.path();
        if let Some(number) = namespaces::number_at(&folder.join("ns/net"))
            && let Some(why) = blindness(id, &folder, &inside)
        {
            found.entry(number).or_insert((folder.join("ns/net"), why));
        }
    }
    std::thread::scope(|scope| {
        scope.spawn(|| cookies(found)).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// By cookie instead of by number; what has ended meanwhile is left out.
fn cookies(found: BTreeMap<u64, (PathBuf, Blindness)>) -> io::Result<BTreeMap<u64, Blindness>> {
    let own = sys::netns_cookie()?;
    let mut all = BTreeMap::new();
    for (path, why) in found.into_values() {
        let entered = std::fs::File::open(path).and_then(|namespace| namespaces::enter(&namespace));
        if entered.is_ok() {
            all.insert(sys::netns_cookie()?, why);
        }
    }
    all.remove(&own);
    Ok(all)
}

fn blindness(process: u32, folder: &Path, inside: &Cgroup) -> Option<Blindness> {
    let (own, cgroup) = Cgroup::of(folder)?;
    if inside.holds(&own) == Some(false) {
        return Some(Blindness::Cgroup { process, cgroup });
    }
    let mut files = read_dir(folder.join("fd")).ok()?.filter_map(Result::ok);
    let has_tun = files.any(|file| read_link(file.path()).is_ok_and(|target| target == Path::new(TUN)));
    has_tun.then_some(Blindness::OwnPackets { process })
}

//! Whether the daemon and its programs are alive, as its pins tell: the heartbeat that it writes and the links of its
//! programs. Changes nothing and asks nobody; called by STATUS.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

use super::LAYOUT;
use super::map::{Map, is_attached, open_pinned};

/// What the pins of the programs' links begin with.
const LINK_PREFIX: &str = "link_";

/// When the daemon last said that it answers, on CLOCK_MONOTONIC; half a second less once it has ended. None without
/// its map.
pub(crate) fn heartbeat(bpf_dir: &Path) -> io::Result<Option<Duration>> {
    let map = Map::<4, 8>::open(bpf_dir.join(LAYOUT).join("node")).map_err(io::Error::other)?;
    let beat = map.map(|map| map.get(&0u32.to_ne_bytes())).transpose().map_err(io::Error::other)?.flatten();
    Ok(beat.map(|beat| Duration::from_nanos(u64::from_ne_bytes(beat))))
}

/// Whether the daemon's programs are pinned and each is still attached: the kernel detaches them when their
/// cgroup goes, and their pins stay.
pub(crate) fn programs_run(bpf_dir: &Path) -> io::Result<bool> {
    let folder = match std::fs::read_dir(bpf_dir.join(LAYOUT)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        folder => folder?,
    };
    let mut some = false;
    for entry in folder {
        let entry = entry?;
        if !entry.file_name().as_bytes().starts_with(LINK_PREFIX.as_bytes()) {
            continue;
        }
        some = true;
        match open_pinned(&entry.path())? {
            Some(link) if is_attached(&link)? => {}
            _ => return Ok(false),
        }
    }
    Ok(some)
}

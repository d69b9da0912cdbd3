//! The pinned map `pods` that the kernel programs read, and whether the daemon and its programs are alive, by raw
//! bpf(2) calls: open by path, look up, update, delete, ask about a link. No eBPF library: a plug-in of 2 MB has no room for one. Where the pin does not exist nothing is
//! written; the daemon fills a new map from [`crate::attachments`].

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_TYPE_CGROUP: u32 = 3;
/// Below the daemon's directory: its layout.
const LAYOUT: &str = "v1";
/// What the pins of the programs' links begin with.
const LINK_PREFIX: &str = "link_";

/// The map's value: the IPv4 address mapped into IPv6, then the IPv6 address; zero where there is none.
pub type PodValue = [u8; 32];

/// The kernel did not take an entry.
#[derive(Debug, thiserror::Error)]
#[error("map {path}: {source}")]
pub struct PodsError {
    path: PathBuf,
    source: io::Error,
}

/// The open map of a layout.
pub struct Pods {
    map: OwnedFd,
    path: PathBuf,
}

/// `struct bpf_attr` as BPF_OBJ_GET reads it.
#[repr(C)]
struct ObjectAttribute {
    path: u64,
    file: u32,
    flags: u32,
}

/// `struct bpf_attr` as BPF_OBJ_GET_INFO_BY_FD reads it.
#[repr(C)]
struct InfoAttribute {
    file: u32,
    length: u32,
    info: u64,
}

/// The begin of `struct bpf_link_info`, as it is for a cgroup's link, with room for others.
#[repr(C)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    cgroup: u64,
    rest: [u64; 4],
}

/// `struct bpf_attr` as the calls on map elements read it.
#[repr(C)]
struct ElementAttribute {
    map: u32,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Pods {
    /// Opens the map below `bpf_dir`, the daemon's directory of pins; None where it is not there.
    pub fn open(bpf_dir: &Path) -> Result<Option<Self>, PodsError> {
        let path = bpf_dir.join(LAYOUT).join("pods");
        let map = open_pinned(&path).map_err(|source| PodsError { path: path.clone(), source })?;
        Ok(map.map(|map| Self { map, path }))
    }

    /// Says which addresses the namespace of `cookie` has.
    pub fn insert(&self, cookie: u64, addresses: &[IpAddr]) -> Result<(), PodsError> {
        let value = pod_value(addresses);
        self.element(BPF_MAP_UPDATE_ELEM, cookie, Some(&value))
    }

    /// Forgets the namespace of `cookie`; unknown is fine.
    pub fn remove(&self, cookie: u64) -> Result<(), PodsError> {
        match self.element(BPF_MAP_DELETE_ELEM, cookie, None) {
            Err(error) if error.source.kind() == io::ErrorKind::NotFound => Ok(()),
            result => result,
        }
    }

    /// Whether the programs know the namespace of `cookie`.
    pub fn contains(&self, cookie: u64) -> Result<bool, PodsError> {
        let mut value: PodValue = [0; 32];
        let (key, out) = ((&raw const cookie) as u64, (&raw mut value) as u64);
        match element(BPF_MAP_LOOKUP_ELEM, &self.map, key, out) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            result => result.map(|()| true).map_err(|source| PodsError { path: self.path.clone(), source }),
        }
    }

    fn element(&self, command: libc::c_long, cookie: u64, value: Option<&PodValue>) -> Result<(), PodsError> {
        let value = value.map_or(0, |value| value.as_ptr() as u64);
        let result = element(command, &self.map, (&raw const cookie) as u64, value);
        result.map_err(|source| PodsError { path: self.path.clone(), source })
    }
}

/// When the daemon last said that it answers, on CLOCK_MONOTONIC; zero once it has ended. None without its map.
pub(crate) fn heartbeat(bpf_dir: &Path) -> io::Result<Option<Duration>> {
    let Some(map) = open_pinned(&bpf_dir.join(LAYOUT).join("node"))? else { return Ok(None) };
    let (key, mut beat) = (0u32, 0u64);
    element(BPF_MAP_LOOKUP_ELEM, &map, (&raw const key) as u64, (&raw mut beat) as u64)?;
    Ok(Some(Duration::from_nanos(beat)))
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

/// A cgroup link whose cgroup is gone has no cgroup id any more.
fn is_attached(link: &OwnedFd) -> io::Result<bool> {
    let mut info = LinkInfo { kind: 0, id: 0, program: 0, reserved: 0, cgroup: 0, rest: [0; 4] };
    let attribute = InfoAttribute {
        file: link.as_raw_fd().unsigned_abs(),
        length: u32::try_from(size_of::<LinkInfo>()).unwrap_or(0),
        info: (&raw mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &attribute)?;
    Ok(info.kind != BPF_LINK_TYPE_CGROUP || info.cgroup != 0)
}

/// The value of the map for the addresses of a pod.
pub fn pod_value(addresses: &[IpAddr]) -> PodValue {
    let mut value = [0; 32];
    for address in addresses {
        match address {
            IpAddr::V4(ip) => value[..16].copy_from_slice(&ip.to_ipv6_mapped().octets()),
            IpAddr::V6(ip) => value[16..].copy_from_slice(&Ipv6Addr::octets(ip)),
        }
    }
    value
}

fn open_pinned(path: &Path) -> io::Result<Option<OwnedFd>> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let attribute = ObjectAttribute { path: name.as_ptr() as u64, file: 0, flags: 0 };
    match bpf(BPF_OBJ_GET, &attribute) {
        Ok(file) => {
            let raw = i32::try_from(file).map_err(io::Error::other)?;
            // SAFETY: the kernel has just made this descriptor for us.
            Ok(Some(unsafe { OwnedFd::from_raw_fd(raw) }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// `key` and `value` are addresses of objects of the map's sizes.
fn element(command: libc::c_long, map: &OwnedFd, key: u64, value: u64) -> io::Result<()> {
    let map = map.as_raw_fd().unsigned_abs();
    let attribute = ElementAttribute { map, reserved: 0, key, value, flags: 0 };
    bpf(command, &attribute).map(|_| ())
}

fn bpf<T>(command: libc::c_long, attribute: &T) -> io::Result<libc::c_long> {
    let pointer: *const T = attribute;
    // SAFETY: the attribute outlives the call and the kernel reads no more than its size.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_holds_both_families() {
        let value = pod_value(&["10.1.2.3".parse().unwrap(), "fd00::7".parse().unwrap()]);
        assert_eq!(value[..16], [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3]);
        assert_eq!(value[16..18], [0xfd, 0]);
        assert_eq!(value[31], 7);
        assert_eq!(pod_value(&[]), [0; 32]);
    }
}

//! The pinned map `pods` that the kernel programs read, by three raw bpf(2) calls: open by path, update,
//! delete. No eBPF library: a plug-in of 2 MB has no room for one. Where the pin does not exist nothing is
//! written; the daemon fills a new map from [`crate::attachments`].

use std::ffi::CString;
use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_GET: libc::c_long = 7;

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
        let path = bpf_dir.join("v1/pods");
        let failed = |source| PodsError { path: path.clone(), source };
        let name = CString::new(path.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
        let attribute = ObjectAttribute { path: name.as_ptr() as u64, file: 0, flags: 0 };
        match bpf(BPF_OBJ_GET, &attribute) {
            Ok(file) => {
                let raw = i32::try_from(file).map_err(|error| failed(io::Error::other(error)))?;
                // SAFETY: the kernel has just made this descriptor for us.
                let map = unsafe { OwnedFd::from_raw_fd(raw) };
                Ok(Some(Self { map, path }))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(error)),
        }
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

    fn element(&self, command: libc::c_long, cookie: u64, value: Option<&PodValue>) -> Result<(), PodsError> {
        let attribute = ElementAttribute {
            map: self.map.as_raw_fd().unsigned_abs(),
            reserved: 0,
            key: (&raw const cookie) as u64,
            value: value.map_or(0, |value| value.as_ptr() as u64),
            flags: 0,
        };
        let result = bpf(command, &attribute);
        result.map(|_| ()).map_err(|source| PodsError { path: self.path.clone(), source })
    }
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

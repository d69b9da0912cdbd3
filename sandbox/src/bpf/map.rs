//! One pinned object, by raw bpf(2): opened, its elements read, written, removed and listed. Knows no map's meaning.
//! The only file of the crate that makes the call.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_long = 4;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_LINK_TYPE_CGROUP: u32 = 3;
const BPF_ANY: u64 = 0;
const BPF_NOEXIST: u64 = 1;

/// The kernel refused an access to a map.
#[derive(Debug, thiserror::Error)]
#[error("map {path}: {source}")]
pub struct MapError {
    path: PathBuf,
    source: io::Error,
}

/// A key with its value.
type Element<const K: usize, const V: usize> = ([u8; K], [u8; V]);

/// An open map with keys of `K` and values of `V` bytes.
pub(super) struct Map<const K: usize, const V: usize> {
    file: OwnedFd,
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
    /// The value, or where the next key is written.
    value: u64,
    flags: u64,
}

impl<const K: usize, const V: usize> Map<K, V> {
    /// Opens what is pinned at `path`; None where nothing is.
    pub(super) fn open(path: PathBuf) -> Result<Option<Self>, MapError> {
        match open_pinned(&path) {
            Ok(file) => Ok(file.map(|file| Self { file, path })),
            Err(source) => Err(MapError { path, source }),
        }
    }

    pub(super) fn get(&self, key: &[u8; K]) -> Result<Option<[u8; V]>, MapError> {
        let mut value = [0; V];
        let found = self.call(BPF_MAP_LOOKUP_ELEM, key.as_ptr() as u64, value.as_mut_ptr() as u64, BPF_ANY);
        Ok(self.some(found)?.map(|()| value))
    }

    pub(super) fn put(&self, key: &[u8; K], value: &[u8; V]) -> Result<(), MapError> {
        let put = self.call(BPF_MAP_UPDATE_ELEM, key.as_ptr() as u64, value.as_ptr() as u64, BPF_ANY);
        put.map_err(|source| self.error(source))
    }

    /// Puts an element where none is; false if one is there.
    pub(super) fn put_new(&self, key: &[u8; K], value: &[u8; V]) -> Result<bool, MapError> {
        match self.call(BPF_MAP_UPDATE_ELEM, key.as_ptr() as u64, value.as_ptr() as u64, BPF_NOEXIST) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            put => put.map(|()| true).map_err(|source| self.error(source)),
        }
    }

    /// Removes an element; one that is not there is fine.
    pub(super) fn remove(&self, key: &[u8; K]) -> Result<(), MapError> {
        let removed = self.call(BPF_MAP_DELETE_ELEM, key.as_ptr() as u64, 0, BPF_ANY);
        self.some(removed).map(drop)
    }

    /// Every element. One that comes or goes meanwhile may be missed or told twice.
    pub(super) fn elements(&self) -> Result<Vec<Element<K, V>>, MapError> {
        let mut elements = Vec::new();
        let mut last: Option<[u8; K]> = None;
        loop {
            let mut next = [0; K];
            let after = last.as_ref().map_or(0, |key| key.as_ptr() as u64);
            let found = self.call(BPF_MAP_GET_NEXT_KEY, after, next.as_mut_ptr() as u64, BPF_ANY);
            if self.some(found)?.is_none() {
                return Ok(elements);
            }
            if let Some(value) = self.get(&next)? {
                elements.push((next, value));
            }
            last = Some(next);
        }
    }

    /// `key` and `value` are addresses of objects of the map's sizes, or zero where the call takes none.
    fn call(&self, command: libc::c_long, key: u64, value: u64, flags: u64) -> io::Result<()> {
        let map = self.file.as_raw_fd().unsigned_abs();
        bpf(command, &mut ElementAttribute { map, reserved: 0, key, value, flags }).map(|_| ())
    }

    fn some<T>(&self, result: io::Result<T>) -> Result<Option<T>, MapError> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            result => result.map(Some).map_err(|source| self.error(source)),
        }
    }

    fn error(&self, source: io::Error) -> MapError {
        MapError { path: self.path.clone(), source }
    }
}

impl MapError {
    pub(super) fn new(path: &Path, source: io::Error) -> Self {
        Self { path: path.to_owned(), source }
    }
}

/// Opens a pin of any kind; None where there is none.
pub(super) fn open_pinned(path: &Path) -> io::Result<Option<OwnedFd>> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    let mut attribute = ObjectAttribute { path: name.as_ptr() as u64, file: 0, flags: 0 };
    match bpf(BPF_OBJ_GET, &mut attribute) {
        Ok(file) => {
            let raw = i32::try_from(file).map_err(io::Error::other)?;
            // SAFETY: the kernel has just made this descriptor for us.
            Ok(Some(unsafe { OwnedFd::from_raw_fd(raw) }))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a program's link is still attached: a cgroup link whose cgroup is gone has no cgroup id any more.
pub(super) fn is_attached(link: &OwnedFd) -> io::Result<bool> {
    let mut info = LinkInfo { kind: 0, id: 0, program: 0, reserved: 0, cgroup: 0, rest: [0; 4] };
    let mut attribute = InfoAttribute {
        file: link.as_raw_fd().unsigned_abs(),
        length: u32::try_from(size_of::<LinkInfo>()).unwrap_or(0),
        info: (&raw mut info) as u64,
    };
    bpf(BPF_OBJ_GET_INFO_BY_FD, &mut attribute)?;
    Ok(info.kind != BPF_LINK_TYPE_CGROUP || info.cgroup != 0)
}

/// Some commands write into their attribute: BPF_OBJ_GET_INFO_BY_FD the length of its answer.
fn bpf<T>(command: libc::c_long, attribute: &mut T) -> io::Result<libc::c_long> {
    let pointer: *mut T = attribute;
    // SAFETY: the attribute outlives the call, and these commands read and write no more than its size.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

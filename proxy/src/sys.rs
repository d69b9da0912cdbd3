//! System calls that aya has no words for: bpf(2) on links and programs, membarrier(2), mmap of a map, and
//! cookies. The only file that calls them; it never decides anything.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};

const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_MAP_UPDATE_ELEM: libc::c_long = 2;
const BPF_MAP_DELETE_ELEM: libc::c_long = 3;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
const BPF_PROG_QUERY: libc::c_long = 16;
const BPF_LINK_UPDATE: libc::c_long = 29;
const BPF_F_QUERY_EFFECTIVE: u32 = 1;
const MEMBARRIER_CMD_GLOBAL: libc::c_long = 1;

/// The start of `union bpf_attr` for BPF_OBJ_GET and BPF_OBJ_PIN.
#[repr(C)]
struct ObjGet {
    path: u64,
    fd: u32,
    flags: u32,
}

/// For BPF_LINK_UPDATE.
#[repr(C)]
struct LinkUpdate {
    link: u32,
    new_program: u32,
    flags: u32,
    old_program: u32,
}

/// For BPF_PROG_QUERY: whole, since the kernel writes the last field whatever size it is told (`revision`, of tcx
/// since 6.6 and of cgroups since 6.17).
#[derive(Default)]
#[repr(C)]
struct ProgQuery {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    padding: u32,
    id_flags: u64,
    link_ids: u64,
    link_flags: u64,
    revision: u64,
}

const _: () = assert!(size_of::<ProgQuery>() == 64);

/// For BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM and BPF_MAP_DELETE_ELEM.
#[repr(C)]
struct Element {
    map: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// For BPF_MAP_LOOKUP_BATCH.
#[repr(C)]
struct Batch {
    from: u64,
    next: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    flags: [u64; 2],
}

/// For BPF_OBJ_GET_INFO_BY_FD.
#[repr(C)]
struct ObjInfo {
    fd: u32,
    len: u32,
    info: u64,
}

/// The start of `struct bpf_link_info` for a cgroup link.
#[repr(C)]
#[derive(Default)]
struct CgroupLinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    padding: u32,
    cgroup: u64,
    attach_type: u32,
    tail: u32,
}

/// Opens what is pinned at `path`; None if nothing is.
pub(crate) fn open_pinned(path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjGet { path: path.as_ptr() as u64, fd: 0, flags: 0 };
    match bpf(BPF_OBJ_GET, &attr) {
        Ok(fd) => Ok(Some(owned(fd))),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the pin at `path`. What it kept alive is gone on return: the kernel puts off the end of a link whose last
/// reference is a pin, and not the end of one whose last reference is a descriptor.
pub(crate) fn remove_pin(path: &Path) -> io::Result<()> {
    let _last = open_pinned(path)?;
    std::fs::remove_file(path)
}

/// Gives a link another program, without a moment in between. ENOLINK: its cgroup is gone.
pub(crate) fn update_link(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = LinkUpdate { link: raw(link), new_program: raw(program), flags: 0, old_program: 0 };
    bpf(BPF_LINK_UPDATE, &attr).map(drop)
}

/// The id of the cgroup that a link is attached to, and of its program; the cgroup is 0 if it is gone.
pub(crate) fn link_cgroup(link: BorrowedFd<'_>) -> io::Result<(u64, u32)> {
    let mut info = CgroupLinkInfo::default();
    #[expect(clippy::cast_possible_truncation, reason = "a few bytes")]
    let len = size_of::<CgroupLinkInfo>() as u32;
    // The kernel writes the length of its answer back.
    let mut attr = ObjInfo { fd: raw(link), len, info: (&raw mut info) as u64 };
    bpf_mut(BPF_OBJ_GET_INFO_BY_FD, &mut attr)?;
    Ok((info.cgroup, info.program))
}

/// The ids of the programs that run for sockets of a cgroup, those of its ancestors included.
pub(crate) fn effective_programs(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<u32>> {
    let mut ids = [0_u32; 64];
    let count = query(raw(cgroup), attach_type, BPF_F_QUERY_EFFECTIVE, &mut ids)?;
    Ok(ids[..count].to_vec())
}

/// Fills `ids` with the programs that are attached to a cgroup or a link; how many it has.
pub(crate) fn query(target: u32, attach_type: u32, flags: u32, ids: &mut [u32]) -> io::Result<usize> {
    let count = u32::try_from(ids.len()).expect("a handful of programs");
    let ids = if ids.is_empty() { 0 } else { ids.as_mut_ptr() as u64 };
    let mut attr = ProgQuery { target, attach_type, query_flags: flags, ids, count, ..ProgQuery::default() };
    bpf_mut(BPF_PROG_QUERY, &mut attr)?;
    Ok(attr.count.min(count) as usize)
}

/// Every element of a hash map. One that comes or goes meanwhile may be there or not.
pub(crate) fn elements<K: Copy + Default, V: Copy>(map: BorrowedFd<'_>) -> io::Result<Vec<(K, V)>> {
    const AT_ONCE: usize = 4096;
    let mut found = Vec::new();
    let mut keys = vec![K::default(); AT_ONCE];
    let mut values: Vec<V> = Vec::with_capacity(AT_ONCE);
    let mut position: Option<u32> = None;
    loop {
        let mut next = 0_u32;
        let mut attr = Batch {
            from: position.as_ref().map_or(0, |position| std::ptr::from_ref(position) as u64),
            next: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: 4096,
            map: raw(map),
            flags: [0; 2],
        };
        let done = match bpf_mut(BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        // SAFETY: the kernel has written that many values.
        unsafe { values.set_len(attr.count as usize) };
        found.extend(std::iter::zip(&keys, &values).map(|(key, value)| (*key, *value)));
        values.clear();
        if done {
            return Ok(found);
        }
        position = Some(next);
    }
}

/// Pins an object at `path`.
pub(crate) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attr = ObjGet { path: path.as_ptr() as u64, fd: raw(object), flags: 0 };
    bpf(BPF_OBJ_PIN, &attr).map(drop)
}

/// An element of a map; `V` must be its value, of any bits.
pub(crate) fn lookup<K, V: Copy>(map: BorrowedFd<'_>, key: &K) -> io::Result<Option<V>> {
    let mut value = MaybeUninit::<V>::uninit();
    let (key, found) = (std::ptr::from_ref(key) as u64, value.as_mut_ptr() as u64);
    match bpf(BPF_MAP_LOOKUP_ELEM, &Element { map: raw(map), padding: 0, key, value: found, flags: 0 }) {
        // SAFETY: the kernel has written the value.
        Ok(_) => Ok(Some(unsafe { value.assume_init() })),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Inserts an element into a map; one that is there already stays, unless `overwrite`.
pub(crate) fn insert<K, V>(map: BorrowedFd<'_>, key: &K, value: &V, overwrite: bool) -> io::Result<()> {
    const BPF_NOEXIST: u64 = 1;
    let (key, value) = (std::ptr::from_ref(key) as u64, std::ptr::from_ref(value) as u64);
    let flags = if overwrite { 0 } else { BPF_NOEXIST };
    match bpf(BPF_MAP_UPDATE_ELEM, &Element { map: raw(map), padding: 0, key, value, flags }) {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error),
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Removes an element of a map; false if it is not there.
pub(crate) fn remove<K>(map: BorrowedFd<'_>, key: &K) -> io::Result<bool> {
    let attr = Element { map: raw(map), padding: 0, key: std::ptr::from_ref(key) as u64, value: 0, flags: 0 };
    match bpf(BPF_MAP_DELETE_ELEM, &attr) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Waits until no CPU runs a hook that began before: membarrier(GLOBAL) is synchronize_rcu.
pub(crate) fn barrier() -> io::Result<()> {
    // SAFETY: a system call without pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The cookie of this thread's network namespace.
pub fn netns_cookie() -> io::Result<u64> {
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    let socket = owned(libc::c_long::from(fd));
    let mut cookie = 0_u64;
    let mut len: libc::socklen_t = 8;
    // SAFETY: the option writes at most `len` bytes to `cookie`.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut len,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}

/// Every address in this thread's network namespace.
pub(crate) fn own_addresses() -> io::Result<Vec<IpAddr>> {
    let mut list: *mut libc::ifaddrs = std::ptr::null_mut();
    // SAFETY: `list` is valid for the write.
    if unsafe { libc::getifaddrs(&raw mut list) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    // SAFETY: null, or an entry of the list, which is freed after the last look at it.
    let mut next = unsafe { list.as_ref() };
    while let Some(entry) = next {
        found.extend(address_of(entry.ifa_addr));
        // SAFETY: as above.
        next = unsafe { entry.ifa_next.as_ref() };
    }
    // SAFETY: the list is ours, and nothing points into it any more.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

fn address_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: null, or an address that the C library has just written.
    let family = i32::from(unsafe { address.as_ref() }?.sa_family);
    match family {
        libc::AF_INET => {
            // SAFETY: the family says that it is one.
            let address = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some(IpAddr::from(address.sin_addr.s_addr.to_ne_bytes()))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let address = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some(IpAddr::from(address.sin6_addr.s6_addr))
        }
        _ => None,
    }
}

/// CLOCK_MONOTONIC in nanoseconds, the clock of bpf_ktime_get_ns.
pub(crate) fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the write; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// How much of a map is mapped at once. The kernel counts every mapped page as this process' memory, touched or
/// not, and maps are made for the largest cluster; the largest element divides it.
const CHUNK: usize = 1 << 16;

/// A mmapable map, in memory: its addresses are reserved, and each chunk is mapped when it is first used.
#[derive(Debug)]
pub(crate) struct Memory {
    map: OwnedFd,
    /// Where in the map it begins.
    offset: usize,
    start: NonNull<u8>,
    len: usize,
    mapped: Box<[AtomicBool]>,
}

// SAFETY: the memory is shared with the kernel anyway; every access goes through raw pointers.
unsafe impl Send for Memory {}
// SAFETY: as above; concurrent accesses are single aligned loads and stores.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps the first `len` bytes of a map.
    pub(crate) fn map(map: BorrowedFd<'_>, len: usize) -> io::Result<Self> {
        Self::part(map, 0, len)
    }

    /// Maps `len` bytes of a map from `offset` on, a multiple of the size of a page.
    pub(crate) fn part(map: BorrowedFd<'_>, offset: usize, len: usize) -> io::Result<Self> {
        let (null, nowhere) =
            (std::ptr::null_mut(), libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
        // SAFETY: a new mapping at an address of the kernel's choice, which nothing can touch.
        let start = unsafe { libc::mmap(null, len, libc::PROT_NONE, nowhere, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start =
            NonNull::new(start.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
        let mapped = (0..len.div_ceil(CHUNK)).map(|_| AtomicBool::new(false)).collect();
        let memory = Self { map: map.try_clone_to_owned()?, offset, start, len, mapped };
        memory.map_chunk(0)?;
        Ok(memory)
    }

    /// The element `index` of an array of `T`.
    ///
    /// # Panics
    ///
    /// If the array has no such element, or if the kernel has no memory for the page tables of its chunk.
    pub(crate) fn at<T>(&self, index: usize) -> NonNull<T> {
        const { assert!(CHUNK.is_multiple_of(size_of::<T>())) };
        let offset = index * size_of::<T>();
        assert!(offset + size_of::<T>() <= self.len, "element {index} is beyond the map");
        if !self.mapped[offset / CHUNK].load(Ordering::Acquire) {
            self.map_chunk(offset / CHUNK).expect("what is mapped in part can be mapped in whole");
        }
        // SAFETY: inside the mapping, as just asserted.
        unsafe { self.start.add(offset) }.cast()
    }

    /// Another thread may do the same: both mappings are one.
    fn map_chunk(&self, chunk: usize) -> io::Result<()> {
        let offset = chunk * CHUNK;
        let len = CHUNK.min(self.len - offset);
        // SAFETY: inside the reserved addresses.
        let address = unsafe { self.start.add(offset) };
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_FIXED);
        let from =
            libc::off_t::try_from(self.offset + offset).expect("a map is smaller than an address space");
        // SAFETY: it takes the place of addresses that are ours and that nobody has been given yet, or of the
        // same mapping.
        let mapped =
            unsafe { libc::mmap(address.as_ptr().cast(), len, access, kind, self.map.as_raw_fd(), from) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        self.mapped[chunk].store(true, Ordering::Release);
        Ok(())
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing outlives it.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

pub(crate) fn bpf<T>(command: libc::c_long, attr: &T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads no more than the size says, and these commands write nothing to `attr`.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub(crate) fn bpf_mut<T>(command: libc::c_long, attr: &mut T) -> io::Result<libc::c_long> {
    // SAFETY: the kernel reads and writes no more than the size says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub(crate) fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_fd().as_raw_fd().unsigned_abs()
}

pub(crate) fn owned(fd: libc::c_long) -> OwnedFd {
    let fd = i32::try_from(fd).expect("the kernel hands out descriptors of 32 bits");
    // SAFETY: the kernel has just handed it out, and nobody else has it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

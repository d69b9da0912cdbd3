//! System calls of the packet engine that aya has no words for: links of tcx by the index of the interface, and
//! reading a map in batches. It never decides anything.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::sys::{bpf, bpf_mut, owned, query, raw};

const BPF_MAP_LOOKUP_BATCH: libc::c_long = 24;
const BPF_LINK_CREATE: libc::c_long = 28;
/// The loopback interface has this index in every namespace.
const LOOPBACK: u32 = 1;

/// For BPF_LINK_CREATE of tcx.
#[repr(C)]
struct LinkCreate {
    program: u32,
    interface: u32,
    attach_type: u32,
    flags: u32,
    relative: u64,
    revision: u64,
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
    element_flags: u64,
    flags: u64,
}

/// Whether this kernel has tcx (6.6).
pub(super) fn has_tcx(attach_type: u32) -> bool {
    query(LOOPBACK, attach_type, 0, &mut []).is_ok()
}

/// The names of the links of this thread's network namespace.
pub(super) fn links() -> Vec<String> {
    // SAFETY: a call without arguments; what it returns is freed below.
    let first = unsafe { libc::if_nameindex() };
    let (mut names, mut entry) = (Vec::new(), first);
    if first.is_null() {
        return names;
    }
    loop {
        // SAFETY: the list ends with an entry that has no name, which is not gone beyond.
        let name = unsafe { (*entry).if_name };
        if name.is_null() {
            break;
        }
        // SAFETY: a name ends with a zero.
        names.push(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned());
        // SAFETY: this was not the last entry.
        entry = unsafe { entry.add(1) };
    }
    // SAFETY: from if_nameindex, freed once.
    unsafe { libc::if_freenameindex(first) };
    names
}

/// Attaches a program behind those that are there.
pub(super) fn attach(program: BorrowedFd<'_>, interface: u32, attach_type: u32) -> io::Result<OwnedFd> {
    let attr =
        LinkCreate { program: raw(program), interface, attach_type, flags: 0, relative: 0, revision: 0 };
    bpf(BPF_LINK_CREATE, &attr).map(owned)
}

/// The index of the interface that a link of tcx is attached to; 0 if it is gone.
pub(super) fn interface(link: BorrowedFd<'_>) -> io::Result<u32> {
    // Where the information on a link of a cgroup has the id, this one has the index and the attach type.
    let (place, _) = crate::sys::link_cgroup(link)?;
    #[expect(clippy::cast_possible_truncation, reason = "the first word of the two")]
    Ok(place as u32)
}

/// Reads every element of a hash, `keys.len()` at once, which must be more than the longest bucket.
pub(super) fn for_each<K: Copy, V: Copy>(
    map: BorrowedFd<'_>,
    (keys, values): (&mut [K], &mut [V]),
    mut each: impl FnMut(K, V),
) -> io::Result<()> {
    let mut place: Option<u32> = None;
    loop {
        let mut next = 0_u32;
        #[expect(clippy::cast_possible_truncation, reason = "a few thousand")]
        let mut attr = Batch {
            from: place.as_ref().map_or(0, |place| std::ptr::from_ref(place) as u64),
            next: (&raw mut next) as u64,
            keys: keys.as_mut_ptr() as u64,
            values: values.as_mut_ptr() as u64,
            count: keys.len().min(values.len()) as u32,
            map: raw(map),
            element_flags: 0,
            flags: 0,
        };
        let ended = match bpf_mut(BPF_MAP_LOOKUP_BATCH, &mut attr) {
            Ok(_) => false,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => true,
            Err(error) => return Err(error),
        };
        for index in 0..attr.count as usize {
            each(keys[index], values[index]);
        }
        if ended {
            return Ok(());
        }
        place = Some(next);
    }
}

//! Raw bpf(2): what the kernel says that a program took (BPF_ENABLE_STATS), and an empty program beside it, which
//! is what the instrument itself adds. The only unsafe code of this crate.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_ENABLE_STATS: libc::c_long = 32;

/// Where a program is attached to a cgroup: its type and its attach type, in the kernel's numbers.
#[derive(Clone, Copy)]
pub(super) struct Hook {
    kind: u64,
    at: u64,
}

impl Hook {
    /// connect() of an IPv4 address.
    pub(super) const CONNECT4: Self = Self { kind: 18, at: 10 };
    /// The last close() of a socket.
    pub(super) const RELEASE: Self = Self { kind: 9, at: 34 };
}

/// A program that is loaded.
pub(super) struct Program {
    program: OwnedFd,
    /// What keeps it attached, if that is our business.
    _link: Option<OwnedFd>,
}

/// Nanoseconds and runs of a program since the statistics were switched on.
#[derive(Clone, Copy)]
pub(super) struct Spent {
    nanos: f64,
    runs: f64,
}

impl Spent {
    /// Nanoseconds of each run since `before`.
    pub(super) fn each_since(self, before: Self) -> f64 {
        (self.nanos - before.nanos) / (self.runs - before.runs)
    }
}

/// Has the kernel keep statistics of programs until what is returned is dropped.
pub(super) fn keep_statistics() -> Result<OwnedFd> {
    bpf(BPF_ENABLE_STATS, &[0]).context("the statistics of programs cannot be switched on")
}

impl Program {
    /// The program of a pinned link.
    pub(super) fn of_link(pin: &Path) -> Result<Self> {
        let path = CString::new(pin.as_os_str().as_bytes())?;
        let link = bpf(BPF_OBJ_GET, &[path.as_ptr() as u64, 0])
            .with_context(|| format!("no link at {}", pin.display()))?;
        let id = told(&link, "prog_id")?;
        Ok(Self { program: bpf(BPF_PROG_GET_FD_BY_ID, &[id, 0])?, _link: None })
    }

    /// A program that only lets pass, attached to a cgroup for as long as it lives.
    pub(super) fn empty(cgroup: &Path, hook: Hook) -> Result<Self> {
        // r0 = 1; exit
        let instructions = [0x1_0000_00b7_u64, 0x95];
        let mut load = [0_u64; 16];
        load[0] = hook.kind | (instructions.len() as u64) << 32;
        load[1] = instructions.as_ptr() as u64;
        load[2] = c"GPL".as_ptr() as u64;
        // expected_attach_type, at byte 68.
        load[8] = hook.at << 32;
        let program = bpf(BPF_PROG_LOAD, &load)?;
        let cgroup = File::open(cgroup)?;
        let link = bpf(BPF_LINK_CREATE, &[number(&program) | number(&cgroup) << 32, hook.at])?;
        Ok(Self { program, _link: Some(link) })
    }

    /// What it took so far.
    pub(super) fn spent(&self) -> Result<Spent> {
        let read = |key: &str| told(&self.program, key).map(|value| value as f64);
        Ok(Spent { nanos: read("run_time_ns")?, runs: read("run_cnt")? })
    }
}

/// One number that the kernel tells of a descriptor.
fn told(fd: &OwnedFd, key: &str) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    Ok(value.with_context(|| format!("the kernel does not tell {key}"))?.trim().parse()?)
}

fn number(fd: &impl AsRawFd) -> u64 {
    u64::from(fd.as_raw_fd().unsigned_abs())
}

fn bpf(command: libc::c_long, attribute: &[u64]) -> Result<OwnedFd> {
    // SAFETY: the kernel reads no more than the size says, and these commands write nothing.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_ptr(), size_of_val(attribute)) };
    if fd < 0 {
        bail!("bpf({command}): {}", std::io::Error::last_os_error());
    }
    // SAFETY: the kernel has just handed it out, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd)?) })
}

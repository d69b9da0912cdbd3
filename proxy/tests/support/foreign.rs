//! What somebody else does with programs at the node's cgroup and links, by raw bpf(2): programs of a few
//! instructions, and taking a link away.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_LINK_CREATE: libc::c_long = 28;
const BPF_LINK_DETACH: libc::c_long = 34;
const SCHED_CLS: u64 = 3;
const CGROUP_SOCK_ADDR: u64 = 18;
const TCX_INGRESS: u64 = 46;
const CONNECT4: u64 = 10;

/// Forbids connects to one port of IPv4, for as long as what is returned lives.
pub(crate) fn forbid(cgroup: &Path, port: u16) -> OwnedFd {
    let program = [
        instruction(0x61, 0x12, 24, 0),                      // r2 = ctx->user_port
        instruction(0xb7, 0x00, 0, 1),                       // r0 = 1
        instruction(0x55, 0x02, 1, i32::from(port.to_be())), // if r2 != port, leave
        instruction(0xb7, 0x00, 0, 0),                       // r0 = 0
        instruction(0x95, 0x00, 0, 0),                       // exit
    ];
    let program = load(CGROUP_SOCK_ADDR, CONNECT4, &program);
    let cgroup = std::fs::File::open(cgroup).expect("the cgroup");
    let create = [file(&program) | file(&cgroup) << 32, CONNECT4];
    bpf(BPF_LINK_CREATE, &create)
}

/// A program for packets that has the same verdict for each.
pub(crate) fn verdict(verdict: i32) -> OwnedFd {
    load(SCHED_CLS, 0, &[instruction(0xb7, 0x00, 0, verdict), instruction(0x95, 0x00, 0, 0)])
}

/// Puts a program behind those at the ingress of an interface, for as long as what is returned lives.
pub(crate) fn arrive(program: &OwnedFd, interface: u32) -> OwnedFd {
    bpf(BPF_LINK_CREATE, &[file(program) | u64::from(interface) << 32, TCX_INGRESS, 0, 0])
}

/// Pins a program.
pub(crate) fn pin(program: &OwnedFd, path: &Path) {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).expect("a path");
    let attribute = [path.as_ptr() as u64, file(program)];
    // SAFETY: the kernel reads no more than the size says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_OBJ_PIN, attribute.as_ptr(), 16) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn instruction(code: u8, registers: u8, offset: i16, value: i32) -> u64 {
    u64::from(code)
        | u64::from(registers) << 8
        | u64::from(offset.cast_unsigned()) << 16
        | u64::from(value.cast_unsigned()) << 32
}

fn load(kind: u64, attach_type: u64, program: &[u64]) -> OwnedFd {
    let mut load = [0_u64; 16];
    load[0] = kind | (program.len() as u64) << 32;
    load[1] = program.as_ptr() as u64;
    load[2] = c"GPL".as_ptr() as u64;
    // expected_attach_type, at byte 68.
    load[8] = attach_type << 32;
    bpf(BPF_PROG_LOAD, &load)
}

/// Detaches the pinned link, as `bpftool link detach` does.
pub(crate) fn detach(pin: &Path) {
    let path = std::ffi::CString::new(pin.as_os_str().as_bytes()).expect("a path");
    let link = bpf(BPF_OBJ_GET, &[path.as_ptr() as u64, 0]);
    let attribute = [file(&link)];
    // SAFETY: the kernel reads no more than the size says.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_LINK_DETACH, attribute.as_ptr(), 4) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

fn file(file: &impl AsRawFd) -> u64 {
    u64::from(file.as_raw_fd().unsigned_abs())
}

fn bpf(command: libc::c_long, attribute: &[u64]) -> OwnedFd {
    let size = size_of_val(attribute);
    // SAFETY: the kernel reads no more than the size says.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_ptr(), size) };
    assert!(fd >= 0, "bpf({command}): {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just handed it out.
    unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).expect("a descriptor")) }
}

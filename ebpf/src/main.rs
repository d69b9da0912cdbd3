//! The programs: socket hooks of a cgroup. Each reads its context, asks the library, and matches the
//! verdict. No decision lives here. Loaded and attached by the `proxy` crate.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod hooks;

/// The programs run in the kernel; a build for the host has nothing to run.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier refuses a program in which this can be reached.
    loop {}
}

/// bpf_set_retval and the other helpers used are not limited to GPL programs; the licence is that of the
/// repository with the usual kernel addition.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

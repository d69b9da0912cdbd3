//! The pause process: the first process of a pod, which holds its namespaces and does nothing else.
//!
//! No libc and no allocator: eight raw system calls. Signals are blocked and waited for, so there is no handler
//! and no race between a signal and the wait; a blocked signal reaches PID 1 too, which would otherwise never
//! see one it has no handler for. Built by the build script of `sandbox`, which embeds the file.

#![no_std]
#![no_main]

use core::panic::PanicInfo;

const VERSION_LINE: &str = concat!("pause (fairway) ", env!("CARGO_PKG_VERSION"), "\n");
const NOT_FIRST: &str = "Warning: pause should be the first process\n";
const STDOUT: usize = 1;
const STDERR: usize = 2;

const SIGINT: usize = 2;
const SIGTERM: usize = 15;
const SIGCHLD: usize = 17;
/// The set as the kernel wants it: bit `n - 1` is signal `n`.
const AWAITED: u64 = (1 << (SIGINT - 1)) | (1 << (SIGTERM - 1)) | (1 << (SIGCHLD - 1));
const SIG_BLOCK: usize = 0;
const WNOHANG: usize = 1;
const PR_SET_NAME: usize = 15;

#[cfg(target_arch = "x86_64")]
mod call {
    pub const WRITE: usize = 1;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const GETPID: usize = 39;
    pub const WAIT4: usize = 61;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const PRCTL: usize = 157;
    pub const EXIT_GROUP: usize = 231;

    core::arch::global_asm!(
        ".globl _start",
        "_start:",
        "xor ebp, ebp",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {main}",
        main = sym super::run,
    );

    /// One system call; unused arguments are 0.
    ///
    /// # Safety
    ///
    /// Pointers among the arguments must be valid for what the call does with them.
    pub unsafe fn raw(number: usize, arguments: [usize; 4]) -> isize {
        let result;
        // SAFETY: the kernel clobbers rcx and r11 only; the arguments are the caller's business.
        unsafe {
            core::arch::asm!(
                "syscall",
                inlateout("rax") number => result,
                in("rdi") arguments[0],
                in("rsi") arguments[1],
                in("rdx") arguments[2],
                in("r10") arguments[3],
                out("rcx") _,
                out("r11") _,
                options(nostack),
            );
        }
        result
    }
}

#[cfg(target_arch = "aarch64")]
mod call {
    pub const WRITE: usize = 64;
    pub const EXIT_GROUP: usize = 94;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const PRCTL: usize = 167;
    pub const GETPID: usize = 172;
    pub const WAIT4: usize = 260;

    core::arch::global_asm!(
        ".globl _start",
        "_start:",
        "mov x29, #0",
        "mov x0, sp",
        "bl {main}",
        main = sym super::run,
    );

    /// One system call; unused arguments are 0.
    ///
    /// # Safety
    ///
    /// Pointers among the arguments must be valid for what the call does with them.
    pub unsafe fn raw(number: usize, arguments: [usize; 4]) -> isize {
        let result;
        // SAFETY: the kernel changes x0 only; the arguments are the caller's business.
        unsafe {
            core::arch::asm!(
                "svc 0",
                in("x8") number,
                inlateout("x0") arguments[0] => result,
                in("x1") arguments[1],
                in("x2") arguments[2],
                in("x3") arguments[3],
                options(nostack),
            );
        }
        result
    }
}

/// Called by `_start` with the initial stack: argc, then the pointers of argv.
extern "C" fn run(stack: *const usize) -> ! {
    if asks_for_version(stack) {
        say(STDOUT, VERSION_LINE);
        exit(0);
    }
    block_signals();
    name_itself();
    if process_id() != 1 {
        say(STDERR, NOT_FIRST);
    }
    loop {
        match next_signal() {
            SIGINT => goodbye("Shutting down, got signal: Interrupt\n"),
            SIGTERM => goodbye("Shutting down, got signal: Terminated\n"),
            // SIGCHLD, or a wait that was interrupted: several deaths may be one signal.
            _ => reap(),
        }
    }
}

fn asks_for_version(stack: *const usize) -> bool {
    // SAFETY: the kernel puts argc at the start of the stack.
    let count = unsafe { *stack };
    // SAFETY: argv has argc entries behind it.
    (1..count).any(|index| is_version(unsafe { *stack.add(1 + index) } as *const u8))
}

fn is_version(argument: *const u8) -> bool {
    b"-v\0".iter().enumerate().all(|(index, wanted)| {
        // SAFETY: `all` stops at the first byte that differs, so never past the argument's NUL.
        let byte = unsafe { *argument.add(index) };
        byte == *wanted
    })
}

fn block_signals() {
    let set = &raw const AWAITED_SET;
    // SAFETY: the set is 8 bytes that live for ever; the old set is not asked for.
    unsafe { call::raw(call::RT_SIGPROCMASK, [SIG_BLOCK, set as usize, 0, 8]) };
}

static AWAITED_SET: u64 = AWAITED;

/// Blocks until a signal of the set arrives; its number, or something negative.
fn next_signal() -> usize {
    let set = &raw const AWAITED_SET;
    // SAFETY: the set is 8 bytes that live for ever; no details and no timeout are asked for.
    let signal = unsafe { call::raw(call::RT_SIGTIMEDWAIT, [set as usize, 0, 0, 8]) };
    signal as usize
}

fn reap() {
    // SAFETY: no status is asked for; ends when there is no child or none that is dead.
    while unsafe { call::raw(call::WAIT4, [usize::MAX, 0, WNOHANG, 0]) } > 0 {}
}

fn name_itself() {
    let name = c"pause".as_ptr();
    // SAFETY: the name ends in NUL.
    unsafe { call::raw(call::PRCTL, [PR_SET_NAME, name as usize, 0, 0]) };
}

fn process_id() -> isize {
    // SAFETY: takes nothing.
    unsafe { call::raw(call::GETPID, [0; 4]) }
}

fn say(file: usize, line: &str) {
    // SAFETY: the pointer and the length are those of the line.
    unsafe { call::raw(call::WRITE, [file, line.as_ptr() as usize, line.len(), 0]) };
}

fn goodbye(line: &str) -> ! {
    say(STDOUT, line);
    exit(0)
}

fn exit(code: usize) -> ! {
    loop {
        // SAFETY: takes the code only and does not return.
        unsafe { call::raw(call::EXIT_GROUP, [code, 0, 0, 0]) };
    }
}

#[panic_handler]
fn panicked(_: &PanicInfo<'_>) -> ! {
    exit(2)
}

//! How deep the stack of a loaded program gets, from its instructions as the kernel has them: each function's frame,
//! and the deepest chain of calls. What bpftool does not tell, and what the verifier tells only a failed load.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd};

use aya::programs::ProgramInfo;

const BPF_OBJ_GET_INFO_BY_FD: libc::c_long = 15;
/// Bytes of `struct bpf_prog_info` up to and with the pointer to the translated instructions.
const INFO: usize = 40;
/// The register of the frame.
const FRAME: u8 = 10;

/// The function that begins at an instruction: its frame, and the functions that it calls.
#[derive(Default)]
struct Function {
    frame: u32,
    calls: Vec<usize>,
}

/// The depth in bytes, as the verifier counts it: frames are multiples of 32.
pub(crate) fn depth(program: &ProgramInfo) -> u32 {
    let functions = functions(&instructions(program));
    deepest(&functions, 0)
}

fn deepest(functions: &BTreeMap<usize, Function>, at: usize) -> u32 {
    let function = &functions[&at];
    let below = function.calls.iter().map(|&call| deepest(functions, call)).max().unwrap_or(0);
    function.frame.max(1).next_multiple_of(32) + below
}

fn functions(code: &[u64]) -> BTreeMap<usize, Function> {
    let calls: Vec<(usize, usize)> =
        code.iter().enumerate().filter_map(|(at, word)| Some((at, called(*word, at)?))).collect();
    let mut functions: BTreeMap<usize, Function> =
        calls.iter().map(|&(_, start)| (start, Function::default())).collect();
    functions.insert(0, Function::default());
    let starts: Vec<usize> = functions.keys().copied().collect();
    let home = |at: usize| starts[starts.partition_point(|&start| start <= at) - 1];
    for (at, call) in calls {
        functions.get_mut(&home(at)).expect("every instruction is in a function").calls.push(call);
    }
    for (at, pair) in code.windows(2).enumerate() {
        let reached = reach(pair[0]).max(addressed(pair[0], pair[1]));
        let function = functions.get_mut(&home(at)).expect("every instruction is in a function");
        function.frame = function.frame.max(reached);
    }
    functions
}

/// BPF_CALL of a function of the program: where that begins. Once compiled for the machine the distance is in the
/// offset.
fn called(word: u64, at: usize) -> Option<usize> {
    let [code, registers, low, high, ..] = word.to_le_bytes();
    let distance = i16::from_le_bytes([low, high]);
    (code == 0x85 && registers >> 4 == 1).then(|| at.wrapping_add_signed(isize::from(distance) + 1))
}

/// How far below the frame a load or a store reaches.
fn reach(word: u64) -> u32 {
    let [code, registers, low, high, ..] = word.to_le_bytes();
    let (class, target, source) = (code & 7, registers & 0xf, registers >> 4);
    let base = if class == 1 { source } else { target };
    let offset = i32::from(i16::from_le_bytes([low, high]));
    if (1..=3).contains(&class) && base == FRAME && offset < 0 { offset.unsigned_abs() } else { 0 }
}

/// How far below the frame an address is that two instructions make: `r = r10; r += offset`.
fn addressed(first: u64, second: u64) -> u32 {
    let [code, registers, ..] = first.to_le_bytes();
    let [add, to, _, _, a, b, c, d] = second.to_le_bytes();
    let offset = i32::from_le_bytes([a, b, c, d]);
    let is_pair = code == 0xbf && registers >> 4 == FRAME && add == 0x07 && to & 0xf == registers & 0xf;
    if is_pair && offset < 0 { offset.unsigned_abs() } else { 0 }
}

fn instructions(program: &ProgramInfo) -> Vec<u64> {
    let fd = program.fd().expect("a descriptor");
    let size = program.size_translated().expect("root sees the instructions") as usize;
    let mut code = vec![0_u64; size / 8];
    let mut info = [0_u8; INFO];
    info[20..24].copy_from_slice(&u32::try_from(size).expect("small").to_ne_bytes());
    info[32..40].copy_from_slice(&(code.as_mut_ptr() as u64).to_ne_bytes());
    let attribute =
        [u64::from(fd.as_fd().as_raw_fd().unsigned_abs()) | (INFO as u64) << 32, info.as_mut_ptr() as u64];
    // SAFETY: the information and the instructions have the room that they are said to have.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_OBJ_GET_INFO_BY_FD, attribute.as_ptr(), size_of_val(&attribute))
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    code
}

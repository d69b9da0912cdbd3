//! The CNI plug-in in numbers and under fire: many at once, many in a row, killed at every step. The tests run
//! one at a time, for each counts what is left.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the helpers of tests are tests too")]

mod cni_node;

use std::collections::BTreeSet;
use std::io::{self, Seek, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cni_node::{Answer, Call, Node, PROGRAM, Pod, config, root};
use sandbox::{End, LINK_GROUP, Veth, link_name, mac_address};

/// One test at a time: who waits for every process that it traces must not be told of another test's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn sixty_four_at_once_have_sixty_four_addresses() {
    if !root() {
        return;
    }
    let _alone = alone();
    let node = Node::new();
    let pods: Vec<_> = (0..64).map(|_| Pod::new()).collect();
    let input = config("1.0.0", &["10.1.0.0/25"]);
    let all = |command: &str| -> Vec<Answer> {
        let call = |(number, pod): (usize, &Pod)| {
            node.start(&Call::of(command, &format!("c{number}"), &pod.path(), &input))
        };
        let running: Vec<_> = pods.iter().enumerate().map(call).collect();
        running.into_iter().map(|child| Answer::of(child.wait_with_output().unwrap())).collect()
    };
    let given: BTreeSet<_> = all("ADD").iter().map(Answer::address).collect();
    assert_eq!(given.len(), 64, "{given:?}");
    assert_eq!(node.attachments().len(), 64);
    all("DEL").iter().for_each(Answer::succeeds);
    assert!(node.is_empty());
}

#[test]
fn two_hundred_pods_pass_through_six_addresses() {
    if !root() {
        return;
    }
    let _alone = alone();
    let node = Node::new();
    let mut last = String::new();
    for round in 0..200 {
        let pod = Pod::new();
        let id = format!("c{round}");
        let address = node.add(&id, &pod, &["10.1.0.8/29"]).address();
        assert_ne!(address, last, "an address is used again as late as possible");
        node.delete(&id).succeeds();
        last = address;
    }
    assert!(node.is_empty());
}

#[test]
fn an_unfinished_add_is_removed_by_the_next_once_it_is_old() {
    if !root() {
        return;
    }
    let _alone = alone();
    let (node, pod, other) = (Node::new(), Pod::new(), Pod::new());
    let name = link_name("c0", "eth0");
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let now: u32 = uptime.split('.').next().unwrap().parse().unwrap();
    let leave = |born| {
        let veth = Veth {
            name: &name,
            mac: mac_address("c0", "eth0", End::Host),
            peer_namespace: pod.namespace.as_fd(),
            peer_name: "eth0",
            peer_mac: mac_address("c0", "eth0", End::Pod),
            mtu: 1400,
            group: LINK_GROUP,
            born,
        };
        node.netlink().add_veth(&veth).unwrap();
    };
    leave(now);
    assert_eq!(node.add("c1", &other, &["10.1.0.0/24"]).code, Some(0));
    node.add("c0", &pod, &["10.1.0.0/24"]).fails(101, "eth0 of container c0 is attached already");
    node.delete("c0").succeeds();
    leave(now - 62);
    let answer = node.add("c0", &pod, &["10.1.0.0/24"]);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(answer.log.contains("unfinished ADD"), "{}", answer.log);
    assert_eq!(node.attachments().len(), 2);
}

/// Runs the plug-in and kills it before its `nth` system call that can change something. None once there is no such
/// call: it has ended by itself. The process is seen by the calling thread alone.
#[expect(clippy::zombie_processes, reason = "it is waited for, with its threads, as ptrace wants it")]
fn kill_before(nth: usize, call: &Call, node: &Node) -> Option<()> {
    let mut input = tempfile::tempfile().unwrap();
    input.write_all(call.input.as_bytes()).unwrap();
    input.rewind().unwrap();
    let mut command = Command::new(PROGRAM);
    command.env_clear().envs(call.variables.iter().cloned());
    command.stdin(input).stdout(Stdio::null()).stderr(Stdio::null());
    let namespace = node.namespace.as_fd().as_raw_fd();
    let enter = move || {
        // SAFETY: the descriptor is open in this copy of the process too.
        let entered = unsafe { libc::setns(namespace, libc::CLONE_NEWNET) };
        if entered == 0 { ptrace(libc::PTRACE_TRACEME, 0, 0, 0) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: between fork and exec it makes two system calls and nothing else.
    unsafe { command.pre_exec(enter) };
    let mut child = command.spawn().unwrap();
    let main = i32::try_from(child.id()).unwrap();
    assert_eq!(wait_for(main), (main, libc::SIGTRAP << 8 | 0x7f), "it stops as it begins");
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
    ptrace(libc::PTRACE_SETOPTIONS, main, 0, usize::try_from(options).unwrap()).unwrap();
    ptrace(libc::PTRACE_SYSCALL, main, 0, 0).unwrap();
    let mut count = 0;
    loop {
        let (task, status) = wait_for(-1);
        if !libc::WIFSTOPPED(status) {
            if task == main {
                return None;
            }
            continue;
        }
        if libc::WSTOPSIG(status) == libc::SIGTRAP | 0x80 && changes_something(task) {
            count += 1;
            if count > nth {
                child.kill().unwrap();
                // The first thread ends when the end of every other has been waited for.
                loop {
                    let (task, status) = wait_for(-1);
                    if task == main && !libc::WIFSTOPPED(status) {
                        return Some(());
                    }
                }
            }
        }
        // A thread that has been killed meanwhile is missing: its end is told next.
        let _ = ptrace(libc::PTRACE_SYSCALL, task, 0, 0);
    }
}

/// What happened to a task that this thread traces: its id and the status.
fn wait_for(task: i32) -> (i32, i32) {
    let mut status = 0;
    // SAFETY: the status outlives the call.
    let task = unsafe { libc::waitpid(task, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
    assert!(task > 0, "{}", io::Error::last_os_error());
    (task, status)
}

fn ptrace(request: libc::c_uint, task: i32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: of the requests in use, one writes to this process, no more than `address` bytes to `data`.
    let result = unsafe { libc::ptrace(request, task, address, data) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Whether the task stands before a message to the kernel, a call of bpf(2) or a write.
fn changes_something(task: i32) -> bool {
    // The begin of `struct ptrace_syscall_info` at an entry: op, arch, two addresses, then the call's number.
    let mut info = [0u64; 16];
    let address = info.as_mut_ptr().addr();
    if ptrace(libc::PTRACE_GET_SYSCALL_INFO, task, size_of_val(&info), address).is_err() {
        return false;
    }
    let calls = [libc::SYS_sendto, libc::SYS_sendmsg, libc::SYS_bpf, libc::SYS_write];
    let is_entry = info[0] & 0xff == 1;
    is_entry && calls.iter().any(|call| u64::try_from(*call) == Ok(info[3]))
}

/// Kills `command` at each of its steps; then DEL leaves nothing, and the pod can be attached.
fn killed_at_each_step(command: &str, prepare: impl Fn(&Node, &Pod)) -> usize {
    let node = Node::new();
    let pod = Pod::new();
    let ranges = ["10.1.0.4/30", "fd00:1::/126"];
    let call = Call::of(command, "c0", &pod.path(), &config("1.0.0", &ranges));
    for step in 0..200 {
        prepare(&node, &pod);
        let killed = kill_before(step, &call, &node);
        node.delete("c0").succeeds();
        assert!(node.is_empty(), "killed before step {step}");
        // Both addresses of the range are free.
        for id in ["c0", "c1"] {
            let other = Pod::new();
            let pod = if id == "c0" { &pod } else { &other };
            let again = node.add(id, pod, &ranges);
            assert_eq!(again.code, Some(0), "killed before step {step}: {again:?}");
            if id == "c1" {
                node.delete("c0").succeeds();
            }
        }
        node.delete("c1").succeeds();
        if killed.is_none() {
            return step;
        }
    }
    panic!("it never ended by itself");
}

#[test]
fn killed_at_any_step_an_add_leaves_nothing_for_del_to_miss() {
    if !root() {
        return;
    }
    let _alone = alone();
    let steps = killed_at_each_step("ADD", |_, _| {});
    // Each is a round trip to the kernel for every pod that is made: 19, and two where IPv6 is off by default.
    assert!((16..=22).contains(&steps), "{steps} steps were seen");
}

#[test]
fn killed_at_any_step_a_del_can_be_repeated() {
    if !root() {
        return;
    }
    let _alone = alone();
    let steps = killed_at_each_step("DEL", |node, pod| {
        assert_eq!(node.add("c0", pod, &["10.1.0.4/30", "fd00:1::/126"]).code, Some(0));
    });
    assert!(steps > 3, "only {steps} steps were seen");
}

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

use cni_node::pins::{Map, Pins};
use cni_node::{Answer, Call, Node, PROGRAM, Pod, config, root};
use sandbox::{LINK_GROUP, MapEntries, Veth, link_name, mac_address, map_entries};
use serde_json::json;

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
            mac: mac_address("c0", "eth0", sandbox::End::Host),
            peer_namespace: pod.namespace.as_fd(),
            peer_name: "eth0",
            peer_mac: mac_address("c0", "eth0", sandbox::End::Pod),
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

/// What became of the plug-in.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// It was killed.
    Killed,
    /// It ended by itself after so many system calls that can change something.
    After(usize),
}

/// Runs the plug-in and kills it before its `nth` system call that can change something, should it come so far. The
/// process is seen by the calling thread alone.
#[expect(clippy::zombie_processes, reason = "it is waited for, with its threads, as ptrace wants it")]
fn kill_before(nth: usize, call: &Call, node: &Node) -> End {
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
                return End::After(count);
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
                        return End::Killed;
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

/// The pods of the killed plug-in: one with an address of each family and two ports of the node.
struct Faults {
    node: Node,
    pod: Pod,
    pins: Pins,
    _maps: [Map; 2],
}

impl Faults {
    fn new(name: &str) -> Option<Self> {
        let pins = Pins::new(name)?;
        let maps = [Map::make(&pins, "pods", 8, 32), Map::make(&pins, "hostports", 20, 8)];
        Some(Self { node: Node::new(), pod: Pod::new(), pins, _maps: maps })
    }

    fn call(&self, command: &str, id: &str, pod: &Pod) -> Call {
        let mut input = config("1.0.0", &["10.1.0.4/30", "fd00:1::/126"]);
        input["bpfDir"] = json!(self.pins.folder);
        let ports = [(8080, "TCP"), (5353, "UDP")];
        let ports = ports
            .map(|(port, protocol)| json!({"hostPort": port, "containerPort": 80, "protocol": protocol}));
        if id == "c0" {
            input["runtimeConfig"] = json!({"portMappings": ports});
        }
        Call::of(command, id, &pod.path(), &input)
    }

    #[track_caller]
    fn add(&self, id: &str, pod: &Pod) {
        let added = self.node.call(&self.call("ADD", id, pod));
        assert_eq!(added.code, Some(0), "{added:?}");
    }

    fn delete(&self, id: &str, pod: &Pod) {
        self.node.call(&self.call("DEL", id, pod)).succeeds();
    }

    /// Neither a link nor a route nor an entry of a map.
    fn is_empty(&self) -> bool {
        self.node.is_empty() && map_entries(&self.pins.folder).unwrap() == MapEntries::default()
    }

    /// Kills `command` before each of its steps; then DEL leaves nothing, and the pod can be attached. How many steps
    /// there were.
    fn kill_at_each_step(&self, command: &str, prepare: impl Fn(&Self)) -> usize {
        let run = |nth: usize| {
            prepare(self);
            let end = kill_before(nth, &self.call(command, "c0", &self.pod), &self.node);
            self.delete("c0", &self.pod);
            assert!(self.is_empty(), "{end:?} before step {nth}");
            // Both addresses of the range are free, and the ports.
            let other = Pod::new();
            self.add("c0", &self.pod);
            self.add("c1", &other);
            self.delete("c0", &self.pod);
            self.delete("c1", &other);
            end
        };
        // The first pod of a node has more to do: it lets the node forward.
        run(usize::MAX);
        let End::After(steps) = run(usize::MAX) else { panic!("nobody killed it") };
        for step in 0..steps {
            assert_eq!(run(step), End::Killed, "before step {step} of {steps}");
        }
        assert_eq!(run(steps), End::After(steps), "the steps are always the same");
        steps
    }
}

#[test]
fn killed_at_any_step_an_add_leaves_nothing_for_del_to_miss() {
    if !root() {
        return;
    }
    let _alone = alone();
    let Some(faults) = Faults::new("kill-add") else { return };
    let steps = faults.kill_at_each_step("ADD", |_| {});
    // At least: link, alias, two routes, two neighbours, two addresses, two links up, four entries of maps, the answer.
    assert!(steps >= 15, "only {steps} steps were seen");
}

#[test]
fn killed_at_any_step_a_del_can_be_repeated() {
    if !root() {
        return;
    }
    let _alone = alone();
    let Some(faults) = Faults::new("kill-del") else { return };
    let steps = faults.kill_at_each_step("DEL", |faults| faults.add("c0", &faults.pod));
    // At least: two routes, link, six entries of maps.
    assert!(steps >= 9, "only {steps} steps were seen");
}

//! The CNI plug-in beside the daemon's pins: its map of pods, its heartbeat, its programs. Each test has a folder of
//! pins and a cgroup of its own, gone when dropped.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the helpers of tests are tests too")]

mod cni_node;

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use cni_node::{Answer, Call, Node, Pod, config, root};
use serde_json::{Value, json};

const RANGE: [&str; 1] = ["10.1.0.0/24"];

/// What the daemon pins.
struct Pins {
    folder: PathBuf,
    cgroup: PathBuf,
}

fn bpf(command: i64, attribute: &[u64]) -> io::Result<i32> {
    // SAFETY: the attribute and what it points to outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_ptr(), size_of_val(attribute)) };
    i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}

fn make(command: i64, attribute: &[u64]) -> OwnedFd {
    let file = bpf(command, attribute).unwrap();
    // SAFETY: the kernel has just made it.
    unsafe { OwnedFd::from_raw_fd(file) }
}

fn word(file: &impl AsRawFd) -> u64 {
    u64::try_from(file.as_raw_fd()).unwrap()
}

impl Pins {
    /// None where a file system is missing.
    fn new(name: &str) -> Option<Self> {
        let name = format!("fairway-cni-{name}-{}", std::process::id());
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let cgroups = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let cgroups =
            cgroups.filter(|words| words[2] == "cgroup2").map(|words| PathBuf::from(words[1])).next();
        let pins = Self { folder: PathBuf::from("/sys/fs/bpf").join(&name), cgroup: cgroups?.join(&name) };
        let made = fs::create_dir_all(pins.folder.join("v1")).and_then(|()| fs::create_dir(&pins.cgroup));
        if made.is_err() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "needs bpffs and cgroup v2");
            println!("SKIP: needs bpffs at /sys/fs/bpf and cgroup v2");
            return None;
        }
        Some(pins)
    }

    /// BPF_OBJ_PIN: path; file.
    fn pin(&self, name: &str, file: &OwnedFd) {
        let path = CString::new(self.folder.join("v1").join(name).to_str().unwrap()).unwrap();
        bpf(6, &[path.as_ptr().addr() as u64, word(file)]).unwrap();
    }

    /// The array of one u64 that the daemon writes the time into.
    fn make_heartbeat(&self) -> OwnedFd {
        // BPF_MAP_CREATE: array, key 4; value 8, 1 entry.
        let map = make(0, &[2 | 4 << 32, 8 | 1 << 32]);
        self.pin("node", &map);
        map
    }

    /// A program that lets everything pass, attached to the cgroup.
    fn attach_program(&self) {
        // r0 = 1; exit.
        let instructions = [0x0000_0001_0000_00b7_u64, 0x95];
        let license = c"GPL";
        // BPF_PROG_LOAD: of cgroup_skb, 2 instructions; where; license; log level, size; log; version, flags.
        let program = make(
            5,
            &[8 | 2 << 32, instructions.as_ptr().addr() as u64, license.as_ptr().addr() as u64, 0, 0, 0],
        );
        let cgroup = File::open(&self.cgroup).unwrap();
        // BPF_LINK_CREATE: program, cgroup; ingress, no flags.
        let link = make(28, &[word(&program) | word(&cgroup) << 32, 0]);
        self.pin("link_ingress", &link);
    }

    fn config(&self) -> Value {
        let mut config = config("1.1.0", &RANGE);
        config["bpfDir"] = json!(self.folder);
        config
    }

    fn status(&self, node: &Node) -> Answer {
        node.call(&Call::new("STATUS", &self.config()).with("CNI_PATH", "/opt/cni/bin"))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        for name in ["node", "pods", "link_ingress"] {
            let _ = fs::remove_file(self.folder.join("v1").join(name));
        }
        let _ = fs::remove_dir(self.folder.join("v1"));
        let _ = fs::remove_dir(&self.folder);
        let _ = fs::remove_dir(&self.cgroup);
    }
}

/// As the daemon does, so long ago.
fn beat(map: &OwnedFd, ago: Duration) {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the timespec outlives the call.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    let now = Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap());
    let (key, value) = (0u32, u64::try_from(now.saturating_sub(ago).as_nanos()).unwrap());
    // BPF_MAP_UPDATE_ELEM: map; key, value, flags.
    bpf(2, &[word(map), (&raw const key).addr() as u64, (&raw const value).addr() as u64, 0]).unwrap();
}

#[test]
fn status_tells_whether_the_daemon_and_its_programs_are_alive() {
    if !root() {
        return;
    }
    let Some(pins) = Pins::new("status") else { return };
    let node = Node::new();
    pins.status(&node).fails(51, "the kernel programs are gone");
    let heartbeat = pins.make_heartbeat();
    beat(&heartbeat, Duration::ZERO);
    pins.status(&node).fails(51, "the kernel programs are gone");
    pins.attach_program();
    pins.status(&node).succeeds();
    let stopped = "the daemon does not answer: its heartbeat has stopped";
    beat(&heartbeat, Duration::from_secs(11));
    pins.status(&node).fails(50, stopped);
    beat(&heartbeat, Duration::from_secs(365 * 86400));
    pins.status(&node).fails(50, stopped);
    beat(&heartbeat, Duration::ZERO);
    pins.status(&node).succeeds();

    // The pin of the link stays, its cgroup goes: a little later, on a thread of the kernel.
    fs::remove_dir(&pins.cgroup).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        beat(&heartbeat, Duration::ZERO);
        let answer = pins.status(&node);
        if answer.code != Some(0) {
            answer.fails(51, "the kernel programs are gone");
            break;
        }
        assert!(Instant::now() < deadline, "a detached program is not noticed");
    }
}

#[test]
fn a_pod_is_in_the_map_from_add_to_del() {
    if !root() {
        return;
    }
    let Some(pins) = Pins::new("pods") else { return };
    let (node, pod) = (Node::new(), Pod::new());
    // BPF_MAP_CREATE: hash, key 8; value 32, 16 entries.
    let map = make(0, &[1 | 8 << 32, 32 | 16 << 32]);
    pins.pin("pods", &map);
    let cookie = pod.namespace.cookie().unwrap();
    let mut value = [0u8; 32];
    // BPF_MAP_LOOKUP_ELEM, BPF_MAP_DELETE_ELEM: map; key, value, flags.
    let key = (&raw const cookie).addr() as u64;
    let mut look = || bpf(1, &[word(&map), key, value.as_mut_ptr().addr() as u64, 0]).is_ok();
    let added = node.call(&Call::of("ADD", "c0", &pod.path(), &pins.config()));
    assert_eq!(added.code, Some(0), "{added:?}");
    assert!(look());
    let mut input = pins.config();
    input["prevResult"] = added.output;
    let check = || node.call(&Call::of("CHECK", "c0", &pod.path(), &input));
    check().succeeds();
    bpf(3, &[word(&map), key]).unwrap();
    check().fails(102, "missing of eth0 of container c0: entry in the map of pods");
    node.call(&Call::of("DEL", "c0", &pod.path(), &pins.config())).succeeds();
    let added = node.call(&Call::of("ADD", "c0", &pod.path(), &pins.config()));
    assert_eq!(added.code, Some(0), "{added:?}");
    assert!(look());
    node.call(&Call::of("DEL", "c0", "", &pins.config())).succeeds();
    assert!(!look(), "DEL takes it out, without the namespace");
}

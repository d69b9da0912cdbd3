//! The daemon's pins, made by a test: a folder in the bpf file system and a cgroup, gone when dropped. Raw bpf(2), so
//! that the tests of the plug-in need no daemon.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Answer, Call, Node, config};

const RANGE: [&str; 1] = ["10.1.0.0/24"];

/// What the daemon pins.
pub(crate) struct Pins {
    pub(crate) folder: PathBuf,
    pub(crate) cgroup: PathBuf,
}

pub(crate) fn bpf(command: i64, attribute: &[u64]) -> io::Result<i32> {
    // SAFETY: the attribute and what it points to outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attribute.as_ptr(), size_of_val(attribute)) };
    i32::try_from(result).ok().filter(|result| *result >= 0).ok_or_else(io::Error::last_os_error)
}

fn make(command: i64, attribute: &[u64]) -> OwnedFd {
    let file = bpf(command, attribute).unwrap();
    // SAFETY: the kernel has just made it.
    unsafe { OwnedFd::from_raw_fd(file) }
}

pub(crate) fn word(file: &impl AsRawFd) -> u64 {
    u64::try_from(file.as_raw_fd()).unwrap()
}

impl Pins {
    /// None where a file system is missing.
    pub(crate) fn new(name: &str) -> Option<Self> {
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
    pub(crate) fn make_heartbeat(&self) -> OwnedFd {
        // BPF_MAP_CREATE: array, key 4; value 8, 1 entry.
        let map = make(0, &[2 | 4 << 32, 8 | 1 << 32]);
        self.pin("node", &map);
        map
    }

    /// A program that lets everything pass, attached to the cgroup.
    pub(crate) fn attach_program(&self) {
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

    pub(crate) fn config(&self) -> Value {
        let mut config = config("1.1.0", &RANGE);
        config["bpfDir"] = json!(self.folder);
        config
    }

    pub(crate) fn status(&self, node: &Node) -> Answer {
        node.call(&Call::new("STATUS", &self.config()).with("CNI_PATH", "/opt/cni/bin"))
    }
}

impl Drop for Pins {
    fn drop(&mut self) {
        for name in ["node", "pods", "hostports", "frontends", "link_ingress"] {
            let _ = fs::remove_file(self.folder.join("v1").join(name));
        }
        let _ = fs::remove_dir(self.folder.join("v1"));
        let _ = fs::remove_dir(&self.folder);
        let _ = fs::remove_dir(&self.cgroup);
    }
}

/// A map of the daemon.
pub(crate) struct Map {
    file: OwnedFd,
    key: usize,
    value: usize,
}

impl Map {
    /// BPF_MAP_CREATE: hash, key; value, 16 entries.
    pub(crate) fn make(pins: &Pins, name: &str, key: usize, value: usize) -> Self {
        let file = make(0, &[1 | (key as u64) << 32, value as u64 | 16 << 32]);
        pins.pin(name, &file);
        Self { file, key, value }
    }

    /// BPF_MAP_LOOKUP_ELEM: map; key, value, flags.
    pub(crate) fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        assert_eq!(key.len(), self.key);
        let mut value = vec![0; self.value];
        let words = [word(&self.file), key.as_ptr().addr() as u64, value.as_mut_ptr().addr() as u64, 0];
        bpf(1, &words).is_ok().then_some(value)
    }

    /// BPF_MAP_UPDATE_ELEM.
    pub(crate) fn put(&self, key: &[u8], value: &[u8]) {
        let words = [word(&self.file), key.as_ptr().addr() as u64, value.as_ptr().addr() as u64, 0];
        bpf(2, &words).unwrap();
    }

    /// BPF_MAP_DELETE_ELEM.
    pub(crate) fn remove(&self, key: &[u8]) {
        bpf(3, &[word(&self.file), key.as_ptr().addr() as u64]).unwrap();
    }
}

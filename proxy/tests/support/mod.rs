//! A node for one test: a process of its own in a network namespace and a cgroup of its own, so that tests run
//! in parallel. The test binary starts itself again for it; what a test leaves behind goes with the node.
#![allow(dead_code, unused_imports, reason = "each test binary uses a part")]

pub(crate) mod foreign;
mod net;
mod objects;
pub(crate) mod stack;

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use model::testing::listed;
use model::{Cluster, Event, Object, Snapshot};
use proxy::{Config, Proxy, Sizes};

pub(crate) use net::*;
pub(crate) use objects::*;

/// Set in the process that is the node: the folder that names its cgroup and pins.
const NODE: &str = "FAIRWAY_TEST_NODE";

/// Small maps, so that "full" is near.
pub(crate) const SMALL: Sizes = Sizes { frontends: 256, services: 64, lines: 64, backends: 128, lru: 1024 };

/// The node's own addresses.
pub(crate) const NODE4: &str = "192.0.2.1";
pub(crate) const NODE6: &str = "2001:db8::1";

/// The node that a test runs on.
pub(crate) struct Node {
    pub(crate) cgroup: PathBuf,
    pub(crate) bpf_dir: PathBuf,
}

/// Runs `test` on a node of its own, named after the test. Without root it is skipped loudly.
pub(crate) fn on_a_node(test: impl FnOnce(&Node)) {
    let name = std::thread::current().name().expect("tests run in named threads").to_owned();
    if std::env::var_os(NODE).is_some() {
        let node = Node::named(&name, std::os::unix::process::parent_id());
        run("ip link set lo up");
        for address in [&format!("{NODE4}/32"), &format!("{NODE6}/128")] {
            add_address(address.split('/').next().expect("an address"));
        }
        return test(&node);
    }
    // SAFETY: a system call without arguments.
    if unsafe { libc::geteuid() } != 0 {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        eprintln!("SKIP: {name} needs root");
        return;
    }
    let node = Node::named(&name, std::process::id());
    std::fs::create_dir_all(&node.cgroup).expect("a cgroup");
    let status = node.command(&name).status().expect("the node's process");
    node.clear();
    assert!(status.success(), "{name} failed on its node; enter one like it with `unshare -n`");
}

impl Node {
    fn named(test: &str, pid: u32) -> Self {
        let name = format!("fairway-test-{pid}-{}", test.replace("::", "-"));
        Self { cgroup: cgroup_root().join(&name), bpf_dir: Path::new("/sys/fs/bpf").join(&name) }
    }

    fn command(&self, test: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("the test binary"));
        command.args(["--exact", test, "--nocapture"]).env(NODE, "1");
        let procs = self.cgroup.join("cgroup.procs");
        let enter = move || {
            std::fs::write(&procs, "0")?;
            // SAFETY: a system call without pointers.
            match unsafe { libc::unshare(libc::CLONE_NEWNET) } {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        };
        // SAFETY: between fork and exec only a file is written and a system call made.
        unsafe { command.pre_exec(enter) };
        command
    }

    fn clear(&self) {
        proxy::cleanup(&self.bpf_dir).expect("pins are removed");
        std::fs::remove_dir(&self.cgroup).expect("the cgroup is empty");
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            cgroup: self.cgroup.clone(),
            bpf_dir: self.bpf_dir.clone(),
            node_name: "a".into(),
            node_addresses: vec![model::testing::ip(NODE4), model::testing::ip(NODE6)],
            node_port_addresses: None,
            cluster_dns: vec![model::testing::ip("10.96.0.10")],
            sizes: SMALL,
            layout: proxy::LAYOUT,
            end_tcp: false,
            packets: None,
            redirect: false,
        }
    }

    /// A proxy on this node.
    pub(crate) fn proxy(&self) -> Proxy {
        Proxy::open(self.config()).expect("the proxy opens")
    }

    /// A proxy that serves exactly these objects.
    pub(crate) fn serve(&self, objects: impl IntoIterator<Item = Object>) -> World {
        let mut world = World { proxy: self.proxy(), cluster: listed(objects) };
        world.sync();
        world
    }
}

/// A cluster and the proxy that follows it.
pub(crate) struct World {
    pub(crate) proxy: Proxy,
    pub(crate) cluster: Cluster,
}

impl World {
    /// Applies a change and brings it to the kernel, with everything unwanted taken away.
    pub(crate) fn apply(&mut self, event: Event) {
        self.cluster.apply(event);
        self.sync();
    }

    pub(crate) fn snapshot(&mut self) -> Arc<Snapshot> {
        self.cluster.snapshot()
    }

    /// Brings the cluster to the kernel.
    pub(crate) fn sync(&mut self) {
        let snapshot = self.cluster.snapshot();
        let now = Instant::now();
        let outcome = self.proxy.grow(&snapshot, now);
        assert!(outcome.complete && outcome.unprogrammed.is_empty(), "{outcome:?}");
        self.proxy.shrink(now + proxy::GRACE);
    }
}

/// What the maps, read anew as the next start will, have more or less than the model.
pub(crate) fn difference(proxy: &mut Proxy) -> Option<String> {
    let wanted = proxy.planner().tables();
    let mut found = proxy::adopt(proxy.kernel(), wanted).tables().clone();
    // The daemon's own probe, one a family, which no plan knows.
    let probe: Vec<_> = found.services.keys().filter(|key| key.name.namespace.is_empty()).cloned().collect();
    assert!(probe.len() <= 2, "services that nobody wants: {probe:?}");
    for (ip, key) in ["127.0.0.1", "::1"].into_iter().zip(&probe) {
        let frontend = proxy::Frontend::new(ip.parse().expect("an address"), 1, model::Protocol::Udp);
        found.frontends.remove(&frontend);
        found.services.remove(key);
    }
    if found != *wanted {
        return Some(format!("found\n{}wanted\n{}", found.dump(), wanted.dump()));
    }
    proxy.examine(Instant::now()).into_iter().find_map(|finding| finding.wrong)
}

/// Runs a command line and expects success.
pub(crate) fn run(line: &str) {
    let words: Vec<&str> = line.split_whitespace().collect();
    let status = Command::new(words[0]).args(&words[1..]).status().unwrap_or_else(|e| panic!("{line}: {e}"));
    assert!(status.success(), "{line}: {status}");
}

/// As many open files as this process may have.
pub(crate) fn raise_file_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: a valid struct for the call's time.
    assert_eq!(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }, 0);
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: as above.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }, 0);
}

/// The root of the v2 hierarchy.
pub(crate) fn cgroup_root() -> PathBuf {
    let mounts = std::fs::read_to_string("/proc/mounts").expect("/proc is mounted");
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    PathBuf::from(mount.and_then(|line| line.split(' ').nth(1)).expect("cgroup v2 is mounted"))
}

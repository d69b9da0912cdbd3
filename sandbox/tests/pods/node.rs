//! A node of a test's own, with the processes that run pods on it, and what is said of pods in few words. The tests of
//! this folder share it.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sandbox::{NetworkNamespace, PodId, Record, Settings, attachments, delete, enable_forwarding, records};
use serde::{Deserialize, Serialize};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Tells the test `runner` what to run.
pub(crate) const JOB: &str = "SANDBOX_TEST_JOB";
/// Tells it to run on in the background.
pub(crate) const DETACH: &str = "SANDBOX_TEST_DETACH";

#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) run_dir: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) node: PathBuf,
    /// A Pod, or a command to run in the pod `web`.
    pub(crate) manifest: Option<String>,
    pub(crate) exec: Vec<String>,
    pub(crate) rootfs: Option<PathBuf>,
}

/// A node, taken apart when dropped.
pub(crate) struct Node {
    pub(crate) namespace: NetworkNamespace,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) cgroup: PathBuf,
    /// What its pods see as `/`.
    pub(crate) rootfs: Option<PathBuf>,
}

impl Node {
    /// A script that says a word when it is asked to end, and the file that shows that it is ready for that.
    pub(crate) fn goodbye(&self, word: &str) -> (String, PathBuf) {
        let up = self.folder.path().join(word);
        let script =
            format!("trap 'echo {word}; exit 0' TERM; touch {}; while :; do sleep 0.05; done", up.display());
        (script, up)
    }

    pub(crate) fn job(&self, manifest: Option<String>, exec: Vec<String>) -> Command {
        let settings = Settings {
            node_name: "node-1".into(),
            node_addresses: vec!["192.0.2.7".parse().unwrap()],
            pod_cidrs: ranges(),
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            cluster_domain: "cluster.local".into(),
            cgroup: self.cgroup.clone(),
            bpf_dir: "/sys/fs/bpf/none".into(),
            mtu: 1500,
            resolv_conf: "nameserver 192.0.2.53\n".into(),
            environment: vec![("KUBERNETES_SERVICE_HOST".into(), "10.96.0.1".into())],
        };
        let node = format!("/proc/{}/fd/{}", std::process::id(), self.namespace.as_fd().as_raw_fd());
        let run_dir = self.folder.path().to_path_buf();
        let rootfs = self.rootfs.clone();
        let job = Job { run_dir, settings, node: node.into(), manifest, exec, rootfs };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "runner", "--nocapture"]).env(JOB, serde_json::to_string(&job).unwrap());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn start(&self, manifest: String) -> Child {
        self.job(Some(manifest), Vec::new()).spawn().unwrap()
    }

    /// Runs a pod to its end: its exit code and what it printed.
    pub(crate) fn run(&self, manifest: String) -> (i32, String) {
        finish(self.start(manifest))
    }

    pub(crate) fn exec(&self, words: &[&str]) -> (i32, String) {
        let words = words.iter().map(ToString::to_string).collect();
        finish(self.job(None, words).spawn().unwrap())
    }

    pub(crate) fn pods(&self) -> Vec<Record> {
        records(self.folder.path())
    }

    pub(crate) fn await_ready(&self) -> Record {
        let mut found = None;
        await_that("a pod to be ready", || {
            found = self.pods().into_iter().find(|record| record.ready);
            found.is_some()
        });
        found.unwrap()
    }

    /// No directory, no process, no cgroup, no link.
    pub(crate) fn assert_empty(&self) {
        assert!(fs::read_dir(self.folder.path().join("pods")).unwrap().next().is_none());
        assert!(!self.cgroup.join("fairway").exists());
        assert_eq!(self.namespace.enter(attachments).unwrap().unwrap(), []);
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        for record in self.pods() {
            let _ = delete(self.folder.path(), &record.pod);
        }
        let _ = fs::remove_dir(self.cgroup.join("fairway"));
        let _ = fs::remove_dir(&self.cgroup);
    }
}

/// Says that a test could not run; with CI=true that is a failure.
pub(crate) fn node() -> Option<Node> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"));
    let root = root.and_then(|line| line.split(' ').nth(1)).map(PathBuf::from);
    let (true, Some(root)) = (rustix::process::geteuid().is_root(), root) else {
        assert!(std::env::var("CI").as_deref() != Ok("true"), "needs root and cgroup v2");
        println!("SKIP: needs root and cgroup v2");
        return None;
    };
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let cgroup = root.join(format!("sandbox-test-{}-{number}", std::process::id()));
    fs::create_dir(&cgroup).unwrap();
    let namespace = NetworkNamespace::create().unwrap();
    namespace.enter(|| enable_forwarding(&ranges())).unwrap().unwrap();
    Some(Node { namespace, folder: tempfile::tempdir().unwrap(), cgroup, rootfs: None })
}

fn ranges() -> Vec<ipnet::IpNet> {
    vec!["10.1.0.0/24".parse().unwrap()]
}

pub(crate) fn id(name: &str) -> PodId {
    PodId { namespace: "default".into(), name: name.into() }
}

pub(crate) fn manifest(spec: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: web, labels: {{app: web}}}}\nspec:\n{spec}")
}

/// A pod of one container that runs a shell script.
pub(crate) fn script(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap();
    manifest(&format!("  containers: [{{name: main, command: [sh, -c, {quoted}]}}]\n"))
}

/// A runner that is asked to end with the test.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        send(self.0.id(), Signal::INT);
        send(self.0.id(), Signal::INT);
        let mut text = String::new();
        if let Some(errors) = &mut self.0.stderr {
            let _ = errors.read_to_string(&mut text);
        }
        let _ = self.0.wait();
    }
}

/// The exit code of a runner, and what its pod printed without the test harness' own lines.
pub(crate) fn finish(child: Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("running 1 test"));
    let lines: Vec<&str> = lines.map(|line| line.strip_prefix("test runner ... ").unwrap_or(line)).collect();
    (output.status.code().unwrap_or(-1), lines.join("\n"))
}

pub(crate) fn send(process: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(process).unwrap()).unwrap(), signal).unwrap();
}

pub(crate) fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

//! Standalone pods from their first process to their last, each on a node of the test's own: a network namespace,
//! a cgroup and a directory. The runner is this test program, started again for the test `runner`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the helpers of tests are tests too")]

use std::fs;
use std::io::Read;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sandbox::{
    Detached, ExecOptions, NetworkNamespace, PAUSE_PROGRAM, Pod, PodId, Record, RunOptions, Settings,
    attachments, delete, enable_forwarding, exec, is_detached, read_pod, records, run_detached, run_with,
};
use serde::{Deserialize, Serialize};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Tells the test `runner` what to run.
const JOB: &str = "SANDBOX_TEST_JOB";
/// Tells it to run on in the background.
const DETACH: &str = "SANDBOX_TEST_DETACH";

#[derive(Serialize, Deserialize)]
struct Job {
    run_dir: PathBuf,
    settings: Settings,
    node: PathBuf,
    /// A Pod, or a command to run in the pod `web`.
    manifest: Option<String>,
    exec: Vec<String>,
    rootfs: Option<PathBuf>,
}

/// Not a test of its own: the process that runs a pod for the others.
#[test]
fn runner() {
    let Ok(job) = std::env::var(JOB) else { return };
    if std::env::var_os(DETACH).is_some() && !is_detached() {
        let arguments: Vec<_> = std::env::args_os().skip(1).collect();
        match run_detached(&std::env::current_exe().unwrap(), &arguments).unwrap() {
            Detached::Up(_) => std::process::exit(0),
            Detached::Ended(code) => std::process::exit(code),
        }
    }
    let job: Job = serde_json::from_str(&job).unwrap();
    let node = NetworkNamespace::open(&job.node).unwrap();
    let result = match job.manifest {
        Some(text) => {
            let pod = read_pod("pod.yaml", &text).unwrap().pod;
            let options = RunOptions { run_dir: job.run_dir, pod, rootfs: job.rootfs, publish: Vec::new() };
            run_with(&options, &job.settings, Some(&node)).map_err(|error| error.to_string())
        }
        None => {
            let options =
                ExecOptions { run_dir: job.run_dir, pod: id("web"), container: None, command: job.exec };
            exec(&options).map_err(|error| error.to_string())
        }
    };
    let code = result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        99
    });
    std::process::exit(code.into());
}

/// A node, taken apart when dropped.
struct Node {
    namespace: NetworkNamespace,
    folder: tempfile::TempDir,
    cgroup: PathBuf,
    /// What its pods see as `/`.
    rootfs: Option<PathBuf>,
}

/// Says that a test could not run; with CI=true that is a failure.
fn node() -> Option<Node> {
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

fn id(name: &str) -> PodId {
    PodId { namespace: "default".into(), name: name.into() }
}

fn manifest(spec: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: web, labels: {{app: web}}}}\nspec:\n{spec}")
}

/// A pod of one container that runs a shell script.
fn script(text: &str) -> String {
    let quoted = serde_json::to_string(text).unwrap();
    manifest(&format!("  containers: [{{name: main, command: [sh, -c, {quoted}]}}]\n"))
}

impl Node {
    /// A script that says a word when it is asked to end, and the file that shows that it is ready for that.
    fn goodbye(&self, word: &str) -> (String, PathBuf) {
        let up = self.folder.path().join(word);
        let script =
            format!("trap 'echo {word}; exit 0' TERM; touch {}; while :; do sleep 0.05; done", up.display());
        (script, up)
    }

    fn job(&self, manifest: Option<String>, exec: Vec<String>) -> Command {
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

    fn start(&self, manifest: String) -> Child {
        self.job(Some(manifest), Vec::new()).spawn().unwrap()
    }

    /// Runs a pod to its end: its exit code and what it printed.
    fn run(&self, manifest: String) -> (i32, String) {
        finish(self.start(manifest))
    }

    fn exec(&self, words: &[&str]) -> (i32, String) {
        let words = words.iter().map(ToString::to_string).collect();
        finish(self.job(None, words).spawn().unwrap())
    }

    fn pods(&self) -> Vec<Record> {
        records(self.folder.path())
    }

    fn await_ready(&self) -> Record {
        let mut found = None;
        await_that("a pod to be ready", || {
            found = self.pods().into_iter().find(|record| record.ready);
            found.is_some()
        });
        found.unwrap()
    }

    /// No directory, no process, no cgroup, no link.
    fn assert_empty(&self) {
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

/// The exit code of a runner, and what its pod printed without the test harness' own lines.
fn finish(child: Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with("running 1 test"));
    let lines: Vec<&str> = lines.map(|line| line.strip_prefix("test runner ... ").unwrap_or(line)).collect();
    (output.status.code().unwrap_or(-1), lines.join("\n"))
}

fn send(process: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(process).unwrap()).unwrap(), signal).unwrap();
}

fn await_that(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn a_pod_has_its_own_files_name_and_environment() {
    let Some(node) = node() else { return };
    let (code, text) = node.run(script(
        "cat /etc/resolv.conf /etc/hostname; tail -n1 /etc/hosts; hostname; echo $KUBERNETES_SERVICE_HOST; exit 3",
    ));
    let expected = "search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\n\
        options ndots:5\nweb\n10.1.0.3\tweb\nweb\n10.96.0.1";
    let same =
        |line: &str| if line.ends_with("\tweb") { "10.1.0.3\tweb".to_owned() } else { line.to_owned() };
    assert_eq!(text.lines().map(same).collect::<Vec<_>>().join("\n"), expected);
    assert_eq!(code, 3, "the exit code is the container's");
    node.assert_empty();
}

#[test]
fn variables_are_expanded_and_fields_filled_in() {
    let Some(node) = node() else { return };
    let (code, text) = node.run(manifest(
        r#"  containers:
  - name: main
    workingDir: /etc
    command: [sh, -c, "echo $(NAME)/$(NS)@$(NODE)/$(HOST) $(APP) $(NONE) $(UPPER); test $IP = $(hostname -I) && pwd"]
    env:
    - {name: NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: NS, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
    - {name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}
    - {name: HOST, valueFrom: {fieldRef: {fieldPath: status.hostIP}}}
    - {name: IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: APP, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
    - {name: UPPER, value: "[$(APP)]"}
"#,
    ));
    // $(NONE) stays and the shell runs it: there is no such command.
    assert!(text.contains("web/default@node-1/192.0.2.7 web"), "{text}");
    assert!(text.contains("[web]\n/etc"), "{text}");
    assert_eq!(code, 0);
}

#[test]
fn every_process_is_in_the_cgroup_of_the_pod() {
    let Some(node) = node() else { return };
    let (_, text) = node.run(script("grep ^0:: /proc/self/cgroup"));
    let name = node.cgroup.file_name().unwrap().to_str().unwrap();
    assert!(text.ends_with(&format!("/{name}/fairway/default_web")), "{text}");
}

#[test]
fn init_containers_run_in_order_before_the_others() {
    let Some(node) = node() else { return };
    let (code, text) = node.run(manifest(
        "  initContainers:\n  - {name: a, command: [echo, first]}\n  - {name: b, command: [echo, second]}\n\
         \x20 containers: [{name: c, command: [echo, third]}]\n",
    ));
    assert_eq!((code, text.as_str()), (0, "first\nsecond\nthird"));
}

#[test]
fn a_failing_init_container_ends_the_pod_with_its_name_and_code() {
    let Some(node) = node() else { return };
    let (code, text) = node.run(manifest(
        "  initContainers: [{name: migrate, command: [sh, -c, 'exit 7']}]\n  containers: [{name: c, command: [echo, never]}]\n",
    ));
    let expected = "error: pod default/web: init container migrate ended with exit code 7";
    assert_eq!((code, text.as_str()), (99, expected));
    node.assert_empty();
}

#[test]
fn a_command_that_is_not_there_is_named() {
    let Some(node) = node() else { return };
    let (_, text) = node.run(manifest("  containers: [{name: c, command: [/no/such/thing]}]\n"));
    let expected =
        "error: pod default/web: container c: /no/such/thing: No such file or directory (os error 2)";
    assert_eq!(text, expected);
    let (_, text) = node.run(manifest("  containers: [{name: c, image: nginx}]\n"));
    let expected = "error: pod default/web: container c: it has no command: images are not pulled, \
        so there is no default one";
    assert_eq!(text, expected);
    let (_, text) = node.run(manifest("  containers: [{name: c, command: [pwd], workingDir: /no/such}]\n"));
    let expected = "error: pod default/web: container c: working directory /no/such: No such file or directory (os error 2)";
    assert_eq!(text, expected);
    node.assert_empty();
}

#[test]
fn an_interrupt_ends_the_pod_in_order_and_leaves_nothing() {
    let Some(node) = node() else { return };
    for signal in [Signal::INT, Signal::TERM] {
        let (text, up) = node.goodbye("bye");
        let runner = node.start(script(&text));
        let record = node.await_ready();
        await_that("the container to be up", || up.exists());
        fs::remove_file(up).unwrap();
        assert_eq!((record.pod, record.addresses.len(), record.terminating), (id("web"), 1, false));
        send(runner.id(), signal);
        assert_eq!(finish(runner), (0, "bye".to_owned()));
        node.assert_empty();
    }
}

#[test]
fn a_container_that_does_not_end_is_killed_after_the_grace_period() {
    let Some(node) = node() else { return };
    let runner = node.start(manifest(
        "  terminationGracePeriodSeconds: 0\n  containers: [{name: c, command: [sh, -c, 'trap \"\" TERM; sleep 60']}]\n",
    ));
    node.await_ready();
    send(runner.id(), Signal::TERM);
    assert_eq!(finish(runner).0, 0);
    node.assert_empty();
}

#[test]
fn a_killed_runner_takes_the_pod_with_it() {
    let Some(node) = node() else { return };
    let mut runner = node.start(script("sleep 60 & wait"));
    let record = node.await_ready();
    send(runner.id(), Signal::KILL);
    runner.wait().unwrap();
    await_that("the pause process to die", || !Path::new(&format!("/proc/{}", record.pause)).exists());
    assert_eq!(node.pods(), [], "its record is void");
    let run_dir = node.folder.path();
    node.namespace.enter(|| delete(run_dir, &id("web"))).unwrap().unwrap();
    node.assert_empty();
}

#[test]
fn the_next_run_of_a_name_removes_what_a_killed_runner_left() {
    let Some(node) = node() else { return };
    let mut runner = node.start(script("sleep 60 & wait"));
    node.await_ready();
    send(runner.id(), Signal::KILL);
    runner.wait().unwrap();
    assert_eq!(node.run(script("echo again")), (0, "again".to_owned()));
    node.assert_empty();
}

#[test]
fn a_pod_that_lost_its_pause_process_ends() {
    let Some(node) = node() else { return };
    let runner = node.start(script("sleep 60"));
    send(node.await_ready().pause, Signal::KILL);
    assert_eq!(finish(runner), (99, "error: pod default/web: its pause process is gone".to_owned()));
    node.assert_empty();
}

#[test]
fn a_name_runs_once() {
    let Some(node) = node() else { return };
    let _runner = Killed(node.start(script("sleep 60")));
    node.await_ready();
    assert_eq!(node.run(script("echo no")), (99, "error: pod default/web runs already".to_owned()));
    assert_eq!(node.pods().len(), 1, "the first lives on");
}

#[test]
fn a_command_runs_inside_a_running_pod() {
    let Some(node) = node() else { return };
    let _runner = Killed(node.start(script("export LATE=no; sleep 60")));
    let record = node.await_ready();
    let (code, text) =
        node.exec(&["sh", "-c", "hostname; cat /etc/hostname; hostname -I; grep -c . /proc/net/dev"]);
    assert_eq!((code, text.as_str()), (0, format!("web\nweb\n{} \n4", record.addresses[0]).as_str()));
    let (_, text) =
        node.exec(&["sh", "-c", "echo $KUBERNETES_SERVICE_HOST; grep ^0:: /proc/self/cgroup; exit 4"]);
    assert!(text.starts_with("10.96.0.1\n") && text.ends_with("/fairway/default_web"), "{text}");
    assert_eq!(node.exec(&["sh", "-c", "exit 4"]).0, 4);
}

#[test]
fn a_pod_that_is_deleted_ends_in_order() {
    let Some(node) = node() else { return };
    let (text, up) = node.goodbye("bye");
    let runner = node.start(script(&text));
    node.await_ready();
    await_that("the container to be up", || up.exists());
    let run_dir = node.folder.path();
    node.namespace.enter(|| delete(run_dir, &id("web"))).unwrap().unwrap();
    assert_eq!(finish(runner), (0, "bye".to_owned()));
    node.assert_empty();
    let error = delete(run_dir, &id("web")).unwrap_err();
    assert_eq!(error.to_string(), "there is no pod default/web on this node");
}

#[test]
fn a_shared_process_namespace_begins_with_pause() {
    let Some(node) = node() else { return };
    let (code, text) = node.run(manifest(
        "  shareProcessNamespace: true\n  containers: [{name: c, command: [sh, -c, 'cat /proc/1/comm; echo $$$$']}]\n",
    ));
    assert_eq!((code, text.as_str()), (0, "pause\n2"));
    node.assert_empty();
}

#[test]
fn the_first_process_of_a_shared_namespace_reaps_orphans() {
    let Some(node) = node() else { return };
    let wait = "while cat /proc/[0-9]*/comm 2>/dev/null | grep -q sleep; do :; done; echo reaped";
    let text = serde_json::to_string(&format!("(sleep 0.05 &); {wait}")).unwrap();
    let (code, text) = node.run(manifest(&format!(
        "  shareProcessNamespace: true\n  containers: [{{name: c, command: [sh, -c, {text}]}}]\n"
    )));
    assert_eq!((code, text.as_str()), (0, "reaped"));
}

#[test]
fn init_containers_that_stay_end_after_the_others() {
    let Some(node) = node() else { return };
    let (side, side_up) = node.goodbye("side");
    let (main, main_up) = node.goodbye("main");
    let [side, main] = [side, main].map(|text| serde_json::to_string(&text).unwrap());
    let runner = node.start(manifest(&format!(
        "  initContainers: [{{name: side, restartPolicy: Always, command: [sh, -c, {side}]}}]\n\
         \x20 containers: [{{name: main, command: [sh, -c, {main}]}}]\n"
    )));
    await_that("both containers to be up", || side_up.exists() && main_up.exists());
    send(runner.id(), Signal::TERM);
    assert_eq!(finish(runner), (0, "main\nside".to_owned()));
    node.assert_empty();
}

#[test]
fn another_root_gets_the_pods_files() {
    let Some(mut node) = node() else { return };
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("pause"), PAUSE_PROGRAM).unwrap();
    fs::set_permissions(root.path().join("pause"), PermissionsExt::from_mode(0o755)).unwrap();
    node.rootfs = Some(root.path().to_owned());
    let (code, text) = node.run(manifest(
        "  volumes: [{name: v, emptyDir: {}}]\n  containers:\n  - {name: c, command: [/pause, -v], \
         volumeMounts: [{name: v, mountPath: /data}]}\n",
    ));
    assert_eq!((code, text.as_str()), (0, concat!("pause (fairway) ", env!("CARGO_PKG_VERSION"))));
    assert_eq!(
        fs::read_to_string(root.path().join("etc/hosts")).unwrap(),
        "",
        "the mount was the container's own"
    );
    assert!(root.path().join("data").is_dir());
}

#[test]
fn a_detached_pod_is_up_when_the_command_returns() {
    let Some(node) = node() else { return };
    let command = |text: &str| {
        let mut command = node.job(Some(script(text)), Vec::new());
        // The harness' own output stays with the process that goes on.
        command.env(DETACH, "1").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().code()
    };
    assert_eq!(command("echo hello; sleep 60"), Some(0));
    assert!(node.pods()[0].ready, "no waiting");
    let log = node.folder.path().join("pods/default_web/log");
    await_that("its output", || fs::read_to_string(&log).is_ok_and(|text| text.contains("hello")));
    let run_dir = node.folder.path();
    node.namespace.enter(|| delete(run_dir, &id("web"))).unwrap().unwrap();
    node.assert_empty();
    let mut failing =
        node.job(Some(manifest("  containers: [{name: c, command: [/no/such]}]\n")), Vec::new());
    failing.env(DETACH, "1").stdout(Stdio::null()).stderr(Stdio::null());
    assert_eq!(failing.status().unwrap().code(), Some(99));
}

#[test]
fn volumes_are_shared_between_containers() {
    let Some(node) = node() else { return };
    let host = tempfile::tempdir().unwrap();
    fs::write(host.path().join("greeting"), "hello").unwrap();
    let host_path = host.path().display();
    let (code, text) = node.run(manifest(&format!(
        "  volumes:\n  - {{name: shared, emptyDir: {{}}}}\n  - {{name: host, hostPath: {{path: {host_path}}}}}\n\
         \x20 initContainers:\n  - name: a\n    command: [sh, -c, 'cp /media/greeting /mnt/copy']\n\
         \x20   volumeMounts: &mounts\n    - {{name: shared, mountPath: /mnt}}\n\
         \x20   - {{name: host, mountPath: /media, readOnly: true}}\n\
         \x20 containers:\n  - name: b\n    command: [sh, -c, 'cat /mnt/copy; touch /media/x 2>/dev/null || echo \" read-only\"']\n\
         \x20   volumeMounts: *mounts\n"
    )));
    assert_eq!((code, text.as_str()), (0, "hello read-only"));
    assert!(!Path::new("/mnt/copy").exists());
    node.assert_empty();
}

#[test]
fn a_pod_on_the_host_network_has_the_nodes_addresses() {
    let Some(node) = node() else { return };
    let runner = Killed(
        node.start(manifest("  hostNetwork: true\n  containers: [{name: c, command: [sleep, '60']}]\n")),
    );
    let record = node.await_ready();
    let addresses: Vec<IpAddr> = vec!["192.0.2.7".parse().unwrap()];
    assert_eq!((record.addresses, record.host_network), (addresses, true));
    let link = |process: String| fs::read_link(format!("/proc/{process}/ns/net")).unwrap();
    let own = node.namespace.enter(|| fs::read_link("/proc/thread-self/ns/net").unwrap()).unwrap();
    assert_eq!(link(record.pause.to_string()), own);
    drop(runner);
}

#[test]
fn a_named_pod_without_a_command_has_no_containers() {
    let pod = Pod::named(id("web"), Vec::new());
    assert!(pod.work.containers.is_empty());
    let pod = Pod::named(id("web"), vec!["true".into()]);
    assert_eq!(pod.work.containers[0].command, ["true"]);
}

/// A runner that is asked to end with the test.
struct Killed(Child);

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

//! Pods of a real container runtime: containerd and runc with our pause image and our plug-in, as a kubelet drives
//! them, beside the real daemon. Afterwards nothing of a pod is left: no link, no route, no map entry, no file.

mod containerd;
mod cri;
mod wire;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use containerd::{BUSYBOX, Containerd};
use cri::{Output, PodConfig};
use rustix::process::{Pid, Signal, kill_process};
use tests::{Node, Options, until};

const TCP: u64 = 0;

/// Runs a test on a node whose container runtime has its network from the daemon.
fn run(test: impl FnOnce(&mut Node) -> Result<()>) {
    Node::run(Options { flags: Containerd::daemon_flags(), ..Options::default() }, |node| {
        until("the list of plug-ins", || {
            ensure!(node.folder().join("cni/net.d/10-fairway.conflist").is_file(), "it is not written");
            Ok(())
        })?;
        test(node)
    });
}

/// What is left of pods on the node.
fn traces(node: &Node) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let mut lines = |what: &str, output: &str| {
        found.extend(output.lines().map(|line| format!("{what}: {}", line.trim())));
    };
    lines("link", &node.command(&["ip", "-o", "link", "show", "group", "1178683730"])?.success()?.stdout);
    for family in ["-4", "-6"] {
        lines("route", &node.command(&["ip", family, "route", "show", "proto", "70"])?.success()?.stdout);
    }
    let told = sandbox::map_entries(node.bpf_dir())?;
    if told != sandbox::MapEntries::default() {
        found.push(format!("maps: {told:?}"));
    }
    let files = std::fs::read_dir(namespaces(node)).into_iter().flatten().flatten();
    found.extend(files.map(|file| format!("file: {}", file.path().display())));
    Ok(found)
}

/// Where the runtime mounts the network namespaces of its pods.
fn namespaces(node: &Node) -> PathBuf {
    node.folder().join("containerd/state/io.containerd.grpc.v1.cri/netns")
}

/// Ends every process in a network namespace.
fn kill_all_in(namespace: &Path) -> Result<()> {
    let wanted = std::fs::metadata(namespace)?.ino();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let own = std::fs::metadata(entry.path().join("ns/net"));
        let pid = entry.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
        if let (Ok(own), Some(pid)) = (own, pid)
            && own.ino() == wanted
        {
            kill_process(pid, Signal::KILL)?;
        }
    }
    Ok(())
}

fn nothing_is_left(node: &Node) -> Result<()> {
    until("nothing to be left", || {
        let found = traces(node)?;
        ensure!(found.is_empty(), "{}", found.join("\n"));
        Ok(())
    })
}

impl Output {
    fn success(self) -> Result<String> {
        ensure!(self.code == 0, "it ended with {}: {}{}", self.code, self.stderr, self.stdout);
        Ok(self.stdout.trim().to_owned())
    }
}

/// A container that answers HTTP with a word.
fn serve(word: &str) -> [String; 3] {
    let script = format!("mkdir -p /www && echo {word} >/www/index.html && exec httpd -f -p 80 -h /www");
    ["/bin/sh", "-c", &script].map(str::to_owned)
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

/// A Service with a fixed address whose endpoint is the pod.
fn service(address: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: t}}\nspec:\n  clusterIP: 10.96.1.1\n  \
         ports: [{{port: 80}}]\n---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: web-1, \
         namespace: t, labels: {{kubernetes.io/service-name: web}}}}\naddressType: IPv4\nports: [{{port: 80}}]\n\
         endpoints: [{{addresses: [\"{address}\"]}}]\n"
    )
}

#[test]
fn a_pod_of_a_runtime_has_everything_and_leaves_nothing() {
    run(|node| {
        let containerd = Containerd::start(node)?;
        let cri = &containerd.cri;
        until("the runtime to see the network", || {
            ensure!(cri.is_network_ready()?, "it does not");
            Ok(())
        })?;
        let config = PodConfig { ports: vec![(TCP, 8080, 80)], ..PodConfig::named(node, "web") };
        let pod = cri.run_pod(&config).with_context(|| containerd.log_tail())?;
        let address = cri.address(&pod)?;
        ensure!(address.starts_with("10.244.1."), "{address}");
        let web = cri.run_container((&pod, &config), "web", BUSYBOX, &words(&serve("hello")))?;
        let side = cri.run_container((&pod, &config), "side", BUSYBOX, &["/bin/sleep", "1000"])?;
        let in_side = |command: &[&str]| cri.exec(&side, command)?.success();

        // The daemon lists what it did not make, and its own program is the plug-in too.
        let listed = node.fairway(&["get", "sandboxes"])?.success()?.stdout;
        ensure!(["t/web", "attached", &address].iter().all(|word| listed.contains(word)), "{listed}");
        let program = node.program().display().to_string();
        let versions = node.command(&["env", "CNI_COMMAND=VERSION", &program, "cni"])?.success()?.stdout;
        ensure!(versions.contains("\"supportedVersions\":[\"0.3.1\""), "{versions}");

        // Both see one localhost, one host name, one IPC namespace.
        until("the other container on localhost", || {
            ensure!(in_side(&["wget", "-qO-", "http://127.0.0.1/"])? == "hello");
            Ok(())
        })?;
        ensure!(in_side(&["hostname"])? == "web");
        for namespace in ["net", "ipc", "uts"] {
            let path = format!("/proc/self/ns/{namespace}");
            let own = cri.exec(&web, &["readlink", &path])?.success()?;
            ensure!(in_side(&["readlink", &path])? == own, "{namespace} is not shared");
        }
        in_side(&["sh", "-c", "echo shared >/dev/shm/note"])?;
        ensure!(cri.exec(&web, &["cat", "/dev/shm/note"])?.success()? == "shared");

        // Names, and the service that they lead to.
        node.write("web.yaml", &service(&address))?;
        until("the service to be programmed", || {
            let said = node.command(&["curl", "-sS", "-m", "2", "http://10.96.1.1/"])?.success()?.stdout;
            ensure!(said.trim() == "hello", "{said}");
            Ok(())
        })?;
        ensure!(in_side(&["wget", "-qO-", "http://10.96.1.1/"])? == "hello");
        ensure!(in_side(&["nslookup", "web.t.svc.cluster.local"])?.contains("10.96.1.1"));
        let resolv_conf = in_side(&["cat", "/etc/resolv.conf"])?;
        ensure!(resolv_conf.contains("search t.svc.cluster.local svc.cluster.local"), "{resolv_conf}");

        // The port of the node.
        for host in ["127.0.0.1", tests::NODE4] {
            let url = format!("http://{host}:8080/");
            let said = node.command(&["curl", "-sS", "-m", "3", &url])?.success()?.stdout;
            ensure!(said.trim() == "hello", "{url}: {said}");
        }
        let other = PodConfig { ports: vec![(TCP, 8080, 80)], ..PodConfig::named(node, "other") };
        let refused = format!("{:#}", cri.run_pod(&other).err().context("8080 is taken twice")?);
        ensure!(refused.contains("hostPort 8080/TCP is taken by pod t/web"), "{refused}");

        // A runtime may say each of these again.
        cri.stop_pod(&pod)?;
        cri.stop_pod(&pod)?;
        cri.remove_pod(&pod)?;
        cri.remove_pod(&pod)?;
        nothing_is_left(node)
    });
}

#[test]
fn a_pod_outlives_the_runtime_and_the_daemon_and_ends_without_them() {
    run(|node| {
        let mut containerd = Containerd::start(node)?;
        let config = PodConfig { ports: vec![(TCP, 8080, 80)], ..PodConfig::named(node, "web") };
        let pod = containerd.cri.run_pod(&config).with_context(|| containerd.log_tail())?;
        containerd.cri.run_container((&pod, &config), "web", BUSYBOX, &words(&serve("hello")))?;
        let url = format!("http://{}/", containerd.cri.address(&pod)?);
        let answers = || {
            until("the pod", || {
                let said = node.command(&["curl", "-sS", "-m", "3", &url])?.success()?.stdout;
                ensure!(said.trim() == "hello", "{said}");
                Ok(())
            })
        };
        answers()?;
        containerd.kill();
        answers()?;
        containerd.start_again()?;
        ensure!(containerd.cri.pods()? == [pod.as_str()], "it knows its pod again");

        // Pods come and go while no daemon runs.
        let daemon = node.daemon.as_ref().context("a daemon")?.id();
        kill_process(Pid::from_raw(i32::try_from(daemon)?).context("a process")?, Signal::KILL)?;
        answers()?;
        let other = PodConfig::named(node, "other");
        let second = containerd.cri.run_pod(&other).with_context(|| containerd.log_tail())?;
        ensure!(containerd.cri.address(&second)?.starts_with("10.244.1."));
        for pod in [&pod, &second] {
            containerd.cri.stop_pod(pod)?;
            containerd.cri.remove_pod(pod)?;
        }
        nothing_is_left(node)
    });
}

#[test]
fn a_killed_plug_in_and_a_vanished_namespace_leave_nothing() {
    run(|node| {
        // A plug-in that is killed when all is done but the answer. A daemon would put the real one back.
        node.daemon()?.kill()?;
        node.daemon = None;
        let containerd = Containerd::start(node)?;
        let config = PodConfig { ports: vec![(TCP, 8080, 80)], ..PodConfig::named(node, "web") };
        let program = node.folder().join("cni/bin/fairway-cni");
        let real = node.folder().join("fairway-cni-real");
        std::fs::rename(&program, &real)?;
        let script = format!(
            "#!/bin/sh\n[ \"$CNI_COMMAND\" = ADD ] || exec {0}\n{0} >/dev/null\nkill -9 $$\n",
            real.display()
        );
        std::fs::write(&program, script)?;
        std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let killed = containerd.cri.run_pod(&config).err().context("it has no answer to go by")?;
        ensure!(format!("{killed:#}").contains("network"), "{killed:#}");
        nothing_is_left(node)?;
        std::fs::rename(&real, &program)?;

        // A node whose network namespaces were cleared away under its pods.
        let pod = containerd.cri.run_pod(&config).with_context(|| containerd.log_tail())?;
        let mounted = std::fs::read_dir(namespaces(node))?.next().context("the pod's namespace")??.path();
        kill_all_in(&mounted)?;
        node.command(&["umount", "--lazy", &mounted.display().to_string()])?.success()?;
        until("the link to go with its namespace", || {
            let left = traces(node)?;
            ensure!(!left.iter().any(|line| line.starts_with("link")), "{left:?}");
            Ok(())
        })?;
        // While it takes leave of the shim of a process that was killed, it answers no StopPodSandbox.
        until("the runtime to see that the pod has ended", || {
            ensure!(!containerd.cri.is_ready(&pod)?, "the sandbox is ready");
            Ok(())
        })?;
        containerd.cri.stop_pod(&pod)?;
        containerd.cri.remove_pod(&pod)?;
        nothing_is_left(node)
    });
}

//! What the processes of a pod see: files, environment, cgroup, volumes, root, network and each other. Each test asks
//! from inside.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sandbox::PAUSE_PROGRAM;

use crate::node::{Killed, manifest, node, script};

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
fn a_pod_with_a_subdomain_may_have_its_full_name_as_hostname() {
    let Some(node) = node() else { return };
    let look =
        "hostname; cat /etc/hostname; echo $HOSTNAME; tail -n +8 /etc/hosts | sed 's/^10[.][0-9.]*/IP/'";
    let pod = |more: &str| {
        manifest(&format!(
            "  hostname: w\n{more}  hostAliases:\n  - {{ip: 'FD00::1', hostnames: [one]}}\n  - {{ip: 192.0.2.1, hostnames: [two, three.four]}}\n\
             \x20 containers:\n  - {{name: main, command: [sh, -c, \"{look}\"]}}\n"
        ))
    };
    let aliases = "# Entries added by HostAliases.\nFD00::1\tone\n192.0.2.1\ttwo\tthree.four";
    let full = "w.sub.default.svc.cluster.local";
    for (more, kernel, line) in [
        ("  subdomain: sub\n  setHostnameAsFQDN: true\n", full, format!("{full}\tw")),
        ("  subdomain: sub\n", "w", format!("{full}\tw")),
        ("  setHostnameAsFQDN: true\n", "w", "w".to_owned()),
    ] {
        let (code, text) = node.run(pod(more));
        assert_eq!(
            (code, text),
            (0, format!("{kernel}\n{kernel}\n{kernel}\nIP\t{line}\n{aliases}")),
            "{more}"
        );
    }
    let long = format!("  subdomain: {}\n  setHostnameAsFQDN: true\n", "s".repeat(60));
    assert_eq!(node.run(pod(&long)).0, 99);
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
fn a_pod_on_the_host_network_has_the_nodes_files_unless_its_policy_says_otherwise() {
    let Some(node) = node() else { return };
    let show =
        "    command: [sh, -c, 'hostname; head -n1 /etc/hosts; tail -n1 /etc/hosts; cat /etc/resolv.conf']\n";
    let pod = |policy: &str| {
        let aliases = "  hostAliases: [{ip: 192.0.2.9, hostnames: [db]}]\n";
        node.run(manifest(&format!(
            "  hostNetwork: true\n  dnsPolicy: {policy}\n{aliases}  containers:\n  - name: c\n{show}"
        )))
    };
    let hostname = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let hosts = "# Kubernetes-managed hosts file (host network).\n192.0.2.9\tdb\n";
    let own = format!("{hostname}{hosts}nameserver 192.0.2.53");
    assert_eq!(pod("ClusterFirst"), (0, own));
    let cluster = format!(
        "{hostname}{hosts}search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\n\
         options ndots:5"
    );
    assert_eq!(pod("ClusterFirstWithHostNet"), (0, cluster));
    node.assert_empty();
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

//! What goes wrong: wrong options, missing parts, broken manifests, a daemon that is killed. Each mistake is one
//! sentence on standard error and a non-zero exit code, and nothing is left half-attached.

use anyhow::{Context, Result, ensure};
use tests::{Finished, Kind, Node, Options, until};

const VIP: &str = "10.96.1.1:80";

const WEB: &str = "apiVersion: v1
kind: Service
metadata: {name: web, namespace: t}
spec: {clusterIP: 10.96.1.1, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: t, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 80}]
endpoints: [{addresses: [198.18.0.1]}]
";

/// Runs `fairway` with these words on a node without a daemon. It must fail.
fn refused(words: impl FnOnce(&Node) -> Vec<String>, says: &[&str]) {
    if !tests::root_or_skip() {
        return;
    }
    let node = Node::create(Options::default()).expect("a node can be made on this machine");
    let words = words(&node);
    let fairway = node.program().display().to_string();
    let all: Vec<&str> = [fairway.as_str()].into_iter().chain(words.iter().map(String::as_str)).collect();
    let finished = node.command(&all).expect("it ends");
    is_one_sentence(&finished, says);
    assert_eq!(pinned_links(&node), [""; 0], "something is left attached");
}

/// The pins that hold a program where it is attached; maps alone do nothing.
fn pinned_links(node: &Node) -> Vec<String> {
    let words = ["find", &node.bpf_dir().display().to_string(), "-name", "*connect*"];
    let found = node.command(&words).expect("find runs").stdout;
    found.lines().map(str::to_owned).collect()
}

fn is_one_sentence(finished: &Finished, says: &[&str]) {
    assert!(
        finished.code.is_some_and(|code| code != 0),
        "exit code {:?}: {}",
        finished.code,
        finished.stderr
    );
    let last = finished.stderr.lines().rfind(|line| !line.is_empty()).unwrap_or_default();
    for word in says {
        assert!(finished.stderr.contains(word), "{:?} does not name {word}", finished.stderr);
    }
    assert!(last.len() < 300, "not one sentence: {last}");
    assert!(!finished.stderr.contains("panicked"), "{}", finished.stderr);
}

fn is_empty(folder: &std::path::Path) -> bool {
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// The flags of a run that would work, after `run`.
fn run_with(node: &Node, more: &[&str]) -> Vec<String> {
    let mut words = vec!["run".to_owned(), "--manifests".to_owned(), node.manifests().display().to_string()];
    words.extend(node.run_flags());
    words.extend(more.iter().map(|word| (*word).to_owned()));
    words
}

#[test]
fn an_unknown_flag_is_named() {
    refused(|node| run_with(node, &["--manifest", "x"]), &["--manifest"]);
}

#[test]
fn a_wrong_address_is_named() {
    refused(|node| run_with(node, &["--cluster-dns", "10.96.0"]), &["--cluster-dns", "10.96.0"]);
}

#[test]
fn a_missing_manifest_folder_is_named() {
    refused(
        |node| {
            let words = run_with(node, &[]);
            words.iter().map(|word| word.replace("/manifests", "/no-such-folder")).collect()
        },
        &["no-such-folder"],
    );
}

#[test]
fn an_unreadable_kubeconfig_is_named() {
    refused(
        |node| {
            let words = ["run", "--kubeconfig", "/no/such/kubeconfig"].map(str::to_owned);
            words.into_iter().chain(node.run_flags()).collect()
        },
        &["/no/such/kubeconfig"],
    );
}

#[test]
fn a_cgroup_that_is_none_is_named() {
    refused(
        |node| {
            let cgroup = node.cgroup().display().to_string();
            run_with(node, &[])
                .into_iter()
                .map(|word| if word == cgroup { "/proc".to_owned() } else { word })
                .collect()
        },
        &["/proc", "cgroup"],
    );
}

#[test]
fn a_port_in_use_is_named() {
    if !tests::root_or_skip() {
        return;
    }
    let mut node = Node::create(Options::default()).expect("a node can be made on this machine");
    // The cluster DNS address: the tenth of the service range.
    node.serve("squatter", &["10.96.0.10"], &[(Kind::Udp, 53), (Kind::Tcp, 53)]).unwrap();
    let error = node.start_daemon().expect_err("the port is in use");
    let text = format!("{error:#}");
    assert!(text.contains("10.96.0.10:53"), "{text}");
    assert!(text.contains("exit status: 1"), "{text}");
}

#[test]
fn a_second_daemon_on_one_run_directory_is_refused() {
    Node::run(Options::default(), |node| {
        let words = run_with(node, &[]);
        let program = node.program().display().to_string();
        let all: Vec<&str> = [program.as_str()].into_iter().chain(words.iter().map(String::as_str)).collect();
        is_one_sentence(&node.command(&all)?, &["admin.sock"]);
        node.daemon()?.fetch("/readyz").map(drop)
    });
}

#[test]
fn a_broken_manifest_is_named_and_the_rest_is_served() {
    let broken = [
        ("half.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: half"),
        (
            "port.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: big}\nspec: {ports: [{port: 70000}]}\n",
        ),
        ("type.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: odd}\nspec: {ports: 80}\n"),
        (
            "address.yaml",
            "apiVersion: v1\nkind: Service\nmetadata: {name: none}\nspec: {clusterIP: 10.96, ports: [{port: 80}]}\n",
        ),
    ];
    let options = Options {
        manifests: broken.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())).collect(),
        ..Options::default()
    };
    Node::run(options, |node| {
        node.serve("a", &["198.18.0.1"], &[(Kind::Tcp, 80)])?;
        node.write("web.yaml", WEB)?;
        until("the good service", || node.ask(Kind::Tcp, VIP, &["--timeout", "200"])?.only_from(&["a"]))?;
        let log = node.daemon()?.log();
        for (file, _) in broken {
            ensure!(log.contains(file), "{file} is not reported:\n{log}");
        }
        // A file that breaks later, cut within a bracket, changes nothing.
        let half = WEB.find("labels:").context("a place to cut")?;
        node.write("web.yaml", &WEB[..half])?;
        until("the broken file to be reported", || {
            ensure!(node.daemon()?.log().contains("web.yaml"), "not yet");
            Ok(())
        })?;
        node.ask(Kind::Tcp, VIP, &["--count", "50"])?.only_from(&["a"])
    });
}

/// A Service of 5,000 endpoints, in slices of 100 as Kubernetes cuts them.
fn large() -> String {
    let slice = |n: usize| {
        let addresses: Vec<String> =
            (0..100).map(|k| format!("{{addresses: [198.19.{n}.{}]}}", k + 1)).collect();
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: large-{n}, namespace: t, \
             labels: {{kubernetes.io/service-name: large}}}}\naddressType: IPv4\nports: [{{port: 80}}]\n\
             endpoints: [{}]\n",
            addresses.join(", ")
        )
    };
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: large, namespace: t}\n\
                   spec: {clusterIP: 10.96.1.9, ports: [{port: 80}]}\n";
    service.to_owned() + &(0..50).map(slice).collect::<String>()
}

#[test]
fn a_service_of_5000_endpoints_is_served_and_costs_another_nothing() {
    let manifests = [("large.yaml", large()), ("web.yaml", WEB.to_owned())];
    let options = Options {
        manifests: manifests.map(|(file, text)| (file.to_owned(), text)).into(),
        ..Options::default()
    };
    Node::run(options, |node| {
        node.serve("a", &["198.18.0.1"], &[(Kind::Tcp, 80)])?;
        node.serve("b", &["198.18.0.2"], &[(Kind::Tcp, 80)])?;
        until("the service", || node.ask(Kind::Tcp, VIP, &["--timeout", "200"])?.only_from(&["a"]))?;
        let explained = node.fairway(&["explain", "10.96.1.9:80"])?.success()?.stdout;
        ensure!(explained.contains("one of 5000, at random"), "{explained}");
        let before = node.daemon()?.metric("fairway_proxy_operations_total", "")?;
        node.write("web.yaml", &WEB.replace("198.18.0.1", "198.18.0.2"))?;
        until("the change", || node.ask(Kind::Tcp, VIP, &["--timeout", "200"])?.only_from(&["b"]))?;
        let writes = node.daemon()?.metric("fairway_proxy_operations_total", "")? - before;
        // The new backend, its block, the word, and the windows of the old one.
        ensure!(writes == 4.0, "{writes} writes for one endpoint of one");
        let problems = node.fairway(&["check", "--live"])?.success()?.stdout;
        ensure!(!problems.contains("large"), "{problems}");
        Ok(())
    });
}

#[test]
fn a_killed_daemon_leaves_the_kernel_serving_and_comes_back_without_writing() {
    let options = Options { manifests: vec![("web.yaml".to_owned(), WEB.to_owned())], ..Options::default() };
    Node::run(options, |node| {
        node.serve("a", &["198.18.0.1"], &[(Kind::Tcp, 80)])?;
        until("the service", || node.ask(Kind::Tcp, VIP, &["--timeout", "200"])?.only_from(&["a"]))?;
        let mut flow = node.flow(&["keep", VIP])?;
        ensure!(flow.exchange()? == Ok("a".to_owned()), "the flow works");
        node.daemon()?.kill()?;
        ensure!(flow.exchange()? == Ok("a".to_owned()), "the flow outlives the daemon");
        let during = std::thread::scope(|scope| {
            let seen: &Node = node;
            let asking = scope.spawn(|| seen.ask(Kind::Tcp, VIP, &["--count", "5000"]));
            let daemon = seen.spawn_daemon();
            let answers = asking.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            Ok::<_, anyhow::Error>((answers?, daemon?))
        })?;
        during.0.only_from(&["a"])?;
        node.daemon = Some(during.1);
        ensure!(flow.exchange()? == Ok("a".to_owned()), "the flow outlives the restart");
        let writes = node.daemon()?.metric("fairway_proxy_operations_total", "")?;
        ensure!(writes == 0.0, "{writes} writes for what was there already");
        Ok(())
    });
}

#[test]
fn a_change_made_while_the_daemon_was_away_is_applied_when_it_starts() {
    let options = Options { manifests: vec![("web.yaml".to_owned(), WEB.to_owned())], ..Options::default() };
    Node::run(options, |node| {
        node.serve("a", &["198.18.0.1"], &[(Kind::Tcp, 80)])?;
        node.serve("b", &["198.18.0.2"], &[(Kind::Tcp, 80)])?;
        until("the service", || node.ask(Kind::Tcp, VIP, &["--timeout", "200"])?.only_from(&["a"]))?;
        node.daemon()?.kill()?;
        node.write("web.yaml", &WEB.replace("198.18.0.1", "198.18.0.2"))?;
        node.start_daemon()?;
        until("the change", || node.ask(Kind::Tcp, VIP, &["--timeout", "200"])?.only_from(&["b"]))
    });
}

#[test]
fn a_stopped_daemon_ends_well_and_cleanup_leaves_no_trace() {
    let options = Options { manifests: vec![("web.yaml".to_owned(), WEB.to_owned())], ..Options::default() };
    Node::run(options, |node| {
        node.serve("a", &["198.18.0.1"], &[(Kind::Tcp, 80)])?;
        until("the service", || node.ask(Kind::Tcp, VIP, &["--timeout", "200"])?.only_from(&["a"]))?;
        let pod = tests::Pod::client(node, "t/pod")?;
        let status = node.daemon()?.terminate()?;
        ensure!(status.success(), "{status}");
        node.daemon = None;
        node.ask(Kind::Tcp, VIP, &["--count", "20"])?
            .only_from(&["a"])
            .context("the kernel side outlives the daemon")?;
        pod.delete(node)?;
        node.fairway(&["cleanup"])?.success()?;
        ensure!(!node.bpf_dir().exists() || is_empty(node.bpf_dir()), "pins are left");
        ensure!(
            !node.run_dir().exists() || is_empty(&node.run_dir()),
            "the run directory has {:?}",
            list(node)?
        );
        let links = node.command(&["ip", "-o", "link"])?.success()?.stdout;
        ensure!(links.lines().count() == 2, "links besides lo and the uplink:\n{links}");
        let rules = node.command(&["nft", "list", "ruleset"])?.success()?.stdout;
        ensure!(rules.trim().is_empty(), "{rules}");
        let answers = node.ask(Kind::Tcp, VIP, &["--timeout", "200"])?;
        ensure!(answers.from.is_empty(), "the service still answers");
        Ok(())
    });
}

fn list(node: &Node) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(node.run_dir())?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}

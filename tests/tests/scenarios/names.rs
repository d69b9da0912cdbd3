//! Names while daemons come and go: a planned restart loses no question, and a daemon that is killed is stood in for
//! by that of another node.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tests::{Background, Node, Options, Place, Pod, Site, until};

use crate::nodes::node_objects;

pub(crate) const SERVER: &str = "10.96.0.10:53";
pub(crate) const NAME: &str = "kubernetes.default.svc.cluster.local";

/// What a probe that asks tells in the end.
pub(crate) fn told(asking: &mut Background) -> Result<(u64, u64, u64)> {
    let value: Value = serde_json::from_str(&asking.read_line()?)?;
    let number = |key: &str| value[key].as_u64().with_context(|| format!("no {key} in {value}"));
    Ok((number("answered")?, number("failed")?, number("span_millis")?))
}

#[test]
fn a_planned_restart_loses_no_question() {
    Node::run(Options::default(), |node| {
        let pod = Pod::client(node, "t/a")?;
        let words = ["resolve", SERVER, NAME, "--rate", "500", "--seconds", "8", "--timeout", "3000"];
        let mut asking = pod.background(node, &words)?;
        let mut successor = node.spawn_daemon_with(&["--take-over"])?;
        successor.await_ready()?;
        until("the predecessor to end", || {
            let ended = node.daemon()?.ended()?.context("it still runs")?;
            ensure!(ended.success(), "it ended with {ended}");
            Ok(())
        })?;
        let (answered, failed, _) = told(&mut asking)?;
        ensure!(failed == 0 && answered > 1000, "{failed} were lost and {answered} answered");
        node.daemon = Some(successor);
        Ok(())
    });
}

/// The cluster's DNS service, in both families.
const DNS_SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: kube-dns, namespace: kube-system}\n\
    spec: {clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10, \"fd00:96::a\"], ipFamilies: [IPv4, IPv6], \
    ipFamilyPolicy: RequireDualStack, ports: [{name: dns, port: 53, protocol: UDP}]}\n";

/// Its endpoints as a DaemonSet in the nodes' network has them: the nodes themselves are behind it.
fn dns_endpoints(nodes: &[&Node]) -> String {
    let slice = |family: &str, address: fn(&Site) -> &'static str| {
        let endpoints: Vec<String> =
            nodes.iter().map(|node| format!("{{addresses: [\"{}\"]}}", address(node.site()))).collect();
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: kube-dns-{}, namespace: kube-system, labels: {{kubernetes.io/service-name: kube-dns}}}}\n\
             addressType: {family}\nports: [{{name: dns, port: 53, protocol: UDP}}]\nendpoints: [{}]\n---\n",
            family.to_lowercase(),
            endpoints.join(", ")
        )
    };
    slice("IPv4", |site| site.node4) + &slice("IPv6", |site| site.node6)
}

#[test]
fn a_killed_daemon_is_stood_in_for_by_that_of_another_node() {
    kill_one_of_two(SERVER);
}

#[test]
fn a_killed_daemon_is_stood_in_for_over_ipv6() {
    kill_one_of_two("[fd00:96::a]:53");
}

/// 1,000 questions a second from pods of two nodes, one of whose daemons is killed.
fn kill_one_of_two(server: &str) {
    let options = || Options {
        flags: ["--node-routes", "auto"].map(str::to_owned).to_vec(),
        // There from the start: it says where names are answered.
        manifests: vec![("dns.yaml".to_owned(), DNS_SERVICE.to_owned())],
        ..Options::default()
    };
    Node::run(options(), |first| {
        let mut second = first.create_other(Place::Beside, options())?;
        let objects = node_objects(&[first, &second]) + &dns_endpoints(&[first, &second]);
        first.write("cluster.yaml", &objects)?;
        second.write("cluster.yaml", &objects)?;
        second.start_daemon()?;
        let pods = [Pod::client(first, "t/a")?, Pod::client(&second, "t/b")?];
        let words = ["resolve", server, NAME, "--rate", "500", "--seconds", "6", "--timeout", "400"];
        let warm = ["resolve", server, NAME, "--rate", "5", "--seconds", "1"];
        until("both pods to be answered", || {
            for (pod, node) in pods.iter().zip([&*first, &second]) {
                let (answered, failed, _) = told(&mut pod.background(node, &warm)?)?;
                ensure!(answered > 0 && failed == 0, "{} asks in vain", pod.name);
            }
            Ok(())
        })?;
        let mut here = pods[0].background(first, &words)?;
        let mut there = pods[1].background(&second, &words)?;
        first.daemon()?.kill()?;
        first.daemon = None;
        let (answered, failed, span) = told(&mut here)?;
        ensure!(failed > 0 && answered > 1000, "{failed} failed, {answered} answered");
        // The heartbeat is valid for 500 ms.
        ensure!(span <= 1000, "{failed} failed over {span} ms");
        eprintln!("{failed} of {} failed over {span} ms", failed + answered);
        let (answered, failed, _) = told(&mut there)?;
        ensure!(failed == 0 && answered > 1000, "{failed} failed where nobody was killed");
        first.start_daemon()
    });
}

/// The program that asks the C library for names, linked with one of the two there are.
fn resolver(node: &Node, compiler: &str) -> Result<String> {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios/resolve.c");
    let program = node.folder().join(format!("resolve-{compiler}")).display().to_string();
    let linked = if compiler == "musl-gcc" { "-static" } else { "-O1" };
    node.command(&[compiler, linked, "-o", &program, source])?.success()?;
    Ok(program)
}

#[test]
fn short_names_are_found_by_glibc_and_by_musl() {
    let dual = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: t}\n\
                spec: {clusterIP: 10.96.1.1, clusterIPs: [10.96.1.1, \"fd00:96::1\"], \
                ipFamilies: [IPv4, IPv6], ipFamilyPolicy: RequireDualStack, ports: [{port: 80}]}\n";
    let options = Options { manifests: vec![("web.yaml".to_owned(), dual.to_owned())], ..Options::default() };
    Node::run(options, |node| {
        let outside = format!("{}:53", tests::ROUTER4);
        node.serve_outside(&["upstream", &outside])?;
        let pod = Pod::client(node, "t/a")?;
        let names =
            ["web", "web.t", "web.t.svc", "web.t.svc.cluster.local", "web.t.svc.cluster.local.", "nope"];
        for compiler in ["gcc", "musl-gcc"] {
            let program = resolver(node, compiler)?;
            let mut words = vec![program.as_str()];
            words.extend(names);
            let said = pod.exec(node, &words)?.success()?.stdout;
            for (name, line) in names.iter().zip(said.lines()) {
                let mut found: Vec<&str> = line.split(' ').skip(1).collect();
                found.sort_unstable();
                let expected: &[&str] =
                    if *name == "nope" { &["name", "no", "such"] } else { &["10.96.1.1", "fd00:96::1"] };
                ensure!(found == expected, "{compiler}: {line}");
            }
            ensure!(said.lines().count() == names.len(), "{compiler}: {said}");
        }
        Ok(())
    });
}

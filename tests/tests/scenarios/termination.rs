//! Connected UDP sockets whose endpoint goes: in a pod and on the node, listed, and ended by the daemon; and the
//! daemon's self-check.

use anyhow::{Context, Result, ensure};
use tests::{Flow, Kind, Node, Options, Pod, until};

use crate::balancing::settled;
use crate::yaml::{service, slice};

pub(crate) const VIP: &str = "10.96.1.1:53";

pub(crate) fn manifest(address: &str) -> String {
    let ports = "{port: 53, protocol: UDP}";
    service("dns", "10.96.1.1", ports, "") + &slice("dns-1", "dns", ports, &[address])
}

/// The client's own calls say that the endpoint is gone: no answer from the old one, and no silence.
pub(crate) fn until_ended(flow: &mut Flow) -> Result<()> {
    until("the socket to be ended", || match flow.exchange()? {
        Err(error) if error == "ECONNABORTED" || error == "EDESTADDRREQ" => Ok(()),
        other => anyhow::bail!("{other:?}"),
    })
}

#[test]
fn scenario_11_connected_sockets_end_with_their_endpoint() {
    Node::run(Options::default(), |node| {
        node.serve("a", &["198.18.0.1"], &[(Kind::Udp, 53)])?;
        node.serve("b", &["198.18.0.2"], &[(Kind::Udp, 53)])?;
        node.write("dns.yaml", &manifest("198.18.0.1"))?;
        settled(node, Kind::Udp, VIP, &["a"])?;
        let pod = Pod::client(node, "t/client")?;
        let words = ["keep", "--udp", VIP];
        let mut flows = [pod.flow(node, &words)?, node.flow(&words)?];
        for flow in &mut flows {
            ensure!(flow.exchange()? == Ok("a".to_owned()), "the flow works");
        }
        let mut direct = pod.flow(node, &["keep", "--udp", "198.18.0.1:53"])?;

        let listed = node.fairway(&["get", "connections"])?.success()?.stdout;
        let of_pod = listed.lines().find(|line| line.contains("t/client")).context("the pod is listed")?;
        for word in ["probe", "UDP", VIP, "t/dns", "198.18.0.1:53"] {
            ensure!(of_pod.contains(word), "{listed}");
        }
        ensure!(listed.matches(VIP).count() == 2, "{listed}");

        node.write("dns.yaml", &manifest("198.18.0.2"))?;
        for flow in &mut flows {
            until_ended(flow)?;
        }
        ensure!(direct.exchange()? == Ok("a".to_owned()), "a socket without a service is nobody's business");
        let ended = node.daemon()?.metric("fairway_proxy_sockets_ended_total", "protocol=\"UDP\"")?;
        ensure!(ended == 2.0, "{ended}");
        node.ask(Kind::Udp, VIP, &["--connected"])?.only_from(&["b"])
    });
}

#[test]
fn without_cap_sys_admin_all_works_but_ending_sockets_of_pods_and_it_is_said_once() {
    let capabilities = "+bpf,+perfmon,+net_admin,+net_bind_service";
    Node::run(Options { capabilities, ..Options::default() }, |node| {
        node.serve("a", &["198.18.0.1"], &[(Kind::Tcp, 53), (Kind::Udp, 53)])?;
        node.serve("b", &["198.18.0.2"], &[(Kind::Udp, 53)])?;
        node.write("dns.yaml", &manifest("198.18.0.1"))?;
        settled(node, Kind::Udp, VIP, &["a"])?;
        let mut flow = node.flow(&["keep", "--udp", VIP])?;
        ensure!(flow.exchange()? == Ok("a".to_owned()), "the flow works");
        node.write("dns.yaml", &manifest("198.18.0.2"))?;
        until_ended(&mut flow)?;
        // The namespace of the node's neighbour is mounted on this machine, and cannot be entered.
        until("the metric to count", || {
            let unseen = node.daemon()?.metric("fairway_proxy_namespaces_unseen", "")?;
            ensure!(unseen >= 1.0, "{unseen}");
            Ok(())
        })?;
        node.write("dns.yaml", &manifest("198.18.0.1"))?;
        settled(node, Kind::Udp, VIP, &["a"])?;
        let said = node.daemon()?.log().matches("needs CAP_SYS_ADMIN").count();
        ensure!(said == 1, "it is said once, not {said} times");
        node.fairway(&["check", "--live"])?.success().map(drop)
    });
}

#[test]
fn scenario_40_what_was_taken_away_is_put_back_and_said() {
    Node::run(Options::default(), |node| {
        node.serve("a", &["198.18.0.1"], &[(Kind::Tcp, 80)])?;
        let text = service("web", "10.96.1.1", "{port: 80}", "")
            + &slice("web-1", "web", "{port: 80}", &["198.18.0.1"]);
        node.write("web.yaml", &text)?;
        settled(node, Kind::Tcp, "10.96.1.1:80", &["a"])?;
        let live = node.fairway(&["check", "--live"])?.success()?.stdout;
        ensure!(live.matches("as it should be").count() == 3, "{live}");

        for hook in ["connect4", "sendmsg6"] {
            std::fs::remove_file(node.bpf_dir().join("v1").join(format!("link_{hook}")))?;
            // On its own: nobody asks for it.
            until("the programs to be put back", || {
                node.ask(Kind::Tcp, "10.96.1.1:80", &["--timeout", "200"])?.only_from(&["a"])?;
                let repairs = node.daemon()?.metric("fairway_proxy_repairs_total", "kind=\"programs\"")?;
                ensure!(repairs >= if hook == "connect4" { 1.0 } else { 2.0 }, "{repairs}");
                Ok(())
            })?;
        }
        let log = node.daemon()?.log();
        ensure!(log.contains("connect4 did not run for the node's sockets"), "it was said");
        ensure!(log.contains("well again"), "and that it is over");
        let live = node.fairway(&["check", "--live"])?.success()?.stdout;
        ensure!(live.matches("as it should be").count() == 3, "{live}");
        Ok(())
    });
}

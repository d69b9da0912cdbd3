//! Clients outside of the cluster, across two nodes and a router: node ports, load-balancer addresses, policies.
//!
//! The packet engine of each node serves them; no rule of nftables translates anything.

use anyhow::{Context, Result, ensure};
use tests::{CLIENT4, CLIENT6, Kind, Place, Pod, until};

use crate::cluster::{
    A4, B4, BALANCER4, Cluster, NODE_PORT, PORTS, balanced, endpoints, node_ports, serve,
    serve_at_node_ports, silent, slices, web,
};
use crate::yaml::slice_of;

#[test]
fn scenario_18_a_local_endpoint_that_ends_still_serves_clients_outside() {
    Cluster::run(Place::Beside, |cluster| {
        serve(cluster)?;
        let ending = format!(
            "{{addresses: [\"{A4}\"], nodeName: node-a, conditions: {{ready: false, serving: true, terminating: true}}}}, \
             {{addresses: [\"{B4}\"], nodeName: node-b}}"
        );
        let policy = "  type: LoadBalancer\n  externalTrafficPolicy: Local\n  healthCheckNodePort: 30999\n";
        cluster.write("web.yaml", &(web(policy) + &slice_of("web-4", "web", PORTS, "IPv4", &ending)))?;
        let [target, _] = node_ports();
        let answers = cluster.settled(Kind::Tcp, &target, &["a"])?;
        ensure!(answers.seen_as.keys().eq([CLIENT4]), "seen as {:?}", answers.seen_as);
        let health = cluster.client.command(&["curl", "-si", "http://192.0.2.10:30999/"])?.success()?.stdout;
        ensure!(health.contains(" 503 ") && health.contains("\"localEndpoints\": 0"), "{health}");
        Ok(())
    });
}

#[test]
fn scenario_19_without_a_local_endpoint_clients_outside_are_dropped() {
    Cluster::run(Place::Beside, |cluster| {
        serve(cluster)?;
        let text = web("  type: NodePort\n  externalTrafficPolicy: Local\n");
        cluster.write("web.yaml", &(text.clone() + &slices(&["node-a", "node-b"])))?;
        let [target, target6] = node_ports();
        cluster.settled(Kind::Tcp, &target, &["a"])?;
        cluster.write("web.yaml", &(text + &slices(&["node-b"])))?;
        for target in [&target, &target6] {
            until("packets to be dropped", || {
                let timeout = ["--timeout", "300"];
                cluster.client.ask(Kind::Tcp, target, &timeout)?.only_error("TimedOut")?;
                cluster.client.ask(Kind::Udp, target, &timeout)?.only_error("timeout")
            })?;
            cluster.first.ask(Kind::Tcp, target, &[])?.only_from(&["b"])?;
        }
        let dropped = cluster.first.daemon()?.metric("fairway_proxy_verdicts_total", "no_local_endpoint")?;
        ensure!(dropped > 0.0, "the drops are counted");
        Ok(())
    });
}

#[test]
fn scenario_20_policy_local_shows_the_server_the_client() {
    Cluster::run(Place::Beside, |cluster| {
        serve(cluster)?;
        let text = web("  type: NodePort\n  externalTrafficPolicy: Local\n");
        cluster.write("web.yaml", &(text + &slices(&["node-a", "node-b"])))?;
        for (target, seen_as) in node_ports().iter().zip([CLIENT4, CLIENT6]) {
            for kind in [Kind::Tcp, Kind::Udp] {
                let answers = cluster.settled(kind, target, &["a"])?;
                ensure!(answers.seen_as.keys().eq([seen_as]), "seen as {:?}", answers.seen_as);
            }
        }
        Ok(())
    });
}

/// A node port of the first node with its only endpoint, a pod, on the second.
fn forwarded(place: Place) {
    Cluster::run(place, |cluster| {
        let pod = Pod::serve(&cluster.second, "t/b", &[], &[("t", Kind::Tcp, 8080), ("u", Kind::Udp, 8080)])?;
        let [four, six] = [false, true].map(|six| pod.addresses.iter().find(|ip| ip.is_ipv6() == six));
        let (four, six) = (four.context("IPv4")?.to_string(), six.context("IPv6")?.to_string());
        let text = web("  type: NodePort\n")
            + &endpoints("web-4", "IPv4", &[(&four, "node-b")])
            + &endpoints("web-6", "IPv6", &[(&six, "node-b")]);
        cluster.write("web.yaml", &text)?;
        let behind = place == Place::Behind;
        // Through a tunnel, an address of the tunnel's device: the node's own would come the wrong way.
        let seen = if behind { ["10.244.1.0", "fd00:244:1::"] } else { ["192.0.2.10", "2001:db8:2::10"] };
        for (target, seen_as) in node_ports().iter().zip(seen) {
            for kind in [Kind::Tcp, Kind::Udp] {
                let answers = cluster.settled(kind, target, &["b"])?;
                ensure!(answers.seen_as.keys().eq([seen_as]), "seen as {:?}", answers.seen_as);
                ensure!(answers.peers.keys().eq([target]), "answered by {:?}", answers.peers);
            }
            let large = ["--bytes", "60000", "--timeout", "3000"];
            cluster.client.ask(Kind::Tcp, target, &large)?.only_from(&["b"])?;
        }
        Ok(())
    });
}

#[test]
fn scenario_21_a_node_port_leads_to_an_endpoint_on_another_node() {
    forwarded(Place::Beside);
}

#[test]
fn scenario_21_a_node_port_leads_through_a_tunnel() {
    forwarded(Place::Behind);
}

#[test]
fn scenario_22_internal_policy_local_is_for_the_cluster_ip_alone() {
    Cluster::run(Place::Beside, |cluster| {
        serve(cluster)?;
        let text = web("  type: NodePort\n  internalTrafficPolicy: Local\n");
        cluster.write("web.yaml", &(text + &slices(&["node-b"])))?;
        let [target, _] = node_ports();
        cluster.settled(Kind::Tcp, &target, &["b"])?;
        let pod = Pod::client(cluster.first, "t/client")?;
        pod.ask(cluster.first, Kind::Tcp, "10.96.1.1:80", &[])?.only_error("EHOSTUNREACH")?;
        pod.ask(cluster.first, Kind::Tcp, &target, &[])?.only_from(&["b"]).map(drop)
    });
}

#[test]
fn scenario_28_source_ranges_guard_the_load_balancer_alone() {
    Cluster::run(Place::Beside, |cluster| {
        serve(cluster)?;
        cluster.client.route("203.0.113.80/32", cluster.first)?;
        let (balancer, [node_port, _]) = (format!("{BALANCER4}:80"), node_ports());
        let ranges = |ranges: &str| {
            balanced("VIP", &format!("  loadBalancerSourceRanges: [{ranges}]\n")) + &slices(&["node-a"])
        };
        cluster.write("web.yaml", &ranges("\"10.0.0.0/8\""))?;
        cluster.settled(Kind::Tcp, &node_port, &["a"])?;
        silent(cluster, &balancer)?;
        let dropped = cluster.first.daemon()?.metric("fairway_proxy_verdicts_total", "source_range")?;
        ensure!(dropped > 0.0, "the drops are counted");
        for open in ["\"10.0.0.0/8\", \" 198.51.100.0/24 \"", "\"0.0.0.0/0\""] {
            cluster.write("web.yaml", &ranges(open))?;
            cluster.settled(Kind::Tcp, &balancer, &["a"])?;
            cluster.write("web.yaml", &ranges("\"10.0.0.0/8\""))?;
            silent(cluster, &balancer)?;
        }
        Ok(())
    });
}

#[test]
fn scenario_29_an_address_of_mode_proxy_is_not_captured() {
    Cluster::run(Place::Beside, |cluster| {
        serve(cluster)?;
        cluster.client.route("203.0.113.80/32", cluster.first)?;
        let target = format!("{BALANCER4}:80");
        cluster.write("web.yaml", &(balanced("VIP", "") + &slices(&["node-a"])))?;
        cluster.settled(Kind::Tcp, &target, &["a"])?;
        cluster.write("web.yaml", &(balanced("Proxy", "") + &slices(&["node-a"])))?;
        silent(cluster, &target)?;
        cluster.settled(Kind::Tcp, &node_ports()[0], &["a"])?;
        cluster.write("web.yaml", &(balanced("VIP", "") + &slices(&["node-a"])))?;
        cluster.settled(Kind::Tcp, &target, &["a"]).map(drop)
    });
}

#[test]
fn scenario_30_a_service_changes_its_type() {
    Cluster::run(Place::Beside, |cluster| {
        serve(cluster)?;
        for range in ["203.0.113.80/32", "10.96.0.0/16"] {
            cluster.client.route(range, cluster.first)?;
        }
        let (inside, balancer) = ("10.96.1.1:80", format!("{BALANCER4}:80"));
        let [node_port, _] = node_ports();
        let cluster_ip = web("").replace(&format!(", nodePort: {NODE_PORT}"), "");
        let external = "apiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: t}\n\
                        spec: {type: ExternalName, externalName: a.example.com}\n---\n"
            .to_owned();
        let steps = [
            (cluster_ip.clone(), [true, false, false]),
            (web("  type: NodePort\n"), [true, true, false]),
            (balanced("VIP", ""), [true, true, true]),
            (external, [false, false, false]),
            (cluster_ip, [true, false, false]),
        ];
        for (text, answers) in steps {
            cluster.write("web.yaml", &(text + &slices(&["node-a"])))?;
            for (target, answers) in [inside, &node_port, &balancer].into_iter().zip(answers) {
                if answers {
                    cluster.settled(Kind::Tcp, target, &["a"])?;
                } else {
                    silent(cluster, target)?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn scenario_41_fragments_arrive_whole() {
    for on in ["node-a", "node-b"] {
        Cluster::run(Place::Beside, |cluster| {
            let (targets, name) = serve_at_node_ports(cluster, on, Kind::Udp)?;
            for target in &targets {
                // Four fragments there, and four back.
                let large = ["--bytes", "5000", "--count", "20"];
                cluster.client.ask(Kind::Udp, target, &large)?.only_from(&[name])?;
            }
            Ok(())
        });
    }
}

#[test]
fn scenario_41_fragments_in_reversed_order_arrive_whole() {
    for on in ["node-a", "node-b"] {
        Cluster::run(Place::Beside, |cluster| {
            let (targets, _) = serve_at_node_ports(cluster, on, Kind::Udp)?;
            for target in &targets {
                for bytes in ["1500", "5000", "50000"] {
                    let line =
                        cluster.client.background(&["fragments", target, "--bytes", bytes])?.read_line()?;
                    ensure!(line.contains(&format!(":{bytes}}}")), "{target}, {bytes} bytes: {line}");
                }
            }
            let held = cluster.first.daemon()?.metric("fairway_proxy_verdicts_total", "fragment_held")?;
            ensure!(held >= 90.0, "{held} fragments waited for the first of their datagram");
            Ok(())
        });
    }
}

#[test]
fn scenario_42_packets_that_are_too_big_are_told_of_in_both_directions() {
    Cluster::run(Place::Beside, |cluster| {
        let pod = Pod::serve(&cluster.second, "t/b", &[], &[("t", Kind::Tcp, 8080), ("u", Kind::Udp, 8080)])?;
        let [four, six] = [false, true].map(|six| pod.addresses.iter().find(|ip| ip.is_ipv6() == six));
        let (four, six) = (four.context("IPv4")?.to_string(), six.context("IPv6")?.to_string());
        let text = web("  type: NodePort\n")
            + &endpoints("web-4", "IPv4", &[(&four, "node-b")])
            + &endpoints("web-6", "IPv6", &[(&six, "node-b")]);
        cluster.write("web.yaml", &text)?;
        for target in &node_ports() {
            cluster.settled(Kind::Tcp, target, &["b"])?;
        }
        // Beyond the node: the other node's link to the pod. On the client's side: the router's link to it.
        let route = cluster.second.command(&["ip", "-o", "route", "get", &four])?.success()?.stdout;
        let link = route.split_whitespace().skip_while(|word| *word != "dev").nth(1).context("a link")?;
        cluster.second.command(&["ip", "link", "set", link, "mtu", "1400"])?.success()?;
        cluster.client.narrow("1300")?;
        let before = cluster.first.daemon()?.metric("fairway_proxy_verdicts_total", "error_translated")?;
        for target in &node_ports() {
            let large = ["--bytes", "60000", "--timeout", "10000"];
            cluster.client.ask(Kind::Tcp, target, &large)?.only_from(&["b"])?;
        }
        let after = cluster.first.daemon()?.metric("fairway_proxy_verdicts_total", "error_translated")?;
        // Each error in each direction passes the engine twice, in two families.
        ensure!(after - before >= 8.0, "{} errors were translated", after - before);
        Ok(())
    });
}

#[test]
fn scenario_43_flows_beyond_the_ports_are_counted_and_none_is_mixed_up() {
    Cluster::run(Place::Beside, |cluster| {
        let ([target, _], _) = serve_at_node_ports(cluster, "node-b", Kind::Udp)?;
        let mut flow = cluster.client.flow(&["keep", &target])?;
        cluster.client.also("198.51.100.8")?;
        let words = ["flood", &target, "--from", CLIENT4, "--from", "198.51.100.8", "--count", "70000"];
        let line = cluster.client.background(&words)?.read_line()?;
        let count = |key: &str| -> Result<u64> {
            let (_, rest) = line.split_once(&format!("\"{key}\":")).context("a count")?;
            Ok(rest.split([',', '}']).next().unwrap_or_default().parse()?)
        };
        let (answered, unanswered) = (count("answered")?, count("unanswered")?);
        ensure!(count("mixed")? == 0, "flows are mixed up: {line}");
        // As many as there are ports that the host leaves.
        ensure!(answered > 25_000 && answered + unanswered == 70_000, "{line}");
        let exhausted = cluster.first.daemon()?.metric("fairway_proxy_verdicts_total", "ports_exhausted")?;
        ensure!(exhausted > 0.0, "exhaustion is counted");
        ensure!(flow.exchange()? == Ok("b".to_owned()), "a connection from before lives on");
        Ok(())
    });
}

/// Says how many first packets make the flood.
const SYNS: &str = "FAIRWAY_SYNS";
/// More than the table of such flows holds.
const FULL: &str = "100000";

#[test]
fn scenario_43_a_flood_of_first_packets_leaves_connections_alone_and_is_counted() {
    endure_flood("node-a");
}

#[test]
fn scenario_43_a_flood_towards_a_backend_elsewhere_takes_ports_and_keeps_nobody_out() {
    endure_flood("node-b");
}

fn endure_flood(on: &str) {
    Cluster::run(Place::Beside, |cluster| {
        let ([target, _], name) = serve_at_node_ports(cluster, on, Kind::Tcp)?;
        let mut tcp = cluster.client.flow(&["keep", &target])?;
        let mut udp = cluster.client.flow(&["keep", "--udp", &target])?;
        ensure!(tcp.exchange()? == Ok(name.to_owned()) && udp.exchange()? == Ok(name.to_owned()));
        // Answers to addresses of nobody end at the client, which drops them.
        let count = std::env::var(SYNS).unwrap_or_else(|_| FULL.to_owned());
        cluster.client.receive("198.51.100.128/26")?;
        let counted = |cluster: &mut Cluster<'_>| -> Result<[f64; 2]> {
            let daemon = cluster.first.daemon()?;
            let metric = |reason| daemon.metric("fairway_proxy_verdicts_total", reason);
            Ok([metric("flow_begun")?, metric("flow_known")?])
        };
        let before = counted(cluster)?;
        let words = ["syns", &target, "--from", "198.51.100.128", "--count", &count];
        cluster.client.background(&words)?.read_line()?;
        let after = counted(cluster)?;
        let [begun, known] = [0, 1].map(|which| after[which] - before[which]);
        ensure!(begun > count.parse::<f64>()? * 0.9, "{begun} of {count} flows are counted");
        ensure!(known < 10.0, "nobody answered, and yet {known} flows are known to both ends");
        for _ in 0..3 {
            ensure!(tcp.exchange()? == Ok(name.to_owned()), "a connection from before lives on");
            ensure!(udp.exchange()? == Ok(name.to_owned()), "a flow from before lives on");
        }
        cluster.client.ask(Kind::Tcp, &target, &[])?.only_from(&[name])
    });
}

#[test]
fn scenario_44_one_client_port_through_two_addresses_is_two_flows() {
    Cluster::run(Place::Beside, |cluster| {
        serve(cluster)?;
        cluster.client.route("203.0.113.80/32", cluster.first)?;
        let policy = "  externalTrafficPolicy: Local\n  healthCheckNodePort: 30999\n";
        cluster.write("web.yaml", &(balanced("VIP", policy) + &slices(&["node-a"])))?;
        let (balancer, [node_port, _]) = (format!("{BALANCER4}:80"), node_ports());
        for target in [&balancer, &node_port] {
            cluster.settled(Kind::Udp, target, &["a"])?;
        }
        let words = |target: &str| ["keep", "--udp", "--local-port", "40001", target].map(str::to_owned);
        let flow = |target: &str| cluster.client.flow(&words(target).each_ref().map(String::as_str));
        let (mut one, mut other) = (flow(&balancer)?, flow(&node_port)?);
        for _ in 0..3 {
            ensure!(one.exchange()? == Ok("a".to_owned()), "the flow through the load balancer's address");
            ensure!(other.exchange()? == Ok("a".to_owned()), "the flow through the node port");
        }
        Ok(())
    });
}

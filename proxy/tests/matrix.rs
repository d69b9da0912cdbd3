//! The whole matrix of R3 to R6: who dials which kind of address under which policies, with and without an
//! endpoint on this node, gets which endpoints, is refused or left without an answer, and is seen as whom.
//!
//! Whether the packets of pods are rewritten when they leave the cluster is no input of any of it: a pod's socket
//! is translated when it connects, so its packets go to an endpoint and carry the pod's own address.

use expect_test::{Expect, expect};
use model::testing::{endpoint, ip, service, slice, snapshot};
use model::{Object, Protocol, TrafficPolicy};
use proxy::{Client, Decision, Facts, Frontend, Planner, Source, Tables, decide};

const KINDS: [(&str, &str, u16); 4] = [
    ("ClusterIP", "10.96.0.5", 80),
    ("NodePort", "192.0.2.1", 30080),
    ("load balancer", "203.0.113.5", 80),
    ("external IP", "198.51.100.5", 80),
];
const CLIENTS: [(&str, Client); 3] =
    [("pod", Client::Pod), ("node", Client::Node), ("outside", Client::Outside)];
const POLICIES: [TrafficPolicy; 2] = [TrafficPolicy::Cluster, TrafficPolicy::Local];

/// Which endpoints there are.
#[derive(Clone, Copy, Debug)]
enum Endpoints {
    HereAndThere,
    OnlyThere,
    None,
}

fn tables(internal: TrafficPolicy, external: TrafficPolicy, endpoints: Endpoints) -> Tables {
    let facts = Facts {
        name: "a".into(),
        zone: None,
        addresses: vec![ip("192.0.2.1")],
        node_port_addresses: vec![ip("192.0.2.1")],
        cluster_dns: vec![ip("10.96.0.10")],
    };
    let mut web = service("shop/web", &["10.96.0.5"]).port("80/TCP:30080").load_balancer_ip("203.0.113.5");
    web.external_ips = vec![ip("198.51.100.5")];
    (web.traffic.internal, web.traffic.external) = (internal, external);
    let mut slice = slice("web-1", "shop/web").port("8080/TCP");
    if matches!(endpoints, Endpoints::HereAndThere) {
        slice = slice.with(endpoint("10.244.0.2").on("a"));
    }
    if matches!(endpoints, Endpoints::HereAndThere | Endpoints::OnlyThere) {
        slice = slice.with(endpoint("10.244.1.2").on("b"));
    }
    let objects: [Object; 2] = [web.into(), slice.into()];
    Planner::new(facts.clone()).update(&snapshot(objects), &facts).clone()
}

/// `here+there`, and `as node` where that is what the endpoint sees.
fn cell(decision: &Decision) -> String {
    let place = |address: String| if address == "10.244.0.2" { "here" } else { "there" };
    match decision {
        Decision::Untouched => "untouched".to_owned(),
        Decision::Here => "daemon".to_owned(),
        Decision::Refused => "refused".to_owned(),
        Decision::Unreachable => "unreachable".to_owned(),
        Decision::Balanced(slots, source) => {
            let places: Vec<&str> = slots.iter().map(|slot| place(slot.ip.to_string())).collect();
            let seen = match source {
                Source::Kept => "",
                Source::Node => " as node",
            };
            places.join("+") + seen
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "reads better at the call")]
fn check(endpoints: Endpoints, expected: Expect) {
    let mut text = format!("{:16} {:8}", "internal/external", "from");
    KINDS.iter().for_each(|(kind, ..)| text.push_str(&format!(" {kind:20}")));
    text.push('\n');
    for internal in POLICIES {
        for external in POLICIES {
            let tables = tables(internal, external, endpoints);
            for (who, client) in CLIENTS {
                text.push_str(&format!("{:17} {who:8}", format!("{internal:?}/{external:?}")));
                for (_, address, port) in KINDS {
                    let decision = decide(&tables, &Frontend::new(ip(address), port, Protocol::Tcp), client);
                    text.push_str(&format!(" {:20}", cell(&decision)));
                }
                text.push('\n');
            }
        }
    }
    let text: String = text.lines().map(|line| line.trim_end().to_owned() + "\n").collect();
    expected.assert_eq(&text);
}

#[test]
fn with_an_endpoint_here_and_one_elsewhere() {
    check(
        Endpoints::HereAndThere,
        expect![[r#"
        internal/external from     ClusterIP            NodePort             load balancer        external IP
        Cluster/Cluster   pod      here+there           here+there           here+there           here+there
        Cluster/Cluster   node     here+there           here+there           here+there           here+there
        Cluster/Cluster   outside  here+there as node   here+there as node   here+there as node   here+there as node
        Cluster/Local     pod      here+there           here+there           here+there           here+there
        Cluster/Local     node     here+there           here+there           here+there           here+there
        Cluster/Local     outside  here+there as node   here                 here                 here
        Local/Cluster     pod      here                 here+there           here+there           here+there
        Local/Cluster     node     here                 here+there           here+there           here+there
        Local/Cluster     outside  here as node         here+there as node   here+there as node   here+there as node
        Local/Local       pod      here                 here+there           here+there           here+there
        Local/Local       node     here                 here+there           here+there           here+there
        Local/Local       outside  here as node         here                 here                 here
    "#]],
    );
}

#[test]
fn scenario_19_and_22_with_endpoints_only_elsewhere() {
    check(
        Endpoints::OnlyThere,
        expect![[r#"
        internal/external from     ClusterIP            NodePort             load balancer        external IP
        Cluster/Cluster   pod      there                there                there                there
        Cluster/Cluster   node     there                there                there                there
        Cluster/Cluster   outside  there as node        there as node        there as node        there as node
        Cluster/Local     pod      there                there                there                there
        Cluster/Local     node     there                there                there                there
        Cluster/Local     outside  there as node        unreachable          unreachable          unreachable
        Local/Cluster     pod      unreachable          there                there                there
        Local/Cluster     node     unreachable          there                there                there
        Local/Cluster     outside  unreachable          there as node        there as node        there as node
        Local/Local       pod      unreachable          there                there                there
        Local/Local       node     unreachable          there                there                there
        Local/Local       outside  unreachable          unreachable          unreachable          unreachable
    "#]],
    );
}

#[test]
fn scenario_08_without_endpoints_every_address_refuses_everybody() {
    check(
        Endpoints::None,
        expect![[r#"
        internal/external from     ClusterIP            NodePort             load balancer        external IP
        Cluster/Cluster   pod      refused              refused              refused              refused
        Cluster/Cluster   node     refused              refused              refused              refused
        Cluster/Cluster   outside  refused              refused              refused              refused
        Cluster/Local     pod      refused              refused              refused              refused
        Cluster/Local     node     refused              refused              refused              refused
        Cluster/Local     outside  refused              refused              refused              refused
        Local/Cluster     pod      refused              refused              refused              refused
        Local/Cluster     node     refused              refused              refused              refused
        Local/Cluster     outside  refused              refused              refused              refused
        Local/Local       pod      refused              refused              refused              refused
        Local/Local       node     refused              refused              refused              refused
        Local/Local       outside  refused              refused              refused              refused
    "#]],
    );
}

#[test]
fn a_node_port_on_loopback_is_for_the_node_alone() {
    let tables = tables(TrafficPolicy::Cluster, TrafficPolicy::Local, Endpoints::OnlyThere);
    let loopback = Frontend::new(ip("127.0.0.1"), 30080, Protocol::Tcp);
    assert_eq!(cell(&decide(&tables, &loopback, Client::Node)), "there");
    assert_eq!(cell(&decide(&tables, &loopback, Client::Pod)), "untouched");
}

#[test]
fn other_ports_refuse_on_a_cluster_ip_and_are_nobodys_elsewhere() {
    let tables = tables(TrafficPolicy::Cluster, TrafficPolicy::Cluster, Endpoints::HereAndThere);
    for (who, client) in CLIENTS {
        let cells = KINDS.map(|(_, address, port)| {
            cell(&decide(&tables, &Frontend::new(ip(address), port + 1, Protocol::Tcp), client))
        });
        assert_eq!(cells, ["refused", "untouched", "untouched", "untouched"], "from {who}");
    }
}

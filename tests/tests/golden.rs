//! Golden scenarios: YAML in, in steps; problems, tables and zone out, as the whole pure core computes them.
//!
//! `golden/NAME.yaml` has the steps, `golden/NAME.txt` what comes out; `UPDATE_EXPECT=1` writes the latter anew.
//! After every step the result must also be that of a fresh start: there is one path.

#![expect(clippy::unwrap_used, reason = "a golden file that is wrong must fail at once")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use dns::{DomainName, Names, ZoneConfig};
use fairway::source::manifests;
use model::{Cluster, Event, Snapshot};
use proxy::{Facts, Planner};
use sandbox::{ContainerPort, PodId, Record};

/// One step: the manifests and the running pods from then on.
struct Step {
    title: String,
    yaml: String,
    pods: Vec<Record>,
}

macro_rules! golden {
    ($($name:ident),* $(,)?) => {
        $(#[test] fn $name() { check(stringify!($name)); })*

        #[test]
        fn every_file_has_a_test() {
            let files = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
            let yaml: BTreeSet<String> = files
                .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
                .map(|path| path.file_stem().unwrap().to_string_lossy().into_owned())
                .collect();
            let tested: BTreeSet<String> = [$(stringify!($name)),*].map(str::to_owned).into();
            assert_eq!(yaml, tested);
        }
    };
}

golden! {
    affinity,
    broken_manifests,
    claimed_twice,
    contradictions,
    external_ips,
    external_name,
    hand_written_endpoints,
    headless,
    local_policy,
    maximal_names,
    named_target_port,
    node_port,
    scale_to_zero,
    scenario_09_10_11_12_endpoints_come_and_go,
    scenario_16_17_terminating,
    scenario_18_19_20_external_policy_local,
    scenario_21_22_internal_policy_local,
    scenario_23_health_ports,
    scenario_24_hints,
    scenario_28_source_ranges,
    scenario_29_ip_mode,
    scenario_30_type_changes,
    scenario_31_swap,
    scenario_32_left_alone,
    scenario_33_dual_stack,
    slices_merge,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden")
}

fn check(name: &str) {
    let yaml = std::fs::read_to_string(folder().join(format!("{name}.yaml"))).unwrap();
    let mut cluster = Cluster::new();
    let mut planner = Planner::new(facts());
    let mut names = Names::new(zone_config());
    let mut out = String::new();
    for step in steps(&yaml) {
        let (events, problems) = manifests::load_texts(&[("a.yaml", &step.yaml)], &step.pods, &completed());
        let fresh = fresh(&events);
        events.into_iter().for_each(|event| cluster.apply(event));
        let snapshot = cluster.snapshot();
        let tables = only_ours(&planner.update(&snapshot, &facts()).dump());
        names.forget(&snapshot);
        names.learn(&snapshot, &BTreeSet::new());
        let zone = only_ours(&names.reader().zone().dump());
        assert_eq!((&tables, &zone), (&fresh.0, &fresh.1), "{name}, {}: a fresh start differs", step.title);

        writeln!(out, "== {}", step.title).unwrap();
        for problem in problems {
            writeln!(out, "problem: {problem}").unwrap();
        }
        for conflict in planner.conflicts() {
            let proxy::Conflict { frontend, winner, loser } = conflict;
            writeln!(out, "conflict: {frontend} is {winner}'s, not {loser}'s").unwrap();
        }
        for (name, port) in planner.health_ports() {
            writeln!(out, "health port {} {name}: {} here", port.port, port.local).unwrap();
        }
        writeln!(out, "{tables}\n{zone}").unwrap();
    }
    expect_test::expect_file![folder().join(format!("{name}.txt"))].assert_eq(&out);
}

/// Tables and zone of a start with nothing known.
fn fresh(events: &[Event]) -> (String, String) {
    let mut cluster = Cluster::new();
    events.iter().cloned().for_each(|event| cluster.apply(event));
    let snapshot: Arc<Snapshot> = cluster.snapshot();
    let tables = Planner::new(facts()).update(&snapshot, &facts()).dump();
    let mut names = Names::new(zone_config());
    names.learn(&snapshot, &BTreeSet::new());
    (only_ours(&tables), only_ours(&names.reader().zone().dump()))
}

/// Without what every cluster has: its own two services, the zone's apex, and the serial, which counts changes.
fn only_ours(dump: &str) -> String {
    let services =
        ["default/kubernetes", "kube-system/kube-dns", "kubernetes.default", "kube-dns.kube-system"];
    let addresses = ["frontend 10.96.0.1 ", "frontend 10.96.0.10 "];
    let apex = [" SOA ", "ns.dns.", "dns-version"];
    let foreign: Vec<&str> = services.into_iter().chain(addresses).chain(apex).collect();
    dump.lines()
        .filter(|line| !foreign.iter().any(|word| line.contains(word)))
        .fold(String::new(), |text, line| text + line + "\n")
}

fn facts() -> Facts {
    Facts {
        name: "node-a".into(),
        zone: Some("zone-a".into()),
        addresses: vec![model::testing::ip("192.0.2.10"), model::testing::ip("2001:db8:2::10")],
        node_port_addresses: vec![model::testing::ip("192.0.2.10"), model::testing::ip("2001:db8:2::10")],
        cluster_dns: vec![model::testing::ip("10.96.0.10")],
    }
}

fn zone_config() -> ZoneConfig {
    ZoneConfig {
        ttl: 5,
        reverse: ["10.96.0.0/16", "fd00:96::/112", "10.244.0.0/16"]
            .map(|range| range.parse().unwrap())
            .to_vec(),
        servers: vec![model::testing::ip("10.96.0.10")],
        ..ZoneConfig::new(DomainName::parse("cluster.local").unwrap())
    }
}

fn completed() -> manifests::Cluster {
    manifests::Cluster {
        service_cidrs: ["10.96.0.0/16", "fd00:96::/112"].map(|range| range.parse().unwrap()).to_vec(),
        cluster_dns: None,
        node: model::testing::node("node-a", &["192.0.2.10", "2001:db8:2::10"]),
    }
}

/// `# step: TITLE` begins a step, `# pod: ...` in it is a running pod; the rest is YAML.
fn steps(text: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("# step: ") {
            steps.push(Step { title: title.to_owned(), yaml: String::new(), pods: Vec::new() });
        } else if let Some(step) = steps.last_mut() {
            match line.strip_prefix("# pod: ") {
                Some(pod) => step.pods.push(record(pod)),
                None => step.yaml.extend([line, "\n"]),
            }
        }
    }
    assert!(!steps.is_empty(), "no step");
    steps
}

/// `shop/web-1 10.244.0.5 app=web http:8080/TCP host=db-0.db not-ready terminating`, in any order after the name.
fn record(text: &str) -> Record {
    let mut words = text.split_whitespace();
    let (namespace, name) = words.next().unwrap().split_once('/').unwrap();
    let mut record = Record {
        pod: PodId { namespace: namespace.to_owned(), name: name.to_owned() },
        labels: BTreeMap::new(),
        addresses: Vec::new(),
        ports: Vec::new(),
        hostname: None,
        subdomain: None,
        host_network: false,
        ready: true,
        terminating: false,
        pause: 1,
    };
    for word in words {
        if word == "not-ready" {
            record.ready = false;
        } else if word == "terminating" {
            record.terminating = true;
        } else if let Some(host) = word.strip_prefix("host=") {
            let (hostname, subdomain) = host.split_once('.').unwrap();
            record.hostname = Some(hostname.to_owned());
            record.subdomain = Some(subdomain.to_owned());
        } else if let Some((key, value)) = word.split_once('=') {
            record.labels.insert(key.to_owned(), value.to_owned());
        } else if let Ok(address) = word.parse() {
            record.addresses.push(address);
        } else {
            record.ports.push(port(word));
        }
    }
    record
}

fn port(word: &str) -> ContainerPort {
    let (name, rest) = word.split_once(':').unwrap();
    let (number, protocol) = rest.split_once('/').unwrap();
    let value = serde_json::json!({
        "name": name, "containerPort": number.parse::<u16>().unwrap(), "protocol": protocol,
    });
    serde_json::from_value(value).unwrap()
}

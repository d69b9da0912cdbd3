//! Why an endpoint is in or out and which rule holds for an address, in words: for `fairway explain` and `fairway
//! plan`, which must not tell two stories. Pure.

use std::net::{IpAddr, SocketAddr};

use model::{IngressMode, Service, Snapshot, TrafficPolicy};
use proxy::{Explained, Facts, Planner, Tables, endpoints};

/// Conditions, zone and hints of an endpoint.
pub(super) fn facts(endpoint: &Explained) -> String {
    let conditions = endpoint.conditions;
    let mut words = vec![if conditions.ready { "ready" } else { "not ready" }.to_owned()];
    if !conditions.serving {
        words.push("not serving".to_owned());
    }
    if conditions.terminating {
        words.push(if conditions.serving { "terminating, serving" } else { "terminating" }.to_owned());
    }
    words.extend(endpoint.zone.as_ref().map(|zone| format!("in {zone}")));
    if let Some(hints) = &endpoint.hints {
        let list = |names: &[model::Name]| names.iter().map(|name| &**name).collect::<Vec<_>>().join(", ");
        if !hints.zones.is_empty() {
            words.push(format!("for zones {}", list(&hints.zones)));
        }
        if !hints.nodes.is_empty() {
            words.push(format!("for nodes {}", list(&hints.nodes)));
        }
    }
    words.join(", ")
}

/// What kind of address of the service `ip` is, and which policy and ranges hold for it.
pub(super) fn rule(service: &Service, ip: IpAddr) -> String {
    let word = |policy| match policy {
        TrafficPolicy::Cluster => "Cluster",
        TrafficPolicy::Local => "Local",
    };
    let external = format!("externalTrafficPolicy {}, for clients outside", word(service.traffic.external));
    if service.cluster_ips().contains(&ip) {
        return format!("cluster IP: internalTrafficPolicy {}", word(service.traffic.internal));
    }
    let balancer = &service.load_balancer;
    if let Some(found) = balancer.ips.iter().find(|found| found.ip == ip) {
        if found.mode == IngressMode::Proxy {
            return "load-balancer IP with ipMode Proxy: left to the load balancer".to_owned();
        }
        let ranges: Vec<String> = balancer.source_ranges.iter().map(ToString::to_string).collect();
        let guard =
            if ranges.is_empty() { String::new() } else { format!("; only from {}", ranges.join(", ")) };
        return format!("load-balancer IP: {external}{guard}");
    }
    if service.external_ips.contains(&ip) {
        return format!("external IP: {external}");
    }
    format!("node port: {external}")
}

/// Every service port with every endpoint and why it is in or out; health ports; what is left out and why.
pub fn reasons(planner: &Planner, tables: &Tables, snapshot: &Snapshot, node: &Facts) -> String {
    let mut text = String::new();
    for key in tables.services.keys() {
        let Some(member) = snapshot.services.get(&key.name) else { continue };
        text.push_str(&format!("why {key}\n"));
        for endpoint in endpoints(member, key, node).iter().filter(|endpoint| !endpoint.other_family) {
            let address = SocketAddr::new(endpoint.ip, endpoint.port);
            let node = endpoint.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
            let cluster = endpoint.cluster.as_str();
            let line = format!("  {address}{node} ({}): {cluster}", facts(endpoint));
            text.push_str(&line);
            if endpoint.local != endpoint.cluster {
                text.push_str(&format!("; for policy Local {}", endpoint.local.as_str()));
            }
            text.push('\n');
        }
    }
    for member in snapshot.services.values() {
        for found in &member.service.load_balancer.ips {
            let (name, rule) = (&member.service.name, rule(&member.service, found.ip));
            text.push_str(&format!("address {} {name}: {rule}\n", found.ip));
        }
    }
    for (name, port) in planner.health_ports() {
        text.push_str(&format!("health port {} {name}: {} ready here\n", port.port, port.local));
    }
    for conflict in planner.conflicts() {
        let proxy::Conflict { frontend, winner, loser } = conflict;
        text.push_str(&format!("claimed twice {frontend}: {winner} has it, {loser} does not\n"));
    }
    for (reason, count) in planner.skipped().iter().filter(|(_, count)| **count > 0) {
        text.push_str(&format!("not programmed, {}: {count}\n", reason.as_str()));
    }
    for name in planner.sctp() {
        text.push_str(&format!("not programmed, SCTP: {name}\n"));
    }
    text
}

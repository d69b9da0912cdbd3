//! What `fairway explain` and `fairway plan` say of every endpoint, and why: readiness, serving, terminating,
//! zone, node and policy, as texts. The planner and the zone behind them are the daemon's own.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::collections::BTreeSet;
use std::sync::Arc;

use dns::{DomainName, Names, ZoneConfig};
use expect_test::{Expect, expect};
use fairway::step::Progress;
use fairway::views::explain::{Request, explain, text};
use fairway::views::standing::reasons;
use model::testing::{endpoint, ip, service, slice, snapshot};
use model::{Endpoint, Hints, Location, Object, Snapshot, TrafficPolicy};
use proxy::{Facts, Planner};

fn facts() -> Facts {
    Facts {
        name: "a".into(),
        zone: Some("z1".into()),
        addresses: vec![ip("192.0.2.10")],
        node_port_addresses: vec![ip("192.0.2.10")],
        cluster_dns: Vec::new(),
    }
}

/// Where `target` leads for a client of this node, or for the one at `from`.
fn check(objects: impl IntoIterator<Item = Object>, target: &str, from: Option<&str>, expected: &Expect) {
    let snapshot = snapshot(objects);
    let mut planner = Planner::new(facts());
    let tables = planner.update(&snapshot, &facts()).clone();
    let progress = Progress { snapshot, tables, facts: Some(facts()), ..Progress::default() };
    let names = names(&progress.snapshot);
    let request = Request::parse(target, from).unwrap();
    let explained = explain(&progress, &names.reader().zone(), &[], &request).unwrap();
    expected.assert_eq(&text(&explained));
}

fn names(snapshot: &Arc<Snapshot>) -> Names {
    let mut names = Names::new(ZoneConfig::new(DomainName::parse("cluster.local").unwrap()));
    names.learn(snapshot, &BTreeSet::new());
    names
}

fn placed(address: &str, node: &str, zone: &str, pod: &str) -> Endpoint {
    let location = Location::new(Some(node.into()), Some(zone.into()));
    Endpoint { location, pod: Some(pod.into()), ..endpoint(address) }
}

fn hinted(endpoint: Endpoint, zones: &[&str], nodes: &[&str]) -> Endpoint {
    let names = |texts: &[&str]| texts.iter().map(|&text| text.into()).collect();
    Endpoint { hints: Some(Arc::new(Hints { zones: names(zones), nodes: names(nodes) })), ..endpoint }
}

/// A node port service with these endpoints.
fn web(endpoints: impl IntoIterator<Item = Endpoint>) -> [Object; 2] {
    let mut slice = slice("web-1", "shop/web").port("8080/TCP");
    slice.endpoints.extend(endpoints);
    [service("shop/web", &["10.96.0.5"]).port("80/TCP:30080").into(), slice.into()]
}

#[test]
fn ready_not_ready_and_terminating() {
    check(
        web([
            placed("10.244.0.1", "a", "z1", "web-here"),
            placed("10.244.1.1", "b", "z2", "web-there"),
            placed("10.244.0.2", "a", "z1", "web-new").not_ready(),
            placed("10.244.0.3", "a", "z1", "web-old").terminating(true),
            placed("10.244.0.4", "a", "z1", "web-dead").terminating(false),
            endpoint("fd00::1"),
        ]),
        "web.shop:80",
        None,
        &expect![[r#"
            from this node
            name web.shop.default.svc.cluster.local.
              does not exist
            name web.shop.svc.cluster.local.
              A 10.96.0.5
            frontend 10.96.0.5:80/TCP -> shop/web:/TCP/v4
              cluster IP: internalTrafficPolicy Cluster
              10.244.0.1:8080 pod shop/web-here on a (ready, in z1): in: ready
              10.244.0.2:8080 pod shop/web-new on a (not ready, not serving, in z1): out: not ready
              10.244.0.3:8080 pod shop/web-old on a (not ready, terminating, serving, in z1): out: terminating, and others are ready
              10.244.0.4:8080 pod shop/web-dead on a (not ready, not serving, terminating, in z1): out: not ready
              10.244.1.1:8080 pod shop/web-there on b (ready, in z2): in: ready
              [fd00::1]:8080 (ready): out: of the other family
              one of 2, at random for each connection; it sees the client's own address
            1 frontend, 2 usable endpoints
        "#]],
    );
}

#[test]
fn the_last_ones_serve_while_they_terminate() {
    check(
        web([
            placed("10.244.0.3", "a", "z1", "web-old").terminating(true),
            placed("10.244.0.4", "b", "z2", "web-dead").terminating(false),
        ]),
        "10.96.0.5:80",
        None,
        &expect![[r#"
            from this node
            frontend 10.96.0.5:80/TCP -> shop/web:/TCP/v4
              cluster IP: internalTrafficPolicy Cluster
              10.244.0.3:8080 pod shop/web-old on a (not ready, terminating, serving, in z1): in: terminating but serving, and none is ready
              10.244.0.4:8080 pod shop/web-dead on b (not ready, not serving, terminating, in z2): out: not ready
              the one endpoint; it sees the client's own address
            1 frontend, 1 usable endpoint
        "#]],
    );
}

#[test]
fn hints_of_zones_and_of_nodes() {
    check(
        web([
            hinted(placed("10.244.0.1", "a", "z1", "near"), &["z1"], &[]),
            hinted(placed("10.244.1.1", "b", "z2", "far"), &["z2", "z3"], &[]),
        ]),
        "10.96.0.5:80",
        None,
        &expect![[r#"
            from this node
            frontend 10.96.0.5:80/TCP -> shop/web:/TCP/v4
              cluster IP: internalTrafficPolicy Cluster
              10.244.0.1:8080 pod shop/near on a (ready, in z1, for zones z1): in: ready
              10.244.1.1:8080 pod shop/far on b (ready, in z2, for zones z2, z3): out: hinted to another zone or node
              the one endpoint; it sees the client's own address
            1 frontend, 1 usable endpoint
        "#]],
    );
    check(
        web([
            hinted(placed("10.244.0.1", "a", "z1", "here"), &["z1"], &["a"]),
            hinted(placed("10.244.1.1", "b", "z1", "there"), &["z1"], &["b"]),
        ]),
        "10.96.0.5:80",
        None,
        &expect![[r#"
            from this node
            frontend 10.96.0.5:80/TCP -> shop/web:/TCP/v4
              cluster IP: internalTrafficPolicy Cluster
              10.244.0.1:8080 pod shop/here on a (ready, in z1, for zones z1, for nodes a): in: ready
              10.244.1.1:8080 pod shop/there on b (ready, in z1, for zones z1, for nodes b): out: hinted to another zone or node
              the one endpoint; it sees the client's own address
            1 frontend, 1 usable endpoint
        "#]],
    );
    // One without a hint: the filter is off.
    check(
        web([
            hinted(placed("10.244.0.1", "a", "z1", "near"), &["z1"], &[]),
            placed("10.244.1.1", "b", "z2", "plain"),
        ]),
        "10.96.0.5:80",
        None,
        &expect![[r#"
            from this node
            frontend 10.96.0.5:80/TCP -> shop/web:/TCP/v4
              cluster IP: internalTrafficPolicy Cluster
              10.244.0.1:8080 pod shop/near on a (ready, in z1, for zones z1): in: ready
              10.244.1.1:8080 pod shop/plain on b (ready, in z2): in: ready
              one of 2, at random for each connection; it sees the client's own address
            1 frontend, 2 usable endpoints
        "#]],
    );
}

#[test]
fn policies_local() {
    let local = |endpoints: Vec<Endpoint>| {
        let [service, slice] = web(endpoints);
        let Object::Service(mut service) = service else { panic!("the first is the service") };
        service.traffic.internal = TrafficPolicy::Local;
        service.traffic.external = TrafficPolicy::Local;
        [service.into(), slice]
    };
    let both =
        || vec![placed("10.244.0.1", "a", "z1", "web-here"), placed("10.244.1.1", "b", "z2", "web-there")];
    // Inside: the policy is that of the cluster IP alone (R3, R5).
    check(
        local(both()),
        "10.96.0.5:80",
        None,
        &expect![[r#"
        from this node
        frontend 10.96.0.5:80/TCP -> shop/web:/TCP/v4
          cluster IP: internalTrafficPolicy Local
          10.244.0.1:8080 pod shop/web-here on a (ready, in z1): in: ready
          10.244.1.1:8080 pod shop/web-there on b (ready, in z2): out: on another node
          the one endpoint; it sees the client's own address
        1 frontend, 1 usable endpoint
    "#]],
    );
    check(
        local(both()),
        "192.0.2.10:30080",
        None,
        &expect![[r#"
        from this node
        frontend 192.0.2.10:30080/TCP -> shop/web:/TCP/v4
          node port: externalTrafficPolicy Local, for clients outside
          10.244.0.1:8080 pod shop/web-here on a (ready, in z1): in: ready
          10.244.1.1:8080 pod shop/web-there on b (ready, in z2): in: ready
          one of 2, at random for each connection; it sees the client's own address
        1 frontend, 2 usable endpoints
    "#]],
    );
    // Outside: the policy of node ports.
    check(
        local(both()),
        "192.0.2.10:30080",
        Some("203.0.113.9"),
        &expect![[r#"
        from 203.0.113.9, outside of this node
        frontend 192.0.2.10:30080/TCP -> shop/web:/TCP/v4
          node port: externalTrafficPolicy Local, for clients outside
          10.244.0.1:8080 pod shop/web-here on a (ready, in z1): in: ready
          10.244.1.1:8080 pod shop/web-there on b (ready, in z2): out: on another node
          the one endpoint; it sees the client's own address
        1 frontend, 1 usable endpoint
    "#]],
    );
    let elsewhere = || vec![placed("10.244.1.1", "b", "z2", "web-there")];
    check(
        local(elsewhere()),
        "10.96.0.5:80",
        None,
        &expect![[r#"
        from this node
        frontend 10.96.0.5:80/TCP -> shop/web:/TCP/v4
          cluster IP: internalTrafficPolicy Local
          10.244.1.1:8080 pod shop/web-there on b (ready, in z2): out: on another node
          fails at once with EHOSTUNREACH: none on this node, and the policy is Local
        1 frontend, 0 usable endpoints
    "#]],
    );
    check(
        local(elsewhere()),
        "192.0.2.10:30080",
        Some("203.0.113.9"),
        &expect![[r#"
        from 203.0.113.9, outside of this node
        frontend 192.0.2.10:30080/TCP -> shop/web:/TCP/v4
          node port: externalTrafficPolicy Local, for clients outside
          10.244.1.1:8080 pod shop/web-there on b (ready, in z2): out: on another node
          dropped, so that the client tries another node: none here, and the policy is Local
        1 frontend, 0 usable endpoints
    "#]],
    );
}

#[test]
fn a_plan_says_the_same_of_both_windows() {
    let mut objects: Vec<Object> = web([
        hinted(placed("10.244.0.1", "a", "z1", "near"), &["z1"], &[]),
        hinted(placed("10.244.0.2", "a", "z1", "old"), &["z1"], &[]).terminating(true),
        hinted(placed("10.244.1.1", "b", "z2", "far"), &["z2"], &[]),
        placed("10.244.1.2", "b", "z2", "new").not_ready(),
    ])
    .into();
    objects.push(service("shop/call", &["10.96.0.6"]).port("sip:5060/UDP").port("diameter:3868/SCTP").into());
    let snapshot = snapshot(objects);
    let mut planner = Planner::new(facts());
    let tables = planner.update(&snapshot, &facts()).clone();
    expect![[r#"
        why shop/call:sip/UDP/v4
        why shop/web:/TCP/v4
          10.244.0.1:8080 on a (ready, in z1, for zones z1): in: ready
          10.244.0.2:8080 on a (not ready, terminating, serving, in z1, for zones z1): out: terminating, and others are ready
          10.244.1.1:8080 on b (ready, in z2, for zones z2): out: hinted to another zone or node; for policy Local out: on another node
          10.244.1.2:8080 on b (not ready, not serving, in z2): out: not ready; for policy Local out: on another node
        not programmed, SCTP: shop/call
    "#]].assert_eq(&reasons(&planner, &tables, &snapshot, &facts()));
}

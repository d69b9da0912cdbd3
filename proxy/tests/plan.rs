//! Rules of the plan, as text: a cluster in, tables out. No kernel: what the tables do to sockets is tested in
//! `sockets.rs`.

use expect_test::{Expect, expect};
use model::testing::{endpoint, external_name, headless, ip, name, service, slice, snapshot};
use model::{Event, Hints, Kind, Object, Service, TrafficPolicy};
use proxy::{Current, Facts, GRACE, Op, Planner, Sizes, Tables, diff, shrink};

fn facts() -> Facts {
    Facts {
        name: "a".into(),
        zone: Some("z1".into()),
        addresses: vec![ip("192.0.2.1"), ip("2001:db8::1")],
        node_port_addresses: vec![ip("192.0.2.1"), ip("2001:db8::1")],
        cluster_dns: vec![ip("10.96.0.10")],
    }
}

fn plan(objects: impl IntoIterator<Item = Object>) -> Tables {
    Planner::new(facts()).update(&snapshot(objects), &facts()).clone()
}

#[expect(clippy::needless_pass_by_value, reason = "reads better at the call")]
fn check(objects: impl IntoIterator<Item = Object>, expected: Expect) {
    let tables = plan(objects);
    let text = tables.dump();
    expected.assert_eq(&text);
    assert_eq!(Tables::parse(&text).as_ref(), Ok(&tables), "a dump is read back");
}

#[test]
fn a_cluster_ip_and_its_endpoints() {
    check(
        [
            service("shop/web", &["10.96.0.5"]).port("http:80/TCP").client_ip(10800).into(),
            slice("web-1", "shop/web").port("http:8080/TCP").ready(&["10.244.0.3", "10.244.0.2"]).into(),
        ],
        expect![[r#"
            frontend 10.96.0.5 refuse
            frontend 10.96.0.5:80/TCP shop/web:http/TCP/v4
            service shop/web:http/TCP/v4 affinity=10800
              10.244.0.2:8080 cluster
              10.244.0.3:8080 cluster
        "#]],
    );
}

#[test]
fn scenario_04_a_named_target_port_of_two_numbers() {
    check(
        [
            service("shop/web", &["10.96.0.5"]).port("http:80/TCP").into(),
            slice("web-old", "shop/web").port("http:8080/TCP").ready(&["10.244.0.2"]).into(),
            slice("web-new", "shop/web").port("http:9090/TCP").ready(&["10.244.0.3"]).into(),
        ],
        expect![[r#"
            frontend 10.96.0.5 refuse
            frontend 10.96.0.5:80/TCP shop/web:http/TCP/v4
            service shop/web:http/TCP/v4
              10.244.0.2:8080 cluster
              10.244.0.3:9090 cluster
        "#]],
    );
}

#[test]
fn scenario_06_an_address_in_two_slices_is_one_slot() {
    check(
        [
            service("shop/web", &["10.96.0.5"]).port("80/TCP").into(),
            slice("web-1", "shop/web").port("8080/TCP").ready(&["10.244.0.2"]).into(),
            slice("web-2", "shop/web").port("8080/TCP").ready(&["10.244.0.2"]).into(),
        ],
        expect![[r#"
            frontend 10.96.0.5 refuse
            frontend 10.96.0.5:80/TCP shop/web:/TCP/v4
            service shop/web:/TCP/v4
              10.244.0.2:8080 cluster
        "#]],
    );
}

#[test]
fn scenario_16_terminating_endpoints_serve_until_one_is_ready() {
    let web = || Object::from(service("shop/web", &["10.96.0.5"]).port("80/TCP"));
    let old = slice("web-1", "shop/web").port("8080/TCP").with(endpoint("10.244.0.2").terminating(true));
    check(
        [web(), old.clone().into()],
        expect![[r#"
            frontend 10.96.0.5 refuse
            frontend 10.96.0.5:80/TCP shop/web:/TCP/v4
            service shop/web:/TCP/v4
              10.244.0.2:8080 cluster
        "#]],
    );
    check(
        [web(), old.ready(&["10.244.0.3"]).into()],
        expect![[r#"
            frontend 10.96.0.5 refuse
            frontend 10.96.0.5:80/TCP shop/web:/TCP/v4
            service shop/web:/TCP/v4
              10.244.0.3:8080 cluster
        "#]],
    );
}

#[test]
fn local_policies_have_a_window_of_their_own() {
    let mut web = service("shop/web", &["10.96.0.5", "fd00:96::5"]).port("80/TCP:30080");
    web.traffic.external = TrafficPolicy::Local;
    let slice = slice("web-1", "shop/web")
        .port("8080/TCP")
        .with(endpoint("10.244.0.4").on("a").terminating(true))
        .with(endpoint("10.244.1.2").on("b"));
    check(
        [web.into(), slice.into()],
        expect![[r#"
            frontend 10.96.0.5 refuse
            frontend 10.96.0.5:80/TCP shop/web:/TCP/v4
            frontend 127.0.0.1:30080/TCP shop/web:/TCP/v4 node-only
            frontend 192.0.2.1:30080/TCP shop/web:/TCP/v4 packet-local
            frontend [::1]:30080/TCP shop/web:/TCP/v6 node-only
            frontend [2001:db8::1]:30080/TCP shop/web:/TCP/v6 packet-local
            frontend fd00:96::5 refuse
            frontend [fd00:96::5]:80/TCP shop/web:/TCP/v6
            service shop/web:/TCP/v4
              10.244.0.4:8080 local
              10.244.1.2:8080 cluster
            service shop/web:/TCP/v6
        "#]],
    );
}

#[test]
fn scenario_24_hints_choose_endpoints_only_where_all_ready_ones_carry_them() {
    let hinted = |address, zones: &[&str], nodes: &[&str]| {
        let hints = Hints {
            zones: zones.iter().map(|&zone| zone.into()).collect(),
            nodes: nodes.iter().map(|&node| node.into()).collect(),
        };
        model::Endpoint { hints: Some(hints.into()), ..endpoint(address) }
    };
    let slots = |endpoints: Vec<model::Endpoint>| -> Vec<String> {
        let slice =
            endpoints.into_iter().fold(slice("s", "x/s").port("8080/TCP"), model::EndpointSlice::with);
        let tables = plan([service("x/s", &["10.96.0.5"]).port("80/TCP").into(), slice.into()]);
        let slots = tables.services.values().flat_map(|block| block.slots.clone());
        slots.map(|slot| slot.ip.to_string()).collect()
    };
    let (mine, theirs) = (hinted("10.0.0.1", &["z1"], &["b"]), hinted("10.0.0.2", &["z2"], &["a"]));
    assert_eq!(slots(vec![mine.clone(), theirs.clone()]), ["10.0.0.2"], "node hints beat zone hints");
    let zones = |endpoint: &model::Endpoint| {
        let hints = endpoint.hints.as_ref().map(|hints| Hints { nodes: vec![], ..(**hints).clone() });
        model::Endpoint { hints: hints.map(Into::into), ..endpoint.clone() }
    };
    assert_eq!(slots(vec![zones(&mine), zones(&theirs)]), ["10.0.0.1"]);
    assert_eq!(
        slots(vec![zones(&mine), zones(&theirs), endpoint("10.0.0.3")]).len(),
        3,
        "one without a hint"
    );
    let elsewhere = hinted("10.0.0.4", &["z2"], &[]);
    assert_eq!(slots(vec![zones(&theirs), elsewhere]).len(), 2, "none for my zone");
}

#[test]
fn what_has_no_cluster_ip_is_left_out() {
    let theirs = Service { proxied_elsewhere: true, ..service("x/theirs", &["10.96.0.7"]).port("80/TCP") };
    check(
        [
            headless("x/headless").port("80/TCP").into(),
            external_name("x/name", "example.com").port("80/TCP").into(),
            service("x/pending", &[]).port("80/TCP").into(),
            theirs.into(),
            service("x/sctp", &["10.96.0.8"]).port("80/SCTP").into(),
        ],
        expect![[r#"
            frontend 10.96.0.8 refuse
        "#]],
    );
}

#[test]
fn the_cluster_dns_is_answered_here_first() {
    check(
        [service("kube-system/kube-dns", &["10.96.0.10"]).port("dns:53/UDP").port("metrics:9153/TCP").into()],
        expect![[r#"
            frontend 10.96.0.10:53/UDP kube-system/kube-dns:dns/UDP/v4 here-first
            frontend 10.96.0.10:9153/TCP kube-system/kube-dns:metrics/TCP/v4
            service kube-system/kube-dns:dns/UDP/v4
            service kube-system/kube-dns:metrics/TCP/v4
        "#]],
    );
}

#[test]
fn the_older_of_two_claimants_wins_and_the_other_takes_over() {
    let old = || Object::from(service("x/old", &["10.96.0.5"]).port("80/TCP").created(1));
    let new = || Object::from(service("a/new", &["10.96.0.5"]).port("80/TCP").created(2));
    let mut cluster = model::testing::listed([new(), old()]);
    let mut planner = Planner::new(facts());
    let winner = |tables: &Tables| tables.dump().lines().nth(1).map(str::to_owned);
    let tables = planner.update(&cluster.snapshot(), &facts()).clone();
    assert_eq!(winner(&tables).as_deref(), Some("frontend 10.96.0.5:80/TCP x/old:/TCP/v4"));
    let conflicts = planner.conflicts();
    assert_eq!((&conflicts[0].winner, &conflicts[0].loser), (&name("x/old"), &name("a/new")));
    cluster.apply(Event::Delete(Kind::Service, name("x/old")));
    let tables = planner.update(&cluster.snapshot(), &facts()).clone();
    assert_eq!(winner(&tables).as_deref(), Some("frontend 10.96.0.5:80/TCP a/new:/TCP/v4"));
    assert!(planner.conflicts().is_empty());
}

#[test]
fn scenario_29_only_vip_addresses_of_a_load_balancer_are_captured() {
    let vip = service("x/lb", &["10.96.0.5"]).port("80/TCP").load_balancer_ip("203.0.113.7");
    let mut proxied = vip.clone();
    proxied.load_balancer.ips[0].mode = model::IngressMode::Proxy;
    let captured = |service: Service| plan([service.into()]).dump().contains("203.0.113.7");
    assert!(captured(vip) && !captured(proxied));
}

#[test]
fn scenario_31_two_services_swap_addresses_in_one_batch() {
    let pair = |one: &str, two: &str| -> [Object; 2] {
        [service("x/one", &[one]).port("80/TCP").into(), service("x/two", &[two]).port("80/TCP").into()]
    };
    let mut current = Current::new(Sizes { frontends: 16, services: 4, lines: 8, backends: 8, lru: 8 });
    let now = std::time::Instant::now();
    diff(&mut current, &plan(pair("10.96.0.5", "10.96.0.6")), now, &mut Vec::new());
    let swapped = plan(pair("10.96.0.6", "10.96.0.5"));
    let mut ops = Vec::new();
    diff(&mut current, &swapped, now, &mut ops);
    // Each frontend changes hands in one operation; none is ever absent, and nothing is left to take away.
    assert_eq!(shrink(&mut current, now + GRACE, &mut ops), None);
    assert!(matches!(ops[..], [Op::PutFrontend(..), Op::PutFrontend(..)]), "{ops:?}");
    assert_eq!(current.tables(), &swapped);
}

#[test]
fn scenario_38_a_change_costs_a_constant_and_its_own_slots() {
    let sizes = Sizes { frontends: 1 << 16, services: 1 << 14, lines: 1 << 15, backends: 1 << 16, lru: 8 };
    let vip = |index: u32| std::net::Ipv4Addr::from(0x0a60_0000 + index).to_string();
    let endpoints = |index: u32, count: u32| {
        let ips = (0..count).map(|n| std::net::Ipv4Addr::from(0x0af0_0000 + index * 8 + n).to_string());
        let ips: Vec<String> = ips.collect();
        let ips: Vec<&str> = ips.iter().map(String::as_str).collect();
        Object::from(slice(&format!("s{index}"), &format!("x/s{index}")).port("8080/TCP").ready(&ips))
    };
    let mut cluster = model::testing::listed([]);
    for index in 1..=10_000 {
        cluster.apply(Event::Apply(service(&format!("x/s{index}"), &[&vip(index)]).port("80/TCP").into()));
        cluster.apply(Event::Apply(endpoints(index, 5)));
    }
    let (mut planner, mut current) = (Planner::new(facts()), Current::new(sizes));
    let now = std::time::Instant::now();
    let mut sync = |cluster: &mut model::Cluster| -> Vec<Op> {
        let desired = planner.update(&cluster.snapshot(), &facts()).clone();
        let mut ops = Vec::new();
        assert_eq!(diff(&mut current, &desired, now, &mut ops), []);
        ops
    };
    // The cluster DNS address is one of them: it refuses no other port.
    assert_eq!(sync(&mut cluster).len(), 10_000 * (5 + 1 + 1 + 2) - 1);
    cluster.apply(Event::Apply(endpoints(5000, 6)));
    let more = sync(&mut cluster);
    assert!(matches!(more[..], [Op::WriteBackend(..), Op::WriteBlock(..), Op::Publish(..)]), "{more:?}");
    cluster.apply(Event::Apply(endpoints(5000, 5)));
    let less = sync(&mut cluster);
    assert!(matches!(less[..], [Op::WriteBlock(..), Op::Publish(..), Op::SetWindows(_, 0)]), "{less:?}");
}

/// A cluster with a Service of 5,000 endpoints in slices of 100, as Kubernetes cuts them.
fn large() -> model::Cluster {
    let mut cluster = model::testing::listed([service("x/large", &["10.96.9.9"]).port("80/TCP").into()]);
    (0..50).for_each(|n| cluster.apply(Event::Apply(part(n, 0))));
    cluster
}

/// A slice of the large Service; `last` more than nothing is another last endpoint.
fn part(n: usize, last: usize) -> Object {
    let address = |k: usize| format!("10.244.{}.{}", n + if k == 99 { last } else { 0 }, k + 1);
    let addresses: Vec<String> = (0..100).map(address).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    slice(&format!("large-{n}"), "x/large").port("8080/TCP").ready(&addresses).into()
}

fn small(name: &str, vip: &str, address: &str) -> [Event; 2] {
    let slice = slice(&format!("{name}-1"), &format!("x/{name}")).port("8080/TCP").ready(&[address]);
    let service = service(&format!("x/{name}"), &[vip]).port("80/TCP");
    [Event::Apply(service.into()), Event::Apply(slice.into())]
}

#[test]
fn five_thousand_endpoints_of_one_service_cost_the_others_nothing() {
    let now = std::time::Instant::now();
    let mut cluster = large();
    small("a", "10.96.0.1", "10.245.0.1").into_iter().for_each(|event| cluster.apply(event));
    let (mut planner, mut current) = (Planner::new(facts()), Current::new(Sizes::for_services(2)));
    let mut sync = |cluster: &mut model::Cluster| {
        let desired = planner.update(&cluster.snapshot(), &facts()).clone();
        let mut ops = Vec::new();
        assert_eq!(diff(&mut current, &desired, now, &mut ops), []);
        ops
    };
    let all = sync(&mut cluster);
    let largest =
        all.iter().filter_map(|op| if let Op::WriteBlock(_, _, ids) = op { Some(ids.len()) } else { None });
    assert_eq!(largest.max(), Some(5000));

    small("a", "10.96.0.1", "10.245.0.2").into_iter().for_each(|event| cluster.apply(event));
    let others = sync(&mut cluster);
    let own = |ops: &[Op]| {
        matches!(ops, [Op::WriteBackend(..), Op::WriteBlock(..), Op::Publish(..), Op::SetWindows(_, 0)])
    };
    assert!(own(&others), "{others:?}");

    // One of the 5,000: its block is written once more, and nothing else of it.
    cluster.apply(Event::Apply(part(7, 100)));
    assert!(own(&sync(&mut cluster)));
}

#[test]
fn without_room_for_five_thousand_endpoints_the_others_are_served_all_the_same() {
    let now = std::time::Instant::now();
    let sizes = Sizes { frontends: 64, services: 8, lines: 1024, backends: 4096, lru: 8 };
    let mut cluster = large();
    let (mut planner, mut current) = (Planner::new(facts()), Current::new(sizes));
    for address in ["10.245.0.1", "10.245.0.2", "10.245.0.3"] {
        small("a", "10.96.0.1", address).into_iter().for_each(|event| cluster.apply(event));
        let desired = planner.update(&cluster.snapshot(), &facts()).clone();
        let mut ops = Vec::new();
        let unfit = diff(&mut current, &desired, now, &mut ops);
        let told: Vec<String> = unfit.iter().map(|unfit| unfit.why.clone()).collect();
        assert_eq!(told, ["the map backends is full"]);
        let writes = ops.iter().filter(|op| **op != Op::Barrier).count();
        // At first the frontends of both come as well; those of the large one wait.
        assert!(writes <= 6, "{ops:?}");
        assert!(current.tables().services.keys().any(|key| &*key.name.name == "a"));
    }
}

#[test]
fn a_line_that_is_none_is_named() {
    let error = Tables::parse("frontend 10.96.0.5 refuse\nfrontend nowhere refuse\n").unwrap_err();
    assert_eq!((error.line, error.text.as_str()), (2, "frontend nowhere refuse"));
}

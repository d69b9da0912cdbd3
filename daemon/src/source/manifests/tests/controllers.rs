//! What the API server and its controllers would do with the objects of a folder: addresses, node ports,
//! endpoints of selectors, the services that every cluster has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::*;

const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: http}, {name: raw, port: 81}]}
";

fn services(events: &[Event]) -> BTreeMap<String, Service> {
    let objects = events.iter().flat_map(|event| match event {
        Event::Replace(_, objects) => objects.as_slice(),
        Event::Apply(_) | Event::Delete(..) => &[],
    });
    let service = |object: &Object| match object {
        Object::Service(service) => Some((service.name.to_string(), service.clone())),
        Object::EndpointSlice(_)
        | Object::Endpoints(_)
        | Object::Namespace(_)
        | Object::Node(_)
        | Object::Pod(_) => None,
    };
    objects.filter_map(service).collect()
}

fn many(count: usize, spec: &str) -> String {
    let one = |n| format!("---\napiVersion: v1\nkind: Service\nmetadata: {{name: s{n}}}\nspec: {spec}\n");
    (0..count).map(one).collect()
}

#[test]
fn scenario_04_each_pod_has_its_own_number_for_a_named_port() {
    let pods = [
        pod("old-1", "10.1.0.2", &[("http", 8080)]),
        pod("old-2", "10.1.0.3", &[("http", 8080)]),
        pod("new-1", "10.1.0.4", &[("http", 9090)]),
        pod("bare", "10.1.0.5", &[]),
    ];
    check(
        &[("web.yaml", WEB)],
        &pods,
        &expect![[r#"
            Service shop/web ClusterIP Addresses([10.96.126.194]) http:80/TCP raw:81/TCP
            EndpointSlice shop/web-31a5a36c of web: http:9090/TCP raw:81/TCP
              10.1.0.4 ready=true serving=true terminating=false node=Some("a") hostname=None pod=Some("new-1")
            EndpointSlice shop/web-4af8dbfa of web: raw:81/TCP
              10.1.0.5 ready=true serving=true terminating=false node=Some("a") hostname=None pod=Some("bare")
            EndpointSlice shop/web-d2922e24 of web: http:8080/TCP raw:81/TCP
              10.1.0.2 ready=true serving=true terminating=false node=Some("a") hostname=None pod=Some("old-1")
              10.1.0.3 ready=true serving=true terminating=false node=Some("a") hostname=None pod=Some("old-2")
            Namespace shop
            Pod shop/bare [10.1.0.5]
            Pod shop/new-1 [10.1.0.4]
            Pod shop/old-1 [10.1.0.2]
            Pod shop/old-2 [10.1.0.3]
        "#]],
    );
}

#[test]
fn a_pod_counts_as_it_is() {
    let mut starting = pod("starting", "10.1.0.2", &[]);
    starting.ready = false;
    let mut ending = pod("ending", "10.1.0.3", &[]);
    ending.terminating = true;
    let mut named = pod("named", "10.1.0.4", &[]);
    named.hostname = Some("one".to_owned());
    named.subdomain = Some("web".to_owned());
    let mut elsewhere = pod("elsewhere", "10.1.0.5", &[]);
    elsewhere.hostname = Some("two".to_owned());
    elsewhere.subdomain = Some("other".to_owned());
    let mut stranger = pod("stranger", "10.1.0.6", &[]);
    stranger.labels.clear();
    let text = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: None, selector: {app: web}}
---
apiVersion: v1
kind: Service
metadata: {name: early, namespace: shop}
spec: {publishNotReadyAddresses: true, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: other}
spec: {selector: {app: web}, ports: [{port: 80}]}
";
    check(
        &[("web.yaml", text)],
        &[starting, ending, named, elsewhere, stranger],
        &expect![[r#"
            Service other/web ClusterIP Addresses([10.96.73.171]) :80/TCP
            Service shop/early ClusterIP Addresses([10.96.199.58]) :80/TCP
            Service shop/web ClusterIP Headless
            EndpointSlice shop/early-9eff4cec of early: :80/TCP
              10.1.0.2 ready=true serving=false terminating=false node=Some("a") hostname=None pod=Some("starting")
              10.1.0.3 ready=true serving=true terminating=true node=Some("a") hostname=None pod=Some("ending")
              10.1.0.4 ready=true serving=true terminating=false node=Some("a") hostname=None pod=Some("named")
              10.1.0.5 ready=true serving=true terminating=false node=Some("a") hostname=None pod=Some("elsewhere")
            EndpointSlice shop/web-c491f89f of web:
              10.1.0.2 ready=false serving=false terminating=false node=Some("a") hostname=None pod=Some("starting")
              10.1.0.3 ready=false serving=true terminating=true node=Some("a") hostname=None pod=Some("ending")
              10.1.0.4 ready=true serving=true terminating=false node=Some("a") hostname=Some("one") pod=Some("named")
              10.1.0.5 ready=true serving=true terminating=false node=Some("a") hostname=None pod=Some("elsewhere")
            Namespace other
            Namespace shop
            Pod shop/elsewhere [10.1.0.5]
            Pod shop/ending [10.1.0.3]
            Pod shop/named [10.1.0.4]
            Pod shop/starting [10.1.0.2]
            Pod shop/stranger [10.1.0.6]
        "#]],
    );
}

#[test]
fn families_of_a_dual_stack_cluster() {
    let mut both = pod("both", "10.1.0.2", &[]);
    both.addresses.push("fd00:1::2".parse().unwrap());
    let service = |name: &str, rest: &str| {
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
             spec: {{selector: {{app: web}}, ports: [{{port: 80}}]{rest}}}\n"
        )
    };
    let text = [
        service("one", ""),
        service("six", ", ipFamilies: [IPv6]"),
        service("two", ", ipFamilyPolicy: PreferDualStack"),
        service("turned", ", ipFamilyPolicy: RequireDualStack, ipFamilies: [IPv6]"),
        service("half", ", ipFamilyPolicy: RequireDualStack, clusterIP: 'fd00:10:96::77'"),
        service("head", ", ipFamilyPolicy: PreferDualStack, clusterIP: None"),
    ];
    check_in(
        &dual_cluster(),
        &[("web.yaml", &text.concat())],
        &[both],
        &expect![[r#"
            Service shop/half ClusterIP Addresses([fd00:10:96::77, 10.96.41.176]) :80/TCP
            Service shop/head ClusterIP Headless :80/TCP
            Service shop/one ClusterIP Addresses([10.96.192.203]) :80/TCP
            Service shop/six ClusterIP Addresses([fd00:10:96::6e7f]) :80/TCP
            Service shop/turned ClusterIP Addresses([fd00:10:96::c244, 10.96.194.68]) :80/TCP
            Service shop/two ClusterIP Addresses([10.96.66.228, fd00:10:96::42e4]) :80/TCP
            EndpointSlice shop/half-13cf0948 of half: :80/TCP
              fd00:1::2 ready=true serving=true terminating=false node=Some("a") hostname=None pod=Some("both")
            EndpointSlice shop/half-9eff4cec of half: :80/TCP
              10.1.0.2 ready=true serving=true terminating=false node=Some("a") hostname=None pod=Some("both")
            EndpointSlice shop/head-13cf0948 of head: :80/TCP
              fd00:1::2 ready=true serving=true terminating=false node=Some("a") hostname=None pod=Some("both")
            EndpointSlice shop/head-9eff4cec of head: :80/TCP
              10.1.0.2 ready=true serving=true terminating=false node=Some("a") hostname=None pod=Some("both")
            EndpointSlice shop/one-9eff4cec of one: :80/TCP
              10.1.0.2 ready=true serving=true terminating=false node=Some("a") hostname=None pod=Some("both")
            EndpointSlice shop/six-13cf0948 of six: :80/TCP
              fd00:1::2 ready=true serving=true terminating=false node=Some("a") hostname=None pod=Some("both")
            EndpointSlice shop/turned-13cf0948 of turned: :80/TCP
              fd00:1::2 ready=true serving=true terminating=false node=Some("a") hostname=None pod=Some("both")
            EndpointSlice shop/turned-9eff4cec of turned: :80/TCP
              10.1.0.2 ready=true serving=true terminating=false node=Some("a") hostname=None pod=Some("both")
            EndpointSlice shop/two-13cf0948 of two: :80/TCP
              fd00:1::2 ready=true serving=true terminating=false node=Some("a") hostname=None pod=Some("both")
            EndpointSlice shop/two-9eff4cec of two: :80/TCP
              10.1.0.2 ready=true serving=true terminating=false node=Some("a") hostname=None pod=Some("both")
            Namespace shop
            Pod shop/both [10.1.0.2, fd00:1::2]
        "#]],
    );
}

#[test]
fn every_cluster_has_an_api_server_and_a_dns() {
    let (events, problems) = load_texts(&[], &[], &dual_cluster());
    assert_eq!(problems, []);
    let mut out = String::new();
    services(&events).values().for_each(|service| dump_service(service, &mut out));
    expect![[r#"
        Service default/kubernetes ClusterIP Addresses([10.96.0.1]) https:443/TCP
        Service kube-system/kube-dns ClusterIP Addresses([10.96.0.10]) dns:53/UDP dns-tcp:53/TCP
    "#]]
    .assert_eq(&out);
    let written = "apiVersion: v1\nkind: Service\nmetadata: {name: kube-dns, namespace: kube-system}\n\
                   spec: {clusterIP: 10.96.7.7, ports: [{port: 53, protocol: UDP}]}\n";
    let (events, _) = load_texts(&[("dns.yaml", written)], &[], &cluster());
    let dns = &services(&events)["kube-system/kube-dns"];
    assert_eq!(dns.cluster_ips(), ["10.96.7.7".parse::<IpAddr>().unwrap()]);
}

#[test]
fn an_address_depends_on_the_name_alone() {
    let all = many(200, "{type: NodePort, ports: [{port: 80}]}");
    let (events, _) = load_texts(&[("all.yaml", &all)], &[], &dual_cluster());
    let together = services(&events);
    let mut moved = 0;
    for (name, service) in together.iter().filter(|(_, service)| !is_default(service)) {
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {}}}\nspec: {{type: NodePort, ports: [{{port: 80}}]}}\n",
            service.name.name
        );
        let alone = services(&load_texts(&[("one.yaml", &text)], &[], &dual_cluster()).0);
        moved += usize::from(alone[name] != *service);
    }
    // Two names that meet at one number: 200 names among 2,768 node ports meet about 7 times.
    assert!(moved < 20, "{moved} of 200 services depend on others");
}

#[test]
fn nothing_is_given_twice_and_nothing_that_is_reserved() {
    let small = Cluster { service_cidrs: vec!["10.96.0.0/26".parse().unwrap()], ..cluster() };
    let text = many(60, "{type: NodePort, ports: [{port: 80}]}")
        + "---\napiVersion: v1\nkind: Service\nmetadata: {name: written}\n\
           spec: {type: NodePort, clusterIP: 10.96.0.33, ports: [{port: 80, nodePort: 31000}]}\n";
    let (events, problems) = load_texts(&[("all.yaml", &text)], &[], &small);
    // 64 addresses without network and broadcast are for 63 services; the DNS has the tenth.
    expect![[r#"
        Service default/s9: no address is left in 10.96.0.0/26
    "#]]
    .assert_eq(&problems.iter().map(|problem| format!("{problem}\n")).collect::<String>());
    let services = services(&events);
    let addresses: Vec<IpAddr> = services.values().flat_map(Service::cluster_ips).copied().collect();
    let unique: BTreeSet<&IpAddr> = addresses.iter().collect();
    assert_eq!(unique.len(), addresses.len());
    assert_eq!(addresses.len(), 62);
    for forbidden in ["10.96.0.0", "10.96.0.63"] {
        assert!(!unique.contains(&forbidden.parse::<IpAddr>().unwrap()), "{forbidden}");
    }
    let ports: Vec<u16> =
        services.values().flat_map(|service| &service.ports).filter_map(|port| port.node_port).collect();
    assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
    assert_eq!(services["default/written"].cluster_ips(), ["10.96.0.33".parse::<IpAddr>().unwrap()]);
}

#[test]
fn a_running_service_keeps_what_it_has() {
    let small = Cluster { service_cidrs: vec!["10.96.0.0/27".parse().unwrap()], ..cluster() };
    let mut folder = Folder::default();
    folder
        .put("b.yaml", &many(10, "{type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 80}]}"));
    let before = Desired::new(&folder, &[], &small, &Desired::default());
    // Names that come first by order and would take what others have.
    folder.put("a.yaml", &many(14, "{type: NodePort, ports: [{port: 80}]}").replace("name: s", "name: a"));
    let after = Desired::new(&folder, &[], &small, &before);
    let (before, after) = (services(&before.lists()), services(&after.lists()));
    for (name, service) in &before {
        assert_eq!(service, &after[name]);
    }
    assert_eq!(after.len(), before.len() + 14);
}

#[test]
fn a_load_balancer_has_node_ports_and_a_health_port() {
    let spec = "{type: LoadBalancer, externalTrafficPolicy: Local, ports: [{port: 80}, {port: 81, name: b}]}";
    let spec = spec.replace("{port: 80}", "{port: 80, name: a}");
    let (events, _) = load_texts(&[("a.yaml", &many(1, &spec))], &[], &cluster());
    let service = &services(&events)["default/s0"];
    assert!(service.load_balancer.health_check_port.is_some());
    assert!(service.ports.iter().all(|port| port.node_port.is_some()));
    let bare = spec.replace("type:", "allocateLoadBalancerNodePorts: false, type:");
    let (events, _) = load_texts(&[("a.yaml", &many(1, &bare))], &[], &cluster());
    assert!(services(&events)["default/s0"].ports.iter().all(|port| port.node_port.is_none()));
}

//! Bad input: one line that names file, document, object and field; everything else is served. A test for each
//! mistake that people make.

use super::*;

fn service(name: &str, spec: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n")
}

#[test]
fn a_wrong_object_is_named_and_the_others_are_served() {
    let text = [
        service("cart", "{ports: [{port: 80}]}"),
        service("web", "{ports: [{port: http}]}"),
        service("big", "{ports: [{port: 80, name: a}, {port: 70000, name: b}]}"),
        service("odd", "{clusterIP: 10.96.0.300, ports: [{port: 80}]}"),
        service("zero", "{clusterIP: 10.96.0.01, ports: [{port: 80}]}"),
    ];
    check(
        &[("shop.yaml", &text.join("---\n"))],
        &[],
        &expect![[r#"
        Service shop/cart ClusterIP Addresses([10.96.246.152]) :80/TCP
        Namespace shop
        ! shop.yaml, document 2, Service shop/web: spec.ports[0].port: expected an integer, found "http"
        ! shop.yaml, document 3, Service shop/big: spec.ports[1].port: 70000 is not a port (1 to 65535)
        ! shop.yaml, document 4, Service shop/odd: spec.clusterIP: "10.96.0.300" is not an IP address
        ! shop.yaml, document 5, Service shop/zero: spec.clusterIP: "10.96.0.01" is not an IP address
    "#]],
    );
}

#[test]
fn every_field_that_is_judged() {
    let specs = [
        "5",
        "{}",
        "{type: Nodeport, ports: [{port: 80}]}",
        "{ports: [{port: 80}, {port: 81}]}",
        "{ports: [{port: 80, name: a}, {port: 81, name: a}]}",
        "{ports: [{port: 80, name: a}, {port: 80, name: b}]}",
        "{ports: [{port: 80, name: a_b}]}",
        "{ports: [{port: 80, protocol: tcp}]}",
        "{ports: [{port: 80, targetPort: 70000}]}",
        "{ports: [{port: 80, targetPort: Http}]}",
        "{ports: [{port: 80, targetPort: [1]}]}",
        "{ports: [{port: 80, nodePort: 30080}]}",
        "{type: NodePort, ports: [{port: 80, nodePort: 22}]}",
        "{type: NodePort, clusterIP: None, ports: [{port: 80}]}",
        "{clusterIP: 10.96.0.9, clusterIPs: [10.96.0.8], ports: [{port: 80}]}",
        "{clusterIPs: [10.96.0.9, 10.96.0.8], ports: [{port: 80}]}",
        "{clusterIP: '::ffff:10.96.0.9', ports: [{port: 80}]}",
        "{externalIPs: [1.2.3.4, x], ports: [{port: 80}]}",
        "{externalIPs: 1.2.3.4, ports: [{port: 80}]}",
        "{type: ExternalName}",
        "{type: ExternalName, externalName: 'a b'}",
        "{sessionAffinity: Client, ports: [{port: 80}]}",
        "{sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 86401}}, ports: [{port: 80}]}",
        "{internalTrafficPolicy: local, ports: [{port: 80}]}",
        "{type: LoadBalancer, loadBalancerSourceRanges: [' 10.0.0.0/8 ', 10/8], ports: [{port: 80}]}",
        "{ipFamilies: [IPv5], ports: [{port: 80}]}",
        "{ipFamilies: [IPv6], ports: [{port: 80}]}",
        "{ipFamilyPolicy: Dual, ports: [{port: 80}]}",
        "{ports: [{port: 80, targetPort: 1.5}]}",
        "{publishNotReadyAddresses: 1, ports: [{port: 80}]}",
        "{selector: {app: 1}, ports: [{port: 80}]}",
    ];
    let texts: Vec<String> =
        specs.iter().enumerate().map(|(i, spec)| service(&format!("s{i}"), spec)).collect();
    check(
        &[("bad.yaml", &texts.join("---\n"))],
        &[],
        &expect![[r#"
        Service shop/s26 ClusterIP Addresses([]) :80/TCP
        Namespace shop
        ! bad.yaml, document 1, Service shop/s0: spec: expected an object, found 5
        ! bad.yaml, document 2, Service shop/s1: spec.ports: is missing
        ! bad.yaml, document 3, Service shop/s2: spec.type: "Nodeport" is none of ClusterIP, NodePort, LoadBalancer, ExternalName
        ! bad.yaml, document 4, Service shop/s3: spec.ports[0].name: is missing
        ! bad.yaml, document 5, Service shop/s4: spec.ports[1].name: "a" is there twice
        ! bad.yaml, document 6, Service shop/s5: spec.ports[1].port: 80/TCP is there twice
        ! bad.yaml, document 7, Service shop/s6: spec.ports[0].name: "a_b" is not a DNS label (lower-case letters, digits and -, at most 63)
        ! bad.yaml, document 8, Service shop/s7: spec.ports[0].protocol: "tcp" is none of TCP, UDP, SCTP
        ! bad.yaml, document 9, Service shop/s8: spec.ports[0].targetPort: 70000 is not a port (1 to 65535)
        ! bad.yaml, document 10, Service shop/s9: spec.ports[0].targetPort: "Http" is not a DNS label (lower-case letters, digits and -, at most 63)
        ! bad.yaml, document 11, Service shop/s10: spec.ports[0].targetPort: expected an integer or a string, found a list
        ! bad.yaml, document 12, Service shop/s11: spec.ports[0].nodePort: only a NodePort or LoadBalancer service has node ports
        ! bad.yaml, document 13, Service shop/s12: spec.ports[0].nodePort: node ports lie in 30000 to 32767
        ! bad.yaml, document 14, Service shop/s13: spec.clusterIP: a headless service cannot be a NodePort or LoadBalancer
        ! bad.yaml, document 15, Service shop/s14: spec.clusterIPs[0]: the first of clusterIPs must be clusterIP
        ! bad.yaml, document 16, Service shop/s15: spec.clusterIPs: at most one address of each family
        ! bad.yaml, document 17, Service shop/s16: spec.clusterIP: "::ffff:10.96.0.9" is not an IP address
        ! bad.yaml, document 18, Service shop/s17: spec.externalIPs[1]: "x" is not an IP address
        ! bad.yaml, document 19, Service shop/s18: spec.externalIPs: expected a list, found "1.2.3.4"
        ! bad.yaml, document 20, Service shop/s19: spec.externalName: is missing
        ! bad.yaml, document 21, Service shop/s20: spec.externalName: "a b" is not a DNS name
        ! bad.yaml, document 22, Service shop/s21: spec.sessionAffinity: "Client" is none of None, ClientIP
        ! bad.yaml, document 23, Service shop/s22: spec.sessionAffinityConfig.clientIP.timeoutSeconds: 86401 is not a timeout (1 to 86400 seconds)
        ! bad.yaml, document 24, Service shop/s23: spec.internalTrafficPolicy: "local" is none of Cluster, Local
        ! bad.yaml, document 25, Service shop/s24: spec.loadBalancerSourceRanges[1]: "10/8" is not a CIDR
        ! bad.yaml, document 26, Service shop/s25: spec.ipFamilies[0]: "IPv5" is none of IPv4, IPv6
        ! bad.yaml, document 28, Service shop/s27: spec.ipFamilyPolicy: "Dual" is none of SingleStack, PreferDualStack, RequireDualStack
        ! bad.yaml, document 29, Service shop/s28: spec.ports[0].targetPort: expected an integer or a string, found 1.5
        ! bad.yaml, document 30, Service shop/s29: spec.publishNotReadyAddresses: expected true or false, found 1
        ! bad.yaml, document 31, Service shop/s30: spec.selector.app: expected a string, found 1
        ! Service shop/s26: spec.ipFamilies: the cluster has no IPv6 service range
    "#]],
    );
}

#[test]
fn a_text_that_is_none_names_line_and_document() {
    let half =
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n---\nkind: Service\nmetadata:\n  name: \"we";
    check(
        &[("half.yaml", half), ("x.json", "{\"kind\": \"Service\",\n")],
        &[],
        &expect![[r#"
        ! half.yaml, document 2, line 7: not YAML: unclosed quote
        ! x.json, document 1: not JSON: EOF while parsing a value at line 2 column 0
    "#]],
    );
    check(
        &[("tab.yaml", "kind: Service\n\tmetadata: {}\n")],
        &[],
        &expect![[r#"
        ! tab.yaml, document 1, line 1: not YAML: while scanning a plain scalar, found a tab
    "#]],
    );
    check(
        &[("twice.yaml", "kind: Service\nkind: Service\n")],
        &[],
        &expect![[r#"
        ! twice.yaml, document 1, line 2: not YAML: duplicate mapping key: kind
    "#]],
    );
    check(
        &[("none.yaml", "# only words\n"), ("empty.yml", ""), ("dashes.yaml", "---\n---\n")],
        &[],
        &expect![[r#""#]],
    );
}

#[test]
fn kinds_are_used_or_counted_or_misspelt() {
    let text = "
apiVersion: apps/v1
kind: Deployment
---
apiVersion: v1
kind: ConfigMap
---
apiVersion: apps/v1
kind: Deployment
---
apiVersion: batch/v1
kind: Job
---
apiVersion: serving.knative.dev/v1
kind: Service
---
apiVersion: v1
kind: Servcie
---
apiVersion: v1
kind: service
---
apiVersion: v1
kind: EndpointSlice
---
apiVersion: discovery.k8s.io/v1beta1
kind: EndpointSlice
---
metadata: {name: x}
---
kind: Service
---
just words
---
kind: [Service]
";
    check(
        &[("kinds.yaml", text)],
        &[],
        &expect![[r#"
        ! kinds.yaml, document 6: kind: there is no "Servcie", perhaps "Service"
        ! kinds.yaml, document 7: kind: there is no "service", perhaps "Service"
        ! kinds.yaml, document 8: apiVersion: there is no EndpointSlice in "v1", it is in "discovery.k8s.io/v1"
        ! kinds.yaml, document 9: apiVersion: there is no EndpointSlice in "discovery.k8s.io/v1beta1", it is in "discovery.k8s.io/v1"
        ! kinds.yaml, document 10: kind: is missing
        ! kinds.yaml, document 11: apiVersion: is missing
        ! kinds.yaml, document 12: expected an object, found "just words"
        ! kinds.yaml, document 13: kind: expected a string, found a list
        ! ignored: 1 ConfigMap, 2 Deployment, 1 Job, 1 Service
    "#]],
    );
}

#[test]
fn lists_are_their_items() {
    let text = r#"{"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "one"}},
        {"apiVersion": "v1", "kind": "NamespaceList", "items": [{"metadata": {"name": "two"}}, {"metadata": {}}]},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": -1}]}}
    ]}
    {"apiVersion": "v1", "kind": "List", "items": {}}"#;
    check(
        &[("list.json", text)],
        &[],
        &expect![[r#"
        Namespace one
        Namespace two
        ! list.json, document 1, item 2, item 2, Namespace (without a name): metadata.name: is missing
        ! list.json, document 1, item 3, Service default/web: spec.ports[0].port: -1 is not a port (1 to 65535)
        ! list.json, document 2: items: expected a list, found an object
    "#]],
    );
}

#[test]
fn the_first_of_two_counts() {
    let explicit = |name: &str| service(name, "{clusterIP: 10.96.0.50, ports: [{port: 80}]}");
    let node_port = |name: &str| service(name, "{type: NodePort, ports: [{port: 80, nodePort: 30080}]}");
    check(
        &[
            ("a.yaml", &explicit("web")),
            ("b.yaml", &[explicit("cart"), explicit("web")].join("---\n")),
            ("c.yaml", &[node_port("n1"), node_port("n2")].join("---\n")),
        ],
        &[],
        &expect![[r#"
            Service shop/n1 NodePort Addresses([10.96.85.54]) :80/TCP@30080
            Service shop/web ClusterIP Addresses([10.96.0.50]) :80/TCP
            Namespace shop
            ! b.yaml, document 2, Service shop/web: is in a.yaml, document 1 already
            ! b.yaml, document 1, Service shop/cart: spec.clusterIPs: 10.96.0.50 belongs to Service shop/web
            ! c.yaml, document 2, Service shop/n2: spec.ports[0].nodePort: 30080/TCP belongs to Service shop/n1
        "#]],
    );
}

#[test]
fn the_older_of_two_claimants_wins() {
    let aged = |name: &str, year: u32| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, creationTimestamp: '{year}-01-01T00:00:00Z'}}\n\
             spec: {{clusterIP: 10.96.0.50, ports: [{{port: 80}}]}}\n"
        )
    };
    check(
        &[("a.yaml", &aged("young", 2024)), ("b.yaml", &aged("old", 2020))],
        &[],
        &expect![[r#"
        Service default/old ClusterIP Addresses([10.96.0.50]) :80/TCP
        ! a.yaml, document 1, Service default/young: spec.clusterIPs: 10.96.0.50 belongs to Service default/old
    "#]],
    );
}

#[test]
fn a_service_without_selector_has_the_endpoints_that_are_written() {
    let text = "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {ports: [{port: 5432}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: db, namespace: shop}
subsets:
- addresses: [{ip: 192.0.2.7}]
  notReadyAddresses: [{ip: 192.0.2.8, nodeName: b}]
  ports: [{port: 5432}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: web, namespace: shop}
subsets: [{addresses: [{ip: 192.0.2.9}], ports: [{port: 80}]}]
";
    check(
        &[("shop.yaml", text)],
        &[],
        &expect![[r#"
        Service shop/db ClusterIP Addresses([10.96.216.126]) :5432/TCP
        Service shop/web ClusterIP Addresses([10.96.126.194]) :80/TCP
        Endpoints shop/db
        EndpointSlice shop/endpoints:db:0 of db: :5432/TCP
          192.0.2.7 ready=true serving=true terminating=false node=None hostname=None pod=None
          192.0.2.8 ready=false serving=false terminating=false node=Some("b") hostname=None pod=None
        Namespace shop
        ! Endpoints shop/web: without effect, the Service of that name has a selector
    "#]],
    );
}

#[test]
fn scenario_07_slices_without_use_are_skipped() {
    let slice = |name: &str, rest: &str| {
        format!(
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: {name}, labels: {{kubernetes.io/service-name: web}}}}\n{rest}\n---\n"
        )
    };
    let text = [
        slice("named", "addressType: FQDN\nendpoints: [{addresses: [a.example]}]\nports: [{port: 80}]"),
        slice(
            "nulls",
            "addressType: IPv4\nendpoints: [{addresses: [192.0.2.1]}]\nports: [{port: 80}, {name: a}, {name: b, port: 0}]",
        ),
        slice(
            "none",
            "addressType: IPv4\nendpoints: [{addresses: []}, {addresses: [192.0.2.2, 192.0.2.3]}]\nports: [{port: 81}]",
        ),
        slice("six", "addressType: IPv6\nendpoints: [{addresses: [192.0.2.1]}]\nports: [{port: 80}]"),
        slice(
            "mad",
            "addressType: IPv4\nendpoints: [{addresses: [192.0.2.4]}]\nports: [{port: 80}, {port: 65536}]",
        ),
        slice("type", "endpoints: [{addresses: [192.0.2.4]}]\nports: []"),
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: lone}\naddressType: IPv4\n"
            .to_owned(),
    ];
    check(
        &[("slices.yaml", &text.concat())],
        &[],
        &expect![[r#"
        EndpointSlice default/none of web: :81/TCP
          192.0.2.2 ready=true serving=true terminating=false node=None hostname=None pod=None
        EndpointSlice default/nulls of web: :80/TCP
          192.0.2.1 ready=true serving=true terminating=false node=None hostname=None pod=None
        ! slices.yaml, document 4, EndpointSlice default/six: endpoints[0].addresses[0]: 192.0.2.1 is not an IPv6 address
        ! slices.yaml, document 5, EndpointSlice default/mad: ports[1].port: 65536 is not a port (1 to 65535)
        ! slices.yaml, document 6, EndpointSlice default/type: addressType: "" is none of IPv4, IPv6, FQDN
        ! ignored: 2 EndpointSlice of names or of no service
    "#]],
    );
}

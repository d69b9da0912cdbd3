//! Tables: an object of the API as JSON, and the model's value or the fault. No file, no server: what they send
//! is tested where they are read.

use std::fmt::Debug;

use expect_test::{Expect, expect};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::*;

fn check<A: DeserializeOwned, T: Debug>(
    object: Value,
    convert: impl Fn(&A) -> Result<T, BadObject>,
    expected: &Expect,
) {
    let object: A = serde_json::from_value(object).unwrap();
    match convert(&object) {
        Ok(value) => expected.assert_eq(&format!("{value:#?}\n")),
        Err(fault) => expected.assert_eq(&format!("{fault}\n")),
    }
}

fn check_service(spec: &Value, expected: &Expect) {
    let metadata = json!({"name": "web", "namespace": "shop", "creationTimestamp": "2024-01-02T03:04:05Z"});
    check(json!({"metadata": metadata, "spec": spec}), service, expected);
}

#[test]
fn the_defaults_of_the_api() {
    check_service(
        &json!({"clusterIP": "10.96.0.9", "ports": [{"port": 80}], "sessionAffinity": "ClientIP"}),
        &expect![[r#"
        Service {
            name: shop/web,
            created: 1704164645,
            kind: ClusterIp,
            cluster_ips: Addresses(
                [
                    10.96.0.9,
                ],
            ),
            ports: [
                ServicePort {
                    name: "",
                    protocol: Tcp,
                    port: 80,
                    node_port: None,
                },
            ],
            external_ips: [],
            load_balancer: LoadBalancer {
                ips: [],
                source_ranges: [],
                health_check_port: None,
            },
            traffic: Traffic {
                internal: Cluster,
                external: Cluster,
                affinity: ClientIp {
                    timeout_seconds: 10800,
                },
            },
            publish_not_ready: false,
            proxied_elsewhere: false,
        }
    "#]],
    );
}

#[test]
fn everything_that_is_written() {
    let object = json!({
        "metadata": {"name": "web", "labels": {"service.kubernetes.io/service-proxy-name": ""}},
        "spec": {
            "type": "LoadBalancer", "clusterIPs": ["fd00::9", "10.96.0.9"], "externalIPs": ["192.0.2.1"],
            "internalTrafficPolicy": "Local", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000,
            "loadBalancerSourceRanges": [" 10.1.2.3/8 ", "::/0"], "publishNotReadyAddresses": true,
            "ports": [{"name": "dns", "port": 53, "protocol": "UDP", "nodePort": 30053}],
        },
        "status": {"loadBalancer": {"ingress": [
            {"ip": "203.0.113.1"}, {"hostname": "lb.example"}, {"ip": "203.0.113.2", "ipMode": "Proxy"}]}},
    });
    check(
        object,
        service,
        &expect![[r#"
        Service {
            name: default/web,
            created: 0,
            kind: LoadBalancer,
            cluster_ips: Addresses(
                [
                    fd00::9,
                    10.96.0.9,
                ],
            ),
            ports: [
                ServicePort {
                    name: "dns",
                    protocol: Udp,
                    port: 53,
                    node_port: Some(
                        30053,
                    ),
                },
            ],
            external_ips: [
                192.0.2.1,
            ],
            load_balancer: LoadBalancer {
                ips: [
                    LoadBalancerIp {
                        ip: 203.0.113.1,
                        mode: Vip,
                    },
                    LoadBalancerIp {
                        ip: 203.0.113.2,
                        mode: Proxy,
                    },
                ],
                source_ranges: [
                    10.0.0.0/8,
                    ::/0,
                ],
                health_check_port: Some(
                    32000,
                ),
            },
            traffic: Traffic {
                internal: Local,
                external: Local,
                affinity: None,
            },
            publish_not_ready: true,
            proxied_elsewhere: true,
        }
    "#]],
    );
}

#[test]
fn kinds_of_services() {
    check_service(
        &json!({"clusterIP": "None"}),
        &expect![[r#"
        Service {
            name: shop/web,
            created: 1704164645,
            kind: ClusterIp,
            cluster_ips: Headless,
            ports: [],
            external_ips: [],
            load_balancer: LoadBalancer {
                ips: [],
                source_ranges: [],
                health_check_port: None,
            },
            traffic: Traffic {
                internal: Cluster,
                external: Cluster,
                affinity: None,
            },
            publish_not_ready: false,
            proxied_elsewhere: false,
        }
    "#]],
    );
    check_service(
        &json!({"type": "ExternalName", "externalName": "a.example.", "clusterIP": "10.96.0.9"}),
        &expect![[r#"
        Service {
            name: shop/web,
            created: 1704164645,
            kind: ExternalName(
                "a.example",
            ),
            cluster_ips: Addresses(
                [],
            ),
            ports: [],
            external_ips: [],
            load_balancer: LoadBalancer {
                ips: [],
                source_ranges: [],
                health_check_port: None,
            },
            traffic: Traffic {
                internal: Cluster,
                external: Cluster,
                affinity: None,
            },
            publish_not_ready: false,
            proxied_elsewhere: false,
        }
    "#]],
    );
}

#[test]
fn services_that_are_refused() {
    check_service(
        &json!({"type": "ExternalName", "externalName": "a..example"}),
        &expect![[r#"
        Service shop/web: spec.externalName: "a..example" is not a DNS name
    "#]],
    );
    check_service(
        &json!({"ports": [{"name": "a", "port": 80}, {"name": "b", "port": 70000}]}),
        &expect![[r#"
        Service shop/web: spec.ports[1].port: 70000 is not a port (1 to 65535)
    "#]],
    );
    check(
        json!({"metadata": {"name": "web"}}),
        service,
        &expect![[r#"
        Service default/web: spec: is missing
    "#]],
    );
    check(
        json!({"metadata": {"name": "Web"}, "spec": {}}),
        service,
        &expect![[r#"
        Service default/Web: metadata.name: "Web" is not a DNS name
    "#]],
    );
    check(
        json!({"metadata": {"name": "web", "namespace": "a.b"}, "spec": {}}),
        service,
        &expect![[r#"
        Service a.b/web: metadata.namespace: "a.b" is not a DNS label (lower-case letters, digits and -, at most 63)
    "#]],
    );
}

#[test]
fn an_endpoint_with_all_its_facts() {
    let object = json!({
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv6",
        "endpoints": [{
            "addresses": ["fd00::1"], "nodeName": "a", "zone": "z1", "hostname": "one",
            "conditions": {"ready": false, "terminating": true},
            "hints": {"forZones": [{"name": "z1"}], "forNodes": [{"name": "a"}]},
            "targetRef": {"kind": "Pod", "name": "web-1"},
        }, {"addresses": ["fd00::2"], "targetRef": {"kind": "Node", "name": "a"}, "hostname": "Two"}],
        "ports": [{"port": 80}],
    });
    check(
        object.clone(),
        endpoint_slice,
        &expect![[r#"
        EndpointSlice shop/web-1: endpoints[1].hostname: "Two" is not a DNS label (lower-case letters, digits and -, at most 63)
    "#]],
    );
    let mut good = object;
    good["endpoints"].as_array_mut().unwrap().pop();
    check(
        good,
        endpoint_slice,
        &expect![[r#"
            Some(
                EndpointSlice {
                    name: shop/web-1,
                    service: "web",
                    ports: [
                        EndpointPort {
                            name: "",
                            protocol: Tcp,
                            port: 80,
                        },
                    ],
                    endpoints: [
                        Endpoint {
                            address: fd00::1,
                            conditions: Conditions {
                                ready: false,
                                serving: true,
                                terminating: true,
                            },
                            location: Some(
                                Location {
                                    node: Some(
                                        "a",
                                    ),
                                    zone: Some(
                                        "z1",
                                    ),
                                },
                            ),
                            hostname: Some(
                                "one",
                            ),
                            hints: Some(
                                Hints {
                                    zones: [
                                        "z1",
                                    ],
                                    nodes: [
                                        "a",
                                    ],
                                },
                            ),
                            pod: Some(
                                "web-1",
                            ),
                        },
                    ],
                },
            )
        "#]],
    );
}

#[test]
fn legacy_endpoints() {
    let subset = |address: &str| {
        json!({"metadata": {"name": "db"}, "subsets": [
            {"addresses": [{"ip": address}], "ports": [{"port": 0}, {"port": 80, "name": "a"}]}]})
    };
    check(
        subset("192.0.2.1"),
        endpoints,
        &expect![[r#"
            Endpoints {
                name: default/db,
                subsets: [
                    EndpointsSubset {
                        endpoints: [
                            Endpoint {
                                address: 192.0.2.1,
                                conditions: Conditions {
                                    ready: true,
                                    serving: true,
                                    terminating: false,
                                },
                                location: None,
                                hostname: None,
                                hints: None,
                                pod: None,
                            },
                        ],
                        ports: [
                            EndpointPort {
                                name: "a",
                                protocol: Tcp,
                                port: 80,
                            },
                        ],
                    },
                ],
            }
        "#]],
    );
    check(
        subset("192.0.2.256"),
        endpoints,
        &expect![[r#"
        Endpoints default/db: subsets[0].addresses[0].ip: "192.0.2.256" is not an IP address
    "#]],
    );
}

#[test]
fn nodes() {
    let taint = json!([{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]);
    check(
        json!({
            "metadata": {"name": "a", "labels": {"topology.kubernetes.io/zone": "z1"}},
            "spec": {"podCIDR": "10.1.0.0/24", "taints": taint},
            "status": {"addresses": [
                {"type": "Hostname", "address": "a"}, {"type": "InternalIP", "address": "192.0.2.1"},
                {"type": "ExternalIP", "address": "203.0.113.1"}, {"type": "InternalIP", "address": "fd00::1"}]},
        }),
        node,
        &expect![[r#"
            Node {
                name: "a",
                zone: Some(
                    "z1",
                ),
                addresses: [
                    192.0.2.1,
                    fd00::1,
                ],
                pod_cidrs: [
                    10.1.0.0/24,
                ],
                leaving: true,
            }
        "#]],
    );
    check(
        json!({"metadata": {"name": "a"}, "spec": {"podCIDRs": ["10.1.0.0"]}}),
        node,
        &expect![[r#"
        Node a: spec.podCIDRs[0]: "10.1.0.0" is not a CIDR
    "#]],
    );
    let leaving = json!({"metadata": {"name": "a", "deletionTimestamp": "2024-01-02T03:04:05Z"}});
    check(
        leaving,
        |object| node(object).map(|node| node.leaving),
        &expect![[r#"
        true
    "#]],
    );
}

#[test]
fn a_pod_that_has_ended_has_no_address() {
    let pod_in = |phase: &str| {
        json!({"metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}},
               "spec": {"nodeName": "a", "containers": []},
               "status": {"phase": phase, "podIP": "10.1.0.2", "podIPs": [{"ip": "10.1.0.2"}, {"ip": "fd00::2"}]}})
    };
    check(
        pod_in("Running"),
        pod,
        &expect![[r#"
        Pod {
            name: shop/web-1,
            addresses: [
                10.1.0.2,
                fd00::2,
            ],
            labels: {
                "app": "web",
            },
            node: Some(
                "a",
            ),
            host_network: false,
        }
    "#]],
    );
    check(
        pod_in("Succeeded"),
        |object| pod(object).map(|pod| pod.addresses),
        &expect![[r#"
        []
    "#]],
    );
}

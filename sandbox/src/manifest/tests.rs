//! Tables of manifests: real ones, and the mistakes that real ones have. Each mistake is one whole sentence, so
//! that a change of words is seen here.

use super::*;

fn error(text: &str) -> String {
    read_pod("pod.yaml", text).unwrap_err().to_string()
}

fn pod(lines: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n{lines}")
}

const CONTAINERS: &str = "spec:\n  containers:\n  - name: c\n    command: [sleep, '1']\n";

#[test]
fn a_real_manifest() {
    let text = r#"
apiVersion: v1
kind: Service
metadata: {name: web}
---
apiVersion: v1
kind: Pod
metadata:
  name: web
  namespace: shop
  labels: {app: web}
  annotations:
spec:
  hostname: w
  subdomain: sub
  hostAliases:
  - ip: 172.24.238.8
    hostnames: [cka01, master]
  dnsPolicy: None
  dnsConfig:
    nameservers: [1.1.1.1]
    options: [{name: ndots, value: "2"}, {name: edns0}]
  terminationGracePeriodSeconds: 3
  restartPolicy: Never
  volumes:
  - name: data
    emptyDir: {medium: Memory}
  initContainers:
  - {name: first, image: busybox, command: [true-ish], restartPolicy: Always, ports: [{containerPort: 9}]}
  containers:
  - name: c
    image: nginx
    resources: {limits: {cpu: 1}}
    livenessProbe: {httpGet: {port: 80}}
    ports:
    - {name: http, containerPort: 80, hostPort: 8081, hostIP: 127.0.0.1}
    - {containerPort: 53, protocol: UDP}
    env:
    - {name: A, value: b}
    - name: IP
      valueFrom: {fieldRef: {fieldPath: status.podIP}}
    volumeMounts: [{name: data, mountPath: /data, readOnly: true}]
"#;
    let Manifest { pod, without_effect } = read_pod("pod.yaml", text).unwrap();
    let expected = [
        "spec.containers[0].livenessProbe",
        "spec.containers[0].resources",
        "spec.restartPolicy",
        "spec.volumes[0].emptyDir.medium",
    ];
    let mut sorted = without_effect;
    sorted.sort();
    assert_eq!(sorted, expected);
    assert_eq!(pod.id(), crate::PodId { namespace: "shop".into(), name: "web".into() });
    let ports: Vec<_> = pod.ports().into_iter().map(|port| (port.container_port, port.protocol)).collect();
    assert_eq!(ports, [(80, "TCP".into()), (53, "UDP".into()), (9, "TCP".into())]);
    assert_eq!(pod.work.termination_grace_period_seconds, 3);
    assert_eq!(pod.naming.host_aliases[0].hostnames, ["cka01", "master"]);
}

#[test]
fn json_too() {
    let text =
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"containers":[{"name":"c"}]}}"#;
    assert_eq!(read_pod("pod.json", text).unwrap().pod.metadata.namespace, "default");
}

#[test]
fn the_mistakes_of_real_manifests() {
    for (text, expected) in [
        (
            "apiVersion: v1\nkind: Pod\nmetatada:\n  name: web\n".to_owned(),
            "pod.yaml: Pod: metatada: there is no such field; did you mean metadata?",
        ),
        (
            pod("spec:\n  containers:\n  - name: c\n    ports: [{containerPort: 1, protocel: UDP}]\n"),
            "pod.yaml: Pod default/web: spec.containers[0].ports[0].protocel: there is no such field; \
             did you mean protocol?",
        ),
        (
            pod("spec:\n  containers:\n  - name: c\n    images: nginx\n"),
            "pod.yaml: Pod default/web: spec.containers[0].images: there is no such field; did you mean image?",
        ),
        (
            pod(
                "spec:\n  containers: [{name: c}]\n  hostAliases:\n  - ip: 1.2.3.4\n    hostnames: \"cka01\"\n",
            ),
            "pod.yaml: Pod default/web: spec.hostAliases[0].hostnames: invalid type: string \"cka01\", \
             expected a sequence",
        ),
        (
            pod(CONTAINERS).replace("v1", "vl"),
            "pod.yaml: Pod default/web: apiVersion: \"vl\" is not that of a Pod; did you mean \"v1\"?",
        ),
        (pod("").replace("Pod", "Endpoint"), "pod.yaml: kind: no Pod in it, but \"Endpoint\""),
        (pod(""), "pod.yaml: Pod default/web: spec: is missing"),
        (
            pod("spec:\n  containers: [{name: c, ports: [{containerPort: 70000}]}]\n"),
            "pod.yaml: Pod default/web: spec.containers[0].ports[0].containerPort: \
             70000 is not a port: a number from 1 to 65535",
        ),
        (
            pod("spec:\n  containers: [{name: c, ports: [{containerPort: 1, protocol: tcp}]}]\n"),
            "pod.yaml: Pod default/web: spec.containers[0].ports[0].protocol: unknown variant `tcp`, \
             expected one of `TCP`, `UDP`, `SCTP`",
        ),
        (
            pod("spec:\n  containers: [{name: c, env: [{name: A, value: 8080}]}]\n"),
            "pod.yaml: Pod default/web: spec.containers[0].env[0].value: invalid type: integer `8080`, \
             expected a string",
        ),
        (
            pod("spec:\n  containers: [{name: c}]\n  hostAliases: [{ip: 1.2.3.400}]\n"),
            "pod.yaml: Pod default/web: spec.hostAliases[0].ip: invalid IP address syntax",
        ),
    ] {
        assert_eq!(error(&text), expected);
    }
}

#[test]
fn what_belongs_together() {
    for (text, expected) in [
        (
            pod("spec:\n  containers: [{name: c, volumeMounts: [{name: v, mountPath: /v}]}]\n"),
            "pod.yaml: Pod default/web: spec.containers[0].volumeMounts[0].name: there is no volume \"v\"",
        ),
        (
            pod("spec:\n  containers: [{name: c}, {name: c}]\n"),
            "pod.yaml: Pod default/web: spec.containers[1].name: \"c\" is the name of another container too",
        ),
        (
            pod("spec:\n  containers: [{}]\n"),
            "pod.yaml: Pod default/web: spec.containers[0].name: is missing",
        ),
        (
            pod("spec: {containers: []}\n"),
            "pod.yaml: Pod default/web: spec.containers: is empty; a Pod has at least one",
        ),
        (
            pod("spec:\n  containers: [{name: c}]\n  dnsPolicy: None\n"),
            "pod.yaml: Pod default/web: spec.dnsConfig.nameservers: is wanted with dnsPolicy None",
        ),
        (
            pod(
                "spec:\n  containers: [{name: c}]\n  dnsConfig: {nameservers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4]}\n",
            ),
            "pod.yaml: Pod default/web: spec.dnsConfig.nameservers: 4 entries, and 3 are the most",
        ),
        (
            pod("spec:\n  containers: [{name: c}]\n  dnsConfig: {searches: [a.b., ., _tcp.c, 'd e']}\n"),
            "pod.yaml: Pod default/web: spec.dnsConfig.searches[3]: \"d e\" is not a search domain: at most 253 of \
             a-z, 0-9, -, _ and .",
        ),
        (
            pod("spec:\n  containers: [{name: c}]\n  dnsConfig: {options: [{name: edns0}, {value: '5'}]}\n"),
            "pod.yaml: Pod default/web: spec.dnsConfig.options[1]: missing field `name`",
        ),
        (
            pod(
                "spec:\n  containers: [{name: c}]\n  dnsConfig: {options: [{name: ndots, value: '5 debug'}]}\n",
            ),
            "pod.yaml: Pod default/web: spec.dnsConfig.options[0]: a name is wanted, and no blank in it or in the value",
        ),
        (
            pod("spec:\n  containers: [{name: c}]\n  hostAliases: [{ip: '::1', hostnames: [a, B_c]}]\n"),
            "pod.yaml: Pod default/web: spec.hostAliases[0].hostnames[1]: \"B_c\" is not a DNS name: at most 253 of \
             a-z, 0-9, - and .",
        ),
        (
            pod(
                "spec:\n  containers: [{name: c, env: [{name: A, valueFrom: {fieldRef: {fieldPath: status.podlP}}}]}]\n",
            ),
            "pod.yaml: Pod default/web: spec.containers[0].env[0].valueFrom.fieldRef.fieldPath: \"status.podlP\" is \
             not known here; metadata.name, metadata.namespace, spec.nodeName, spec.serviceAccountName, \
             status.hostIP, status.hostIPs, status.podIP, status.podIPs, metadata.labels['KEY'] and \
             metadata.annotations['KEY'] are",
        ),
        (String::new(), "pod.yaml: nothing in it; a Pod is wanted"),
    ] {
        assert_eq!(error(&text), expected);
    }
}

#[test]
fn what_is_not_yaml_says_where() {
    let message = error("apiVersion: v1\nkind: [Pod\n");
    assert!(message.starts_with("pod.yaml: not YAML: "), "{message}");
    assert_eq!(message.lines().count(), 1);
}

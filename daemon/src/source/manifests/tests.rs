//! Tables: what is written, and what comes of it.

use std::collections::BTreeMap;
use std::fmt::Write;

use expect_test::{Expect, expect};
use model::{Event, Kind, Node, Object};
use sandbox::{ContainerPort, PodId, Record};

use super::{Cluster, load_texts};

fn cluster() -> Cluster {
    Cluster {
        service_cidrs: vec!["10.96.0.0/16".parse().unwrap()],
        cluster_dns: None,
        node: Node {
            name: "a".into(),
            zone: None,
            addresses: vec!["192.0.2.1".parse().unwrap()],
            pod_cidrs: vec!["10.1.0.0/24".parse().unwrap()],
            leaving: false,
        },
    }
}

fn check_problems(files: &[(&str, &str)], expected: &Expect) {
    let (_, mut problems) = load_texts(files, &[], &cluster());
    problems.sort();
    expected.assert_eq(&problems.iter().map(|problem| format!("{problem}\n")).collect::<String>());
}

#[test]
fn a_wrong_object_is_named_and_the_others_are_served() {
    check_problems(
        &[("shop.yaml", r#"
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: shop}
spec:
  ports: [{port: 80}]
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  ports: [{port: http}]
---
apiVersion: v1
kind: Service
metadata: {name: big, namespace: shop}
spec:
  ports: [{port: 80, name: a}, {port: 70000, name: b}]
"#)],
        &expect![[r#""#]],
    );
}

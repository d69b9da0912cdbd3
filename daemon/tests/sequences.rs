//! Whatever happens to the objects of a cluster, in whatever order, twice, broken, listed anew: the tables are
//! those of the objects that are there in the end. Over random objects of the API, as a source converts them.
//!
//! `FAIRWAY_SEQUENCES` says how many sequences to try instead of 100,000; a failure names its seed.
#![expect(clippy::unwrap_used, reason = "everything here is a test")]

use std::collections::BTreeMap;
use std::sync::Arc;

use fairway::source::convert;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use model::{Cluster, Event, Kind, Object, ObjectName, Snapshot};
use proxy::{Conflict, Facts, HealthPorts, Planner, Tables};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};

const SEQUENCES: u64 = 100_000;
const THREADS: usize = 2;
const EVENTS: usize = 10;
/// Random objects that the sequences draw from.
const SERVICES: usize = 300;
const SLICES: usize = 300;

/// An object of the API: its name, and what a source makes of it. Nothing for one that is broken or says nothing.
#[derive(Clone)]
struct Seen {
    kind: Kind,
    name: ObjectName,
    object: Option<Object>,
}

/// What is there, by kind and name.
type Objects = BTreeMap<(Kind, ObjectName), Object>;

#[test]
fn any_sequence_leads_to_the_tables_of_the_final_objects() {
    let count = std::env::var("FAIRWAY_SEQUENCES").ok().map_or(SEQUENCES, |text| text.parse().unwrap());
    let pool = pool();
    let broken = pool.iter().filter(|seen| seen.object.is_none()).count();
    assert!(broken > pool.len() / 20, "{broken} of {} objects are broken", pool.len());
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let pool = &pool;
            scope.spawn(move || (0..count).skip(thread).step_by(THREADS).for_each(|seed| check(pool, seed)));
        }
    });
}

/// One sequence.
fn check(pool: &[Seen], seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut cluster = Cluster::new();
    let mut planner = Planner::new(facts());
    let mut objects = Objects::new();
    for kind in Kind::ALL {
        cluster.apply(Event::Replace(kind, Vec::new()));
    }
    for _ in 0..EVENTS {
        let seen = pool.choose(&mut random).unwrap();
        for event in events(&mut random, pool, seen, &mut objects) {
            cluster.apply(event);
        }
        // The consumers see some states and not others.
        if random.random_bool(0.3) {
            planner.update(&cluster.snapshot(), &facts());
        }
    }
    let tables = planner.update(&cluster.snapshot(), &facts()).clone();
    let incremental = (tables, planner.conflicts(), planner.health_ports().clone());
    let fresh = fresh(&objects);
    assert!(incremental == fresh, "seed {seed}:\n{}\nis not\n{}", incremental.0.dump(), fresh.0.dump());
}

/// What a source says when it sees an object, or loses it, or lists its kind anew.
fn events(random: &mut StdRng, pool: &[Seen], seen: &Seen, objects: &mut Objects) -> Vec<Event> {
    let key = (seen.kind, seen.name.clone());
    let apply = match &seen.object {
        Some(object) => Event::Apply(object.clone()),
        // An object that cannot be taken is as good as gone.
        None => Event::Delete(seen.kind, seen.name.clone()),
    };
    match random.random_range(0..10) {
        0..=6 => {
            objects.remove(&key);
            objects.extend(seen.object.clone().map(|object| (key, object)));
            vec![apply]
        }
        7 => {
            objects.remove(&key);
            objects.extend(seen.object.clone().map(|object| (key, object)));
            vec![apply.clone(), apply]
        }
        8 => {
            objects.remove(&key);
            vec![Event::Delete(seen.kind, seen.name.clone())]
        }
        _ => {
            objects.retain(|(kind, _), _| *kind != seen.kind);
            let listed = pool.sample(random, 6).filter(|other| other.kind == seen.kind);
            for other in listed {
                objects.extend(other.object.clone().map(|object| ((other.kind, other.name.clone()), object)));
            }
            vec![Event::Replace(seen.kind, of(objects, seen.kind))]
        }
    }
}

fn of(objects: &Objects, kind: Kind) -> Vec<Object> {
    objects.iter().filter(|((of, _), _)| *of == kind).map(|(_, object)| object.clone()).collect()
}

/// The final objects alone.
fn fresh(objects: &Objects) -> (Tables, Vec<Conflict>, HealthPorts) {
    let mut cluster = Cluster::new();
    Kind::ALL.into_iter().for_each(|kind| cluster.apply(Event::Replace(kind, of(objects, kind))));
    let snapshot: Arc<Snapshot> = cluster.snapshot();
    let mut planner = Planner::new(facts());
    let tables = planner.update(&snapshot, &facts()).clone();
    (tables, planner.conflicts(), planner.health_ports().clone())
}

fn facts() -> Facts {
    Facts {
        name: "a".into(),
        zone: Some("z1".into()),
        addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        node_port_addresses: vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()],
        cluster_dns: vec!["10.96.0.1".parse().unwrap()],
    }
}

fn pool() -> Vec<Seen> {
    let mut random = StdRng::seed_from_u64(0);
    let services = (0..SERVICES).map(|_| {
        let text = service(&mut StdRng::seed_from_u64(random.random()));
        let object: core::Service = serde_json::from_value(text).unwrap();
        let taken = convert::service(&object).ok().map(Object::Service);
        seen(Kind::Service, &object.metadata, taken)
    });
    let mut pool: Vec<Seen> = services.collect();
    pool.extend((0..SLICES).map(|_| {
        let object: discovery::EndpointSlice = serde_json::from_value(slice(&mut random)).unwrap();
        let taken = convert::endpoint_slice(&object).ok().flatten().map(Object::EndpointSlice);
        seen(Kind::EndpointSlice, &object.metadata, taken)
    }));
    pool
}

fn seen(
    kind: Kind,
    metadata: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    object: Option<Object>,
) -> Seen {
    let name = ObjectName::new(metadata.namespace.as_deref().unwrap(), metadata.name.as_deref().unwrap());
    Seen { kind, name, object }
}

fn pick<T: Clone>(random: &mut StdRng, values: &[T]) -> T {
    values.choose(random).unwrap().clone()
}

/// A Service out of four names, which share few addresses and ports; every tenth is broken.
fn service(random: &mut StdRng) -> Value {
    let kind =
        pick(random, &["ClusterIP", "ClusterIP", "NodePort", "LoadBalancer", "LoadBalancer", "ExternalName"]);
    let v4 = pick(random, &["10.96.0.1", "10.96.0.2", "10.96.0.3", "172.31.0.1", "127.0.0.1", "224.0.0.1"]);
    let v6 = pick(random, &["fd00:96::1", "fd00:96::2"]);
    let both = [vec![v4], vec![v6], vec![v4, v6], vec![]];
    let mut ips = json!(pick(random, &both));
    if kind == "ClusterIP" && random.random_bool(0.1) {
        ips = json!(["None"]);
    }
    let with_node_port = kind == "NodePort" || kind == "LoadBalancer";
    let ports: Vec<Value> = (0..random.random_range(1..3))
        .map(|n| {
            let mut port = json!({
                "name": format!("p{n}"), "port": 80 + n,
                "protocol": pick(random, &["TCP", "TCP", "UDP", "SCTP"]),
            });
            if with_node_port {
                port["nodePort"] = json!(30000 + 2 * random.random_range(0..3) + n);
            }
            port
        })
        .collect();
    let mut object = json!({
        "metadata": {
            "name": pick(random, &["s0", "s1", "s2", "s3"]), "namespace": "shop",
            "creationTimestamp": format!("2026-01-0{}T00:00:00Z", random.random_range(1..4)),
        },
        "spec": {
            "type": kind, "clusterIPs": ips, "ports": ports,
            "internalTrafficPolicy": pick(random, &["Cluster", "Local"]),
            "externalTrafficPolicy": pick(random, &["Cluster", "Local"]),
            "sessionAffinity": pick(random, &["None", "ClientIP"]),
            "externalIPs": pick(random, &[vec![], vec!["198.51.100.1"], vec!["198.51.100.1", "10.96.0.2"]]),
            "publishNotReadyAddresses": random.random_bool(0.2),
        },
    });
    if kind == "LoadBalancer" {
        let mode = pick(random, &["VIP", "Proxy"]);
        object["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1", "ipMode": mode}]}});
        object["spec"]["loadBalancerSourceRanges"] =
            pick(random, &[json!([]), json!([" 10.0.0.0/8 "]), json!(["0.0.0.0/0"])]);
        object["spec"]["healthCheckNodePort"] = json!(32000 + random.random_range(0..2));
    }
    if kind == "ExternalName" {
        object["spec"]["externalName"] = json!("www.example.com");
    }
    if random.random_bool(0.1) {
        object["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "other"});
    }
    if random.random_bool(0.1) {
        break_one(random, &mut object["spec"]);
    }
    object
}

fn break_one(random: &mut StdRng, spec: &mut Value) {
    match random.random_range(0..4) {
        0 => spec["ports"][0]["port"] = json!(70_000),
        1 => spec["clusterIPs"] = json!(["10.96.0"]),
        2 => spec["type"] = json!("Balanced"),
        _ => spec["externalTrafficPolicy"] = json!("Nearby"),
    }
}

/// An EndpointSlice out of six names, which may move from one service to another; some are broken.
fn slice(random: &mut StdRng) -> Value {
    let family = pick(random, &["IPv4", "IPv4", "IPv4", "IPv6", "FQDN"]);
    let endpoints: Vec<Value> = (0..random.random_range(0..4)).map(|_| endpoint(random, family)).collect();
    let ports: Vec<Value> = (0..random.random_range(1..3))
        .map(|n| {
            let number = pick(random, &[json!(8080), json!(9090), json!(0), Value::Null]);
            json!({"name": format!("p{n}"), "port": number, "protocol": pick(random, &["TCP", "TCP", "UDP"])})
        })
        .collect();
    let service = pick(random, &["s0", "s1", "s2", "s3"]);
    let mut object = json!({
        "metadata": {
            "name": format!("slice-{}", random.random_range(0..6)), "namespace": "shop",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": family, "endpoints": endpoints, "ports": ports,
    });
    if random.random_bool(0.1) {
        object["addressType"] = json!("IPX");
    }
    object
}

fn endpoint(random: &mut StdRng, family: &str) -> Value {
    let address = match family {
        "IPv6" => format!("fd00:244::{}", random.random_range(1..5)),
        "FQDN" => "www.example.com".to_owned(),
        _ => pick(random, &["10.244.0.1", "10.244.0.2", "10.244.1.3", "127.0.0.1", "169.254.1.1"]).to_owned(),
    };
    let condition =
        |random: &mut StdRng| pick(random, &[json!(true), json!(true), json!(false), Value::Null]);
    let hints = pick(
        random,
        &[
            Value::Null,
            json!({"forZones": [{"name": "z1"}]}),
            json!({"forZones": [{"name": "z2"}], "forNodes": [{"name": "a"}]}),
        ],
    );
    json!({
        "addresses": [address],
        "conditions": {"ready": condition(random), "serving": condition(random), "terminating": condition(random)},
        "nodeName": pick(random, &["a", "b"]), "zone": pick(random, &["z1", "z2"]), "hints": hints,
    })
}

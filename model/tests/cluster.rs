//! What a cluster says after events: tables for each rule of the reducer, and the properties that make the
//! order and the repetition of events irrelevant.

use std::sync::Arc;

use model::testing::{self, endpoint, name, service, slice};
use model::{Cluster, Endpoints, EndpointsSubset, Event, Kind, Object, Snapshot};
use proptest::prelude::*;

fn addresses(snapshot: &Snapshot, service_name: &str) -> Vec<String> {
    let member = &snapshot.services[&name(service_name)];
    let port = &member.service.ports[0];
    member.endpoints(port, "a").iter().map(|e| format!("{}:{}", e.address, e.port)).collect()
}

#[test]
fn scenario_05_one_deleted_slice_removes_only_its_own_endpoints() {
    let mut cluster = testing::listed([
        service("web", &["10.96.0.1"]).port("http:80/TCP").into(),
        slice("web-1", "web").port("http:8080/TCP").ready(&["10.244.0.1", "10.244.0.2"]).into(),
        slice("web-2", "web").port("http:8080/TCP").ready(&["10.244.0.2", "10.244.0.3"]).into(),
        slice("web-3", "web").port("http:8080/TCP").ready(&["10.244.0.4"]).into(),
    ]);
    cluster.apply(Event::Delete(Kind::EndpointSlice, name("web-2")));
    let found = addresses(&cluster.snapshot(), "web");
    assert_eq!(found, ["10.244.0.1:8080", "10.244.0.2:8080", "10.244.0.4:8080"]);
}

#[test]
fn scenario_06_an_address_in_two_slices_counts_once_and_is_local_if_either_says_so() {
    let snapshot = testing::snapshot([
        service("web", &["10.96.0.1"]).port("80/TCP").into(),
        slice("web-1", "web").port("8080/TCP").with(endpoint("10.244.0.1").terminating(true)).into(),
        slice("web-2", "web").port("8080/TCP").with(endpoint("10.244.0.1").on("a")).into(),
    ]);
    let member = &snapshot.services[&name("web")];
    let found = member.endpoints(&member.service.ports[0], "a");
    assert_eq!(found.len(), 1);
    assert!(found[0].local && found[0].conditions.ready && !found[0].conditions.terminating);
}

#[test]
fn slices_may_come_before_their_service_and_outlive_it() {
    let mut cluster = testing::listed([slice("web-1", "web").port("8080/TCP").ready(&["10.244.0.1"]).into()]);
    assert!(cluster.snapshot().services.is_empty());
    let web = service("web", &["10.96.0.1"]).port("80/TCP");
    cluster.apply(Event::Apply(web.clone().into()));
    assert_eq!(addresses(&cluster.snapshot(), "web"), ["10.244.0.1:8080"]);
    cluster.apply(Event::Delete(Kind::Service, name("web")));
    assert!(cluster.snapshot().services.is_empty());
    cluster.apply(Event::Apply(web.into()));
    assert_eq!(addresses(&cluster.snapshot(), "web"), ["10.244.0.1:8080"]);
}

#[test]
fn a_slice_whose_label_changes_moves_to_the_other_service() {
    let mut cluster = testing::listed([
        service("old", &["10.96.0.1"]).port("80/TCP").into(),
        service("new", &["10.96.0.2"]).port("80/TCP").into(),
        slice("s", "old").port("8080/TCP").ready(&["10.244.0.1"]).into(),
    ]);
    cluster.apply(Event::Apply(slice("s", "new").port("8080/TCP").ready(&["10.244.0.1"]).into()));
    let snapshot = cluster.snapshot();
    assert_eq!((addresses(&snapshot, "old").len(), addresses(&snapshot, "new").len()), (0, 1));
}

#[test]
fn legacy_endpoints_follow_their_object_and_leave_slices_alone() {
    let subset = |address: &str| EndpointsSubset {
        endpoints: vec![endpoint(address)],
        ports: slice("x", "web").port("8080/TCP").ports,
    };
    let endpoints = |subsets| Event::Apply(Object::Endpoints(Endpoints { name: name("web"), subsets }));
    let mut cluster = testing::listed([
        service("web", &["10.96.0.1"]).port("80/TCP").into(),
        slice("web-1", "web").port("8080/TCP").ready(&["10.244.0.9"]).into(),
    ]);
    cluster.apply(endpoints(vec![subset("10.244.0.1"), subset("10.244.0.2")]));
    assert_eq!(addresses(&cluster.snapshot(), "web").len(), 3);
    cluster.apply(endpoints(vec![subset("10.244.0.1")]));
    assert_eq!(addresses(&cluster.snapshot(), "web"), ["10.244.0.1:8080", "10.244.0.9:8080"]);
    // A relist of slices is not a relist of Endpoints.
    cluster.apply(Event::Replace(Kind::EndpointSlice, Vec::new()));
    assert_eq!(addresses(&cluster.snapshot(), "web"), ["10.244.0.1:8080"]);
    cluster.apply(Event::Replace(Kind::Endpoints, Vec::new()));
    assert!(addresses(&cluster.snapshot(), "web").is_empty());
}

#[test]
fn scenario_35_a_snapshot_is_complete_only_when_services_slices_and_nodes_are_listed() {
    let mut cluster = Cluster::new();
    cluster.apply(Event::Apply(service("web", &["10.96.0.1"]).port("80/TCP").into()));
    for kind in [Kind::Service, Kind::EndpointSlice] {
        cluster.apply(Event::Replace(kind, Vec::new()));
        assert!(!cluster.snapshot().is_complete());
    }
    cluster.apply(Event::Replace(Kind::Node, Vec::new()));
    assert!(cluster.snapshot().is_complete());
}

#[test]
fn an_event_that_changes_nothing_leads_to_the_same_snapshot() {
    let web = service("web", &["10.96.0.1"]).port("80/TCP");
    let web_1 = slice("web-1", "web").port("8080/TCP").ready(&["10.244.0.1"]);
    let mut cluster = testing::listed([web.clone().into(), web_1.clone().into()]);
    let before = cluster.snapshot();
    for object in [Object::from(web), Object::from(web_1)] {
        cluster.apply(Event::Apply(object));
    }
    cluster.apply(Event::Delete(Kind::Service, name("never-there")));
    assert!(Arc::ptr_eq(&before, &cluster.snapshot()));
}

#[test]
fn the_difference_names_exactly_the_services_that_changed() {
    let many = (0..500).map(|n| Object::from(service(&format!("s{n}"), &[]).port("80/TCP")));
    let mut cluster = testing::listed(many);
    let before = cluster.snapshot();
    cluster.apply(Event::Apply(slice("x", "s250").port("8080/TCP").ready(&["10.244.0.1"]).into()));
    cluster.apply(Event::Delete(Kind::Service, name("s3")));
    cluster.apply(Event::Apply(service("s900", &[]).port("80/TCP").into()));
    let after = cluster.snapshot();
    let changed: Vec<_> = after
        .changed_since(&before)
        .map(|change| format!("{} {} {}", change.name, change.old.is_some(), change.new.is_some()))
        .collect();
    assert_eq!(changed, ["default/s250 true true", "default/s3 true false", "default/s900 false true"]);
}

fn view(cluster: &mut Cluster) -> Snapshot {
    Snapshot { generation: 0, listed: Default::default(), ..(*cluster.snapshot()).clone() }
}

fn after(events: &[Event]) -> Cluster {
    let mut cluster = Cluster::new();
    for event in events {
        cluster.apply(event.clone());
        // Looking in between must not matter.
        cluster.snapshot();
    }
    cluster
}

proptest! {
    #[test]
    fn a_relist_equals_the_changes_it_stands_for(events in testing::events(40), more in testing::events(20)) {
        let mut stepwise = after(&events);
        let mut relisted = after(&more);
        for event in testing::relist(&events) {
            relisted.apply(event);
        }
        prop_assert_eq!(view(&mut stepwise), view(&mut relisted));
    }

    #[test]
    fn the_order_of_the_final_objects_does_not_matter(
        events in testing::events(40),
        seed in any::<u64>(),
    ) {
        let mut objects: Vec<Event> = testing::relist(&events)
            .into_iter()
            .flat_map(|event| match event {
                Event::Replace(_, objects) => objects,
                Event::Apply(_) | Event::Delete(..) => unreachable!("a relist is replacements"),
            })
            .map(Event::Apply)
            .collect();
        let mut in_order = after(&objects);
        // A deterministic shuffle, with every object sent twice.
        objects.extend(objects.clone());
        let mut state = seed | 1;
        objects.sort_by_cached_key(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state >> 33
        });
        prop_assert_eq!(view(&mut in_order), view(&mut after(&objects)));
    }

    #[test]
    fn a_difference_applied_to_the_old_view_gives_the_new_one(
        events in testing::events(30),
        more in testing::events(10),
    ) {
        let mut cluster = after(&events);
        let old = cluster.snapshot();
        for event in more {
            cluster.apply(event);
        }
        let new = cluster.snapshot();
        let mut services = old.services.clone();
        for change in new.changed_since(&old) {
            match change.new {
                Some(member) => services.insert(change.name.clone(), Arc::clone(member)),
                None => services.remove(change.name),
            };
        }
        prop_assert_eq!(services, new.services.clone());
    }
}

//! Properties of the phases: whatever went before, what is learned is the snapshot, and what is forgotten
//! says nothing that has yet to be programmed.

#![allow(clippy::unwrap_used, reason = "a test that is wrong must fail at once")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use dns::{Names, Shape, Zone};
use model::testing::{events, listed, relist};
use model::{Event, ObjectName, Snapshot};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use support::config;

/// What is done after some events.
#[derive(Clone, Debug)]
enum Phase {
    Forget,
    Learn(BTreeSet<ObjectName>),
}

fn phases() -> impl Strategy<Value = Vec<(Vec<Event>, Phase)>> {
    let learn = unprogrammed().prop_map(Phase::Learn);
    vec((events(12), prop_oneof![Just(Phase::Forget), learn]), 0..6)
}

fn unprogrammed() -> impl Strategy<Value = BTreeSet<ObjectName>> {
    let namespace = prop::sample::select(&["default", "shop"]);
    btree_set((namespace, 0..4_u8).prop_map(|(ns, s)| ObjectName::new(ns, format!("s{s}"))), 0..3)
}

fn zone(names: &Names) -> Arc<Zone> {
    names.reader().zone()
}

fn fresh(snapshot: &Arc<Snapshot>, unprogrammed: &BTreeSet<ObjectName>) -> Arc<Zone> {
    let mut names = Names::new(config());
    names.learn(snapshot, unprogrammed);
    zone(&names)
}

/// The addresses said of a service that this node programs.
fn programmed_here(zone: &Zone, name: &ObjectName) -> Option<Vec<std::net::IpAddr>> {
    match &zone.service(name)?.shape {
        Shape::Cluster(names) if !names.elsewhere => Some(names.addresses.clone()),
        Shape::Cluster(_) | Shape::Headless(_) | Shape::External(_) => None,
    }
}

proptest! {
    #[test]
    fn learning_step_by_step_is_a_fresh_build(steps in phases(), last in unprogrammed()) {
        let mut cluster = listed([]);
        let mut names = Names::new(config());
        for (events, phase) in steps {
            events.into_iter().for_each(|event| cluster.apply(event));
            match phase {
                Phase::Forget => names.forget(&cluster.snapshot()),
                Phase::Learn(unprogrammed) => names.learn(&cluster.snapshot(), &unprogrammed),
            }
        }
        let snapshot = cluster.snapshot();
        names.learn(&snapshot, &last);
        prop_assert_eq!(&*zone(&names), &*fresh(&snapshot, &last));
    }

    #[test]
    fn a_relist_is_the_same_zone(events in events(30)) {
        let (mut single, mut listing) = (listed([]), listed([]));
        relist(&events).into_iter().for_each(|event| listing.apply(event));
        events.into_iter().for_each(|event| single.apply(event));
        let dump = |snapshot| fresh(&snapshot, &BTreeSet::new()).dump();
        prop_assert_eq!(dump(single.snapshot()), dump(listing.snapshot()));
    }

    #[test]
    fn forgetting_says_nothing_new_of_what_must_be_programmed(before in events(30), after in events(12)) {
        let mut cluster = listed([]);
        before.into_iter().for_each(|event| cluster.apply(event));
        let mut names = Names::new(config());
        names.learn(&cluster.snapshot(), &BTreeSet::new());
        let old = zone(&names);
        after.into_iter().for_each(|event| cluster.apply(event));
        let snapshot = cluster.snapshot();
        names.forget(&snapshot);
        let (new, learned) = (zone(&names), fresh(&snapshot, &BTreeSet::new()));
        for bundle in new.services() {
            let name = &bundle.name;
            prop_assert!(learned.service(name).is_some(), "{} is still said", name);
            if let Some(addresses) = programmed_here(&new, name) {
                let known = programmed_here(&old, name).unwrap_or_default();
                let known = |ip| known.contains(ip) || old.service(name) == Some(bundle);
                prop_assert!(addresses.iter().all(known), "{} is said too soon: {:?}", name, addresses);
            }
        }
        for bundle in learned.services().into_iter().filter(|bundle| !bundle.waits()) {
            prop_assert_eq!(new.service(&bundle.name), Some(bundle), "what needs no programming is said");
        }
    }
}

/// A reader that holds a zone keeps it as it was.
#[test]
fn a_reader_keeps_what_it_holds() {
    let mut names = Names::new(config());
    let mut cluster = support::cluster("+ service shop/web ip=10.96.0.20");
    names.learn(&cluster.snapshot(), &BTreeSet::new());
    let held = zone(&names);
    cluster.apply(support::event("- service shop/web"));
    names.forget(&cluster.snapshot());
    assert!(held.dump().contains("web.shop"));
    assert!(!zone(&names).dump().contains("web.shop"));
}

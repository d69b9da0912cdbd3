//! Properties of the pure part, over random clusters: what is applied is what was planned, whatever the order,
//! and no reader ever sees less than a valid state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use model::testing::{events, ip, relist};
use model::{Cluster, Event, Kind, Snapshot};
use proptest::prelude::*;
use proxy::{
    Current, Dataplane, Facts, Fake, GRACE, Op, Planner, Refused, Sizes, Tables, adopt, diff, resolve, shrink,
};

const ROOM: Sizes = Sizes { frontends: 512, services: 128, lines: 256, backends: 512, lru: 64 };
const TIGHT: Sizes = Sizes { frontends: 12, services: 4, lines: 8, backends: 8, lru: 64 };

fn facts() -> Facts {
    Facts {
        name: "a".into(),
        zone: Some("z1".into()),
        addresses: vec![ip("192.168.0.1"), ip("fd00::9:1")],
        node_port_addresses: vec![ip("192.168.0.1"), ip("fd00::9:1")],
        cluster_dns: vec![ip("10.96.0.1")],
    }
}

fn plan(snapshot: &Arc<Snapshot>) -> Tables {
    Planner::new(facts()).update(snapshot, &facts()).clone()
}

/// The snapshots that a sequence of events leads to, some events apart.
fn snapshots(events: Vec<Event>, step: usize) -> Vec<Arc<Snapshot>> {
    let mut cluster = Cluster::new();
    let mut found = Vec::new();
    for (index, event) in events.into_iter().enumerate() {
        cluster.apply(event);
        if index % step == 0 {
            found.push(cluster.snapshot());
        }
    }
    found.push(cluster.snapshot());
    found
}

/// The maps, what is known of them, and a clock.
struct Machine {
    fake: Fake,
    current: Current,
    now: Instant,
}

/// The fake, with every rule asserted after each operation.
struct Checked<'a>(&'a mut Fake);

impl Dataplane for Checked<'_> {
    fn apply(&mut self, op: &Op) -> Result<(), Refused> {
        self.0.apply(op)?;
        assert_eq!(self.0.broken(), &[] as &[String], "after {op:?}");
        Ok(())
    }
}

impl Machine {
    fn new(sizes: Sizes) -> Self {
        Self { fake: Fake::new(sizes), current: Current::new(sizes), now: Instant::now() }
    }

    fn run(&mut self, ops: &[Op]) {
        ops.iter().for_each(|op| Checked(&mut self.fake).apply(op).expect("the diff knows what fits"));
    }

    fn grow(&mut self, desired: &Tables) -> usize {
        let unfit = diff(&mut self.current, desired, self.now, &mut Checked(&mut self.fake));
        assert_eq!(&resolve(&self.fake, &self.current), self.current.tables());
        unfit.len()
    }

    fn shrink(&mut self) {
        shrink(&mut self.current, self.now, &mut Checked(&mut self.fake));
    }

    /// What a diff would do, in this order, and no more.
    fn ops(&mut self, desired: &Tables) -> Vec<Op> {
        let mut ops = Vec::new();
        diff(&mut self.current, desired, self.now, &mut ops);
        ops
    }

    /// Grows, and takes everything unwanted away.
    fn settle(&mut self, desired: &Tables) -> usize {
        let unfit = self.grow(desired);
        self.now += GRACE;
        self.shrink();
        self.now += GRACE;
        self.shrink();
        unfit
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn what_is_applied_is_what_was_planned(events in events(40), step in 1..8_usize) {
        let mut machine = Machine::new(ROOM);
        for snapshot in snapshots(events, step) {
            let desired = plan(&snapshot);
            prop_assert_eq!(machine.settle(&desired), 0);
            prop_assert_eq!(&resolve(&machine.fake, &machine.current), &desired);
            prop_assert_eq!(machine.ops(&desired), vec![]);
        }
    }

    #[test]
    fn growing_takes_no_frontend_away(events in events(40), step in 1..8_usize) {
        let mut machine = Machine::new(ROOM);
        for snapshot in snapshots(events, step) {
            let before = machine.current.tables().clone();
            machine.grow(&plan(&snapshot));
            for frontend in before.frontends.keys() {
                prop_assert!(machine.current.tables().frontends.contains_key(frontend), "{frontend}");
            }
            machine.now += Duration::from_millis(60);
            machine.shrink();
        }
    }

    #[test]
    fn an_incremental_plan_equals_a_fresh_one(events in events(60), step in 1..8_usize) {
        let mut planner = Planner::new(facts());
        for snapshot in snapshots(events, step) {
            let tables = planner.update(&snapshot, &facts()).clone();
            let mut fresh = Planner::new(facts());
            prop_assert_eq!(&tables, fresh.update(&snapshot, &facts()));
            prop_assert_eq!(planner.conflicts(), fresh.conflicts());
            prop_assert!(planner.sctp().eq(fresh.sctp()));
        }
    }

    #[test]
    fn a_relist_equals_the_single_changes(events in events(60)) {
        let mut single = Cluster::new();
        let lists = relist(&events);
        for event in Kind::ALL.map(|kind| Event::Replace(kind, Vec::new())).into_iter().chain(events) {
            single.apply(event);
        }
        let mut listed = Cluster::new();
        lists.into_iter().for_each(|event| listed.apply(event));
        prop_assert_eq!(plan(&single.snapshot()), plan(&listed.snapshot()));
    }

    #[test]
    fn full_maps_leave_every_prefix_valid_and_recover(events in events(60), step in 1..8_usize) {
        let mut machine = Machine::new(TIGHT);
        let all = snapshots(events, step);
        for snapshot in &all {
            machine.settle(&plan(snapshot));
        }
        prop_assert_eq!(machine.settle(&Tables::default()), 0);
        prop_assert_eq!(&resolve(&machine.fake, &machine.current), &Tables::default());
        // A single service fits again, so nothing was lost on the way.
        let one = model::testing::snapshot([model::testing::service("shop/one", &["10.96.0.9"]).port("80/TCP").into()]);
        prop_assert_eq!(machine.settle(&plan(&one)), 0);
    }

    #[test]
    fn a_restart_takes_everything_over_and_writes_nothing(events in events(40), step in 1..8_usize) {
        let mut machine = Machine::new(ROOM);
        let mut desired = Tables::default();
        for snapshot in snapshots(events, step) {
            desired = plan(&snapshot);
            machine.settle(&desired);
        }
        // A service port without a frontend of its own cannot be recognised: it lost all of them to others.
        let nameless = desired.services.keys().any(|key| {
            !desired.frontends.values().any(|target| target.service() == Some(key))
        });
        let before = std::mem::replace(&mut machine.current, adopt(&machine.fake, &desired));
        let ops = machine.ops(&desired);
        if !nameless {
            prop_assert_eq!(ops, vec![]);
            prop_assert_eq!(machine.current.tables(), before.tables());
        }
    }

    #[test]
    fn a_restart_at_any_point_is_valid_and_reaches_the_plan(
        events in events(40), step in 1..8_usize, cut in any::<prop::sample::Index>(), seed in 0..3_u32,
    ) {
        let mut machine = Machine::new(ROOM);
        let all = snapshots(events, step);
        let (last, before) = all.split_last().expect("at least the end");
        for snapshot in before {
            machine.settle(&plan(snapshot));
        }
        let desired = plan(last);
        let mut ops = machine.ops(&desired);
        if seed > 0 {
            shrink(&mut machine.current, machine.now + GRACE, &mut ops);
        }
        ops.truncate(cut.index(ops.len() + 1));
        machine.run(&ops);
        // The process is gone; a barrier takes longer than nobody needs for an exec.
        machine.run(&[Op::Barrier]);
        machine.current = adopt(&machine.fake, &desired);
        prop_assert_eq!(machine.settle(&desired), 0);
        prop_assert_eq!(&resolve(&machine.fake, &machine.current), &desired);
    }
}

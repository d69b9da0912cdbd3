//! The writing side of the zone: takes snapshots in the phases "DNS forgets" and "DNS learns", and
//! publishes each new zone to readers that never lock. One task owns a `Names`; it does no I/O.
//!
//! Both phases only look at what differs from the snapshot seen last, and both may be called with any
//! snapshot in any order: after `learn` the zone is that of its snapshot, whatever went before.

use std::collections::BTreeSet;
use std::sync::Arc;

use arc_swap::ArcSwap;
use imbl::{ordmap, ordset};
use model::{ObjectName, Snapshot};
use tokio::sync::watch;

use crate::bundle::Bundle;
use crate::zone::{Zone, ZoneConfig};

/// The owner of the zone.
#[derive(Debug)]
pub struct Names {
    zone: Zone,
    /// The snapshot that the zone reflects, but for the services in `pending`.
    seen: Arc<Snapshot>,
    /// The services that `forget` left behind what `seen` says of them.
    pending: BTreeSet<ObjectName>,
    /// The services that answer SERVFAIL.
    unprogrammed: BTreeSet<ObjectName>,
    published: Arc<Published>,
}

/// Reads the zone as it is now. Cheap to clone, never waits.
#[derive(Clone, Debug)]
pub struct Reader(Arc<Published>);

#[derive(Debug)]
struct Published {
    zone: ArcSwap<Zone>,
    ready: watch::Sender<bool>,
}

impl Names {
    /// The owner of a zone of which nothing is known yet.
    pub fn new(config: ZoneConfig) -> Self {
        let zone = Zone::new(config);
        let published =
            Published { zone: ArcSwap::from_pointee(zone.clone()), ready: watch::Sender::new(false) };
        Self {
            zone,
            seen: Arc::default(),
            pending: BTreeSet::new(),
            unprogrammed: BTreeSet::new(),
            published: Arc::new(published),
        }
    }

    /// A reader of what this owner publishes.
    pub fn reader(&self) -> Reader {
        Reader(Arc::clone(&self.published))
    }

    /// First phase: names of ClusterIPs that are gone stop resolving, so that the data plane may take them
    /// away. What merely changes stays as it is until `learn`; names that need no data plane change now.
    pub fn forget(&mut self, snapshot: &Arc<Snapshot>) {
        for name in self.stale(snapshot) {
            let next = snapshot.services.get(&name).and_then(|member| Bundle::new(member, true));
            let said = match (self.zone.service(&name), &next) {
                (_, None) => None,
                (None, Some(next)) => (!next.waits()).then(|| Arc::new(next.clone())),
                (Some(now), Some(next)) => Some(Arc::new(now.forget(next))),
            };
            if said.as_deref() == next.as_ref() {
                self.pending.remove(&name);
            } else {
                self.pending.insert(name.clone());
            }
            self.zone.set(&name, said);
        }
        self.see(snapshot);
        self.publish(false);
    }

    /// Third phase: every name says what the snapshot says; the ClusterIPs of `unprogrammed` answer
    /// SERVFAIL, because this node's data plane could not take them.
    pub fn learn(&mut self, snapshot: &Arc<Snapshot>, unprogrammed: &BTreeSet<ObjectName>) {
        let mut stale = self.stale(snapshot);
        stale.extend(unprogrammed.symmetric_difference(&self.unprogrammed).cloned());
        for name in stale {
            let member = snapshot.services.get(&name);
            let bundle = member.and_then(|member| Bundle::new(member, !unprogrammed.contains(&name)));
            self.zone.set(&name, bundle.map(Arc::new));
        }
        self.pending.clear();
        self.unprogrammed.clone_from(unprogrammed);
        self.see(snapshot);
        self.publish(snapshot.is_complete());
    }

    /// The services of which the zone may not say what `snapshot` does.
    fn stale(&self, snapshot: &Snapshot) -> BTreeSet<ObjectName> {
        let changed = snapshot.changed_since(&self.seen).map(|changed| changed.name.clone());
        changed.chain(self.pending.iter().cloned()).collect()
    }

    fn see(&mut self, snapshot: &Arc<Snapshot>) {
        for item in self.seen.namespaces.diff(&snapshot.namespaces) {
            match item {
                ordset::DiffItem::Add(name) => self.zone.set_namespace(name, true),
                ordset::DiffItem::Remove(name) => self.zone.set_namespace(name, false),
            }
        }
        for item in self.seen.pods.diff(&snapshot.pods) {
            match item {
                ordmap::DiffItem::Add(name, pod) => self.zone.set_pod(name, &[], &pod.addresses),
                ordmap::DiffItem::Update { old: (name, old), new: (_, new) } => {
                    self.zone.set_pod(name, &old.addresses, &new.addresses);
                }
                ordmap::DiffItem::Remove(name, pod) => self.zone.set_pod(name, &pod.addresses, &[]),
            }
        }
        self.seen = Arc::clone(snapshot);
    }

    fn publish(&mut self, ready: bool) {
        // A serial is 32 bits and may wrap (RFC 1982).
        let serial = u32::try_from(self.seen.generation & u64::from(u32::MAX)).unwrap_or_default();
        self.zone.advance(serial, ready);
        self.published.zone.store(Arc::new(self.zone.clone()));
        if self.zone.is_ready() {
            self.published.ready.send_if_modified(|known| !std::mem::replace(known, true));
        }
    }
}

impl Reader {
    /// The zone as it is now; it stays that while it is held.
    pub fn zone(&self) -> Arc<Zone> {
        self.0.zone.load_full()
    }

    /// Looks something up without touching a shared counter.
    pub fn read<T>(&self, look: impl FnOnce(&Zone) -> T) -> T {
        look(&self.0.zone.load())
    }

    /// Resolves once the lists behind the zone are complete.
    pub async fn wait_ready(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.0.ready.subscribe().wait_for(|ready| *ready).await;
    }
}

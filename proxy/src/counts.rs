//! Connections opened, closed and refused, by service: the kernel's counters of what is there, and what is
//! remembered of what left. An id starts at zero when it is used again; until then late closes still count.

use std::collections::BTreeMap;
use std::ops::AddAssign;

use foldhash::{HashMap, HashSet};
use model::ObjectName;

use crate::current::Current;
use crate::dataplane::Kernel;
use crate::op::{Freed, Op};
use crate::probe::is_probe;

/// So many services that are gone may keep their count before they are swept out.
const FORGOTTEN: usize = 1024;

/// Connections of a service or a backend. Flows of unconnected UDP sockets are opened and never closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Sent to a backend.
    pub opened: u64,
    /// Closed by the client, of those that were opened to a backend whose id is still its own.
    pub closed: u64,
    /// Without a backend: refused or unreachable. Services only.
    pub refused: u64,
}

/// What is remembered.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Ids of backends that left and that nobody has again.
    backends: HashMap<u32, ObjectName>,
    /// The same of service ports.
    services: HashMap<u32, ObjectName>,
    before: HashMap<ObjectName, Count>,
}

impl Counts {
    /// Notes what left, before it is used again.
    pub(crate) fn note_freed(&mut self, id: Freed, name: &ObjectName) {
        match id {
            Freed::Service(id) => self.services.insert(id, name.clone()),
            Freed::Backend(id) => self.backends.insert(id, name.clone()),
        };
    }

    /// Forgets services without anything left in the maps once they are many.
    pub(crate) fn sweep(&mut self, current: &Current) {
        if self.before.len() > 2 * current.tables().services.len() + FORGOTTEN {
            let known: HashSet<&ObjectName> = current.tables().services.keys().map(|key| &key.name).collect();
            self.before.retain(|name, _| known.contains(name));
        }
    }

    /// Takes over the counters that `op` is about to set to zero.
    pub(crate) fn note_reused(&mut self, op: &Op, kernel: &Kernel) {
        let left = match op {
            Op::WriteBackend(id, _) => {
                self.backends.remove(id).map(|name| (name, kernel.count_of_backend(*id)))
            }
            Op::Publish(id, word) if word.is_published() => {
                self.services.remove(id).map(|name| (name, kernel.count_of_service(*id)))
            }
            Op::Publish(..)
            | Op::SetWindows(..)
            | Op::WriteBlock(..)
            | Op::PutFrontend(..)
            | Op::RemoveFrontend(..)
            | Op::Barrier => return,
        };
        if let Some((name, count)) = left {
            *self.before.entry(name).or_default() += count;
        }
    }

    /// The counts of every service in the maps.
    pub(crate) fn by_service(&self, current: &Current, kernel: &Kernel) -> BTreeMap<ObjectName, Count> {
        let mut counts: BTreeMap<ObjectName, Count> = BTreeMap::new();
        for key in current.tables().services.keys().filter(|key| !is_probe(&key.name)) {
            let count = counts.entry(key.name.clone()).or_default();
            current.backend_ids(key).iter().for_each(|&id| *count += kernel.count_of_backend(id));
            current.service_id(key).into_iter().for_each(|id| *count += kernel.count_of_service(id));
        }
        let mut add = |name: &ObjectName, more: Count| {
            counts.entry(name.clone()).and_modify(|count| *count += more);
        };
        self.before.iter().for_each(|(name, count)| add(name, *count));
        self.backends.iter().for_each(|(&id, name)| add(name, kernel.count_of_backend(id)));
        self.services.iter().for_each(|(&id, name)| add(name, kernel.count_of_service(id)));
        counts
    }
}

impl AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.opened += other.opened;
        self.closed += other.closed;
        self.refused += other.refused;
    }
}

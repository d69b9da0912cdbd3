//! Current: what is in the kernel, by name and by id. The diff moves it forward as it emits operations;
//! adoption rebuilds it from the maps after a restart.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::allocate::{Ids, Lines};
use crate::tables::{Frontend, ServiceKey, Tables, Target};
use foldhash::{HashMap, HashMapExt};

/// How many elements each map has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Frontends.
    pub frontends: u32,
    /// Service ports.
    pub services: u32,
    /// Lines of slots: 8 slots in the first line of a service, 16 in each other.
    pub lines: u32,
    /// Backends.
    pub backends: u32,
    /// Entries of each LRU: affinities, choices and reverse entries.
    pub lru: u32,
}

impl Default for Sizes {
    /// For 50,000 services with 250,000 endpoints; the arrays are 17 MB.
    fn default() -> Self {
        Self { frontends: 1 << 19, services: 1 << 17, lines: 1 << 17, backends: 1 << 18, lru: 1 << 16 }
    }
}

impl Sizes {
    /// For a cluster that has so many services now, with head room of four times as many and for endpoints in
    /// the usual proportion; the smallest is for 500 services with 16,000 endpoints.
    pub fn for_services(count: usize) -> Self {
        let most = Self::default();
        let count = u32::try_from(count).unwrap_or(u32::MAX).clamp(500, 50_000);
        let room = |each: u32, most: u32| (count * 4 * each).next_power_of_two().min(most);
        Self {
            // Two families of a cluster IP with two ports and the rest, and a node port.
            frontends: room(8, most.frontends),
            services: room(2, most.services),
            lines: room(4, most.lines),
            backends: room(8, most.backends),
            ..most
        }
    }

    /// Whether there is less room than `wanted`, of anything that a service needs.
    pub(crate) const fn is_below(&self, wanted: &Self) -> bool {
        self.frontends < wanted.frontends
            || self.services < wanted.services
            || self.lines < wanted.lines
            || self.backends < wanted.backends
    }
}

/// What is in the kernel.
#[derive(Clone, Debug)]
pub struct Current {
    pub(crate) sizes: Sizes,
    /// What is in the kernel, by name. It shares its nodes with what was wanted last, so that the difference to
    /// what is wanted next costs what changed.
    pub(crate) tables: Tables,
    /// Where each service port of `tables` is.
    pub(crate) placed: HashMap<ServiceKey, Placed>,
    pub(crate) service_ids: Ids,
    pub(crate) backend_ids: Ids,
    pub(crate) lines: Lines,
    /// Frontends that are not wanted any more, since when.
    pub(crate) doomed: HashMap<Frontend, Instant>,
    /// Service ports that are not wanted any more.
    pub(crate) leaving: BTreeSet<ServiceKey>,
}

/// Where a service port is in the maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) id: u32,
    pub(crate) base: u32,
    pub(crate) lines: u32,
    /// The backend id of each slot.
    pub(crate) backends: Vec<u32>,
    /// How many frontends lead here.
    pub(crate) frontends: u32,
}

impl Current {
    /// Empty maps.
    pub fn new(sizes: Sizes) -> Self {
        Self {
            sizes,
            tables: Tables::default(),
            placed: HashMap::new(),
            service_ids: Ids::new(sizes.services),
            backend_ids: Ids::new(sizes.backends),
            lines: Lines::with_used(sizes.lines, &[]),
            doomed: HashMap::new(),
            leaving: BTreeSet::new(),
        }
    }

    /// What is in the kernel, by name.
    pub const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The service id of a service port.
    pub fn service_id(&self, key: &ServiceKey) -> Option<u32> {
        self.placed.get(key).map(|placed| placed.id)
    }

    /// The backend ids of a service port, in slot order.
    pub fn backend_ids(&self, key: &ServiceKey) -> &[u32] {
        self.placed.get(key).map_or(&[], |placed| &placed.backends)
    }

    /// A frontend leads to `target` from now on.
    pub(crate) fn lead(&mut self, target: &Target) {
        if let Some(placed) = target.service().and_then(|key| self.placed.get_mut(key)) {
            placed.frontends += 1;
        }
    }

    /// A frontend does not lead to `target` any more.
    pub(crate) fn unlead(&mut self, target: &Target) {
        if let Some(placed) = target.service().and_then(|key| self.placed.get_mut(key)) {
            placed.frontends -= 1;
        }
    }

    /// How many elements wait for a barrier.
    pub(crate) const fn quarantined(&self) -> usize {
        self.service_ids.quarantined() + self.backend_ids.quarantined() + self.lines.quarantined()
    }

    /// A barrier has passed.
    pub(crate) fn release(&mut self) {
        self.service_ids.release();
        self.backend_ids.release();
        self.lines.release();
    }
}

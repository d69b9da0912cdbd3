//! The difference between what is in the kernel and what is wanted, as operations. [`diff`] grows: it adds and
//! swaps, and never takes away what a client may still dial. [`shrink`] takes away, later.
//!
//! Each operation goes to the dataplane as it is found, so that a cold start needs no memory for the list of
//! them. Pure but for that: no clock, and no decision that depends on more than the arguments.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ebpf::address::Port;
use ebpf::backend::Backend;
use ebpf::block::{Header, ServiceWord, lines_for};
use ebpf::frontend::FrontendWord;
use foldhash::{HashMap, HashMapExt, HashSet};
use imbl::OrdMap;
use imbl::ordmap::DiffItem;

use crate::current::{Current, Placed};
use crate::op::{Dataplane, Freed, Op, Refused};
use crate::tables::{Block, Frontend, ServiceKey, Slot, Tables, Target};

/// How long a frontend outlives its name: clients may have resolved it just before.
pub const GRACE: Duration = Duration::from_millis(200);

/// A barrier costs about 10 ms, so it waits until this many freed elements make it worth while.
const QUARANTINE: usize = 1024;

/// Something that is not in the maps as it is wanted. It is tried again with every diff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// The frontend or service port.
    pub what: What,
    /// Why, in words.
    pub why: String,
}

/// What has no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A service port: it keeps the endpoints that it already has.
    Service(ServiceKey),
    /// A frontend of a service port, or one that refuses.
    Frontend(Frontend, Option<ServiceKey>),
}

/// Makes the dataplane, which holds `current`, serve all of `desired`. What cannot be served is told. The cost
/// is that of what differs.
pub fn diff(
    current: &mut Current,
    desired: &Tables,
    now: Instant,
    dataplane: &mut impl Dataplane,
) -> Vec<Unfit> {
    let mut growth = Growth::new(current, dataplane);
    growth.place_services(desired);
    growth.lead_frontends(desired, now)
}

/// Takes away everything that has not been wanted for [`GRACE`]; when to ask again, if something is left.
pub fn shrink(current: &mut Current, now: Instant, dataplane: &mut impl Dataplane) -> Option<Instant> {
    let mut due: Vec<Frontend> = current
        .doomed
        .iter()
        .filter(|(_, since)| now >= **since + GRACE)
        .map(|(&frontend, _)| frontend)
        .collect();
    due.sort_unstable();
    for frontend in &due {
        current.doomed.remove(frontend);
        if let Some(target) = current.tables.frontends.remove(frontend) {
            current.unlead(&target);
        }
        apply(dataplane, &Op::RemoveFrontend(frontend.key()));
    }
    let unused = |key: &&ServiceKey| current.placed.get(*key).is_none_or(|placed| placed.frontends == 0);
    let gone: Vec<ServiceKey> = current.leaving.iter().filter(unused).cloned().collect();
    for key in gone {
        retire(current, &key, dataplane);
    }
    // A freed hash element goes to the next insert at once, so none may come before the barrier.
    if !due.is_empty() || current.quarantined() >= QUARANTINE {
        barrier(current, dataplane);
    }
    current.doomed.values().min().map(|&since| since + GRACE)
}

fn retire(current: &mut Current, key: &ServiceKey, dataplane: &mut impl Dataplane) {
    current.leaving.remove(key);
    current.tables.services.remove(key);
    let Some(placed) = current.placed.remove(key) else { return };
    apply(dataplane, &Op::Publish(placed.id, ServiceWord::UNPUBLISHED));
    current.service_ids.retire(placed.id);
    dataplane.free(Freed::Service(placed.id), key);
    current.lines.retire(placed.base, placed.lines);
    for backend in placed.backends {
        current.backend_ids.retire(backend);
        dataplane.free(Freed::Backend(backend), key);
    }
}

fn barrier(current: &mut Current, dataplane: &mut impl Dataplane) {
    apply(dataplane, &Op::Barrier);
    current.release();
}

/// Applies what cannot be refused: the dataplane itself says so if it is all the same.
fn apply(dataplane: &mut impl Dataplane, op: &Op) {
    let _said = dataplane.apply(op);
}

/// One diff under way: first the service ports, then the frontends that lead to them.
pub(crate) struct Growth<'a, D> {
    current: &'a mut Current,
    dataplane: &'a mut D,
    /// What was in the maps before.
    before: Tables,
    /// How many frontends are in the maps by now.
    frontends: usize,
    /// Where the maps are not as wanted, and what they have instead.
    kept: Kept,
    unfit: Vec<Unfit>,
}

#[derive(Default)]
struct Kept {
    services: Vec<(ServiceKey, Option<Arc<Block>>)>,
    frontends: Vec<(Frontend, Option<Target>)>,
}

impl<'a, D: Dataplane> Growth<'a, D> {
    pub(crate) fn new(current: &'a mut Current, dataplane: &'a mut D) -> Self {
        let before = current.tables.clone();
        let frontends = before.frontends.len();
        Self { current, dataplane, before, frontends, kept: Kept::default(), unfit: Vec::new() }
    }

    /// What is in the maps, but for `tables`, which stay as they were until the end.
    pub(crate) const fn current(&self) -> &Current {
        self.current
    }

    /// Gives each service port its block.
    pub(crate) fn place_services(&mut self, desired: &Tables) {
        let before = self.before.services.clone();
        let mut leaving = BTreeSet::new();
        for item in before.diff(&desired.services) {
            match item {
                DiffItem::Add(key, block) => self.place(key, None, block),
                DiffItem::Update { old: (_, old), new: (key, block) } => self.place(key, Some(old), block),
                DiffItem::Remove(key, old) => {
                    self.kept.services.push((key.clone(), Some(Arc::clone(old))));
                    leaving.insert(key.clone());
                }
            }
        }
        self.current.leaving = leaving;
    }

    /// Points each frontend to its service port; then `current` is what the maps hold.
    pub(crate) fn lead_frontends(mut self, desired: &Tables, now: Instant) -> Vec<Unfit> {
        let before = self.before.frontends.clone();
        let mut doomed = HashMap::new();
        for item in before.diff(&desired.frontends) {
            match item {
                DiffItem::Add(frontend, target) => self.lead(frontend, None, target),
                DiffItem::Update { old: (_, old), new: (frontend, target) } => {
                    self.lead(frontend, Some(old), target);
                }
                DiffItem::Remove(frontend, old) => {
                    self.kept.frontends.push((*frontend, Some(old.clone())));
                    doomed.insert(*frontend, self.current.doomed.get(frontend).copied().unwrap_or(now));
                }
            }
        }
        self.current.doomed = doomed;
        // A copy of what is wanted shares its nodes, so that the next difference costs what changes.
        self.current.tables = desired.clone();
        patch(&mut self.current.tables.services, self.kept.services);
        patch(&mut self.current.tables.frontends, self.kept.frontends);
        self.unfit
    }

    fn lead(&mut self, frontend: &Frontend, old: Option<&Target>, target: &Target) {
        let why = match self.try_lead(frontend, old, target) {
            Ok(()) => {
                old.into_iter().for_each(|old| self.current.unlead(old));
                return;
            }
            Err(why) => why,
        };
        self.kept.frontends.push((*frontend, old.cloned()));
        let what = What::Frontend(*frontend, target.service().cloned());
        self.unfit.extend(why.map(|why| Unfit { what, why: why.to_string() }));
    }

    /// The error is None for a frontend of a service port without room, which has been reported itself.
    fn try_lead(
        &mut self,
        frontend: &Frontend,
        old: Option<&Target>,
        target: &Target,
    ) -> Result<(), Option<Refused>> {
        let is_new = old.is_none();
        if is_new && self.frontends >= self.current.sizes.frontends as usize {
            return Err(Some(Refused::Full(ebpf::maps::FRONTENDS)));
        }
        let key = frontend.key();
        let word = match target {
            Target::Service(service, flags) => {
                let id = self.current.service_id(service).ok_or(None)?;
                FrontendWord::new(&key, id, *flags)
            }
            Target::Refuse => FrontendWord::new(&key, 0, FrontendWord::REFUSE),
        };
        self.dataplane.apply(&Op::PutFrontend(key, word)).map_err(Some)?;
        self.frontends += usize::from(is_new);
        self.current.lead(target);
        Ok(())
    }

    /// Gives a service port a new block; without room, one of the endpoints that it already has.
    fn place(&mut self, key: &ServiceKey, old: Option<&Arc<Block>>, block: &Arc<Block>) {
        let Err(full) = self.try_place(key, old, block) else { return };
        if self.current.quarantined() > 0 {
            barrier(self.current, self.dataplane);
            if self.try_place(key, old, block).is_ok() {
                return;
            }
        }
        self.unfit.push(Unfit { what: What::Service(key.clone()), why: Refused::Full(full).to_string() });
        let kept = old.map(|old| self.keep(key, old, block));
        self.kept.services.push((key.clone(), kept));
    }

    /// Takes what is not wanted any more out of a block; without room for even that, the old one stays.
    fn keep(&mut self, key: &ServiceKey, old: &Arc<Block>, block: &Block) -> Arc<Block> {
        let known: HashSet<(IpAddr, u16)> = old.slots.iter().map(|slot| (slot.ip, slot.port)).collect();
        let mut rest = block.clone();
        rest.slots.retain(|slot| known.contains(&(slot.ip, slot.port)));
        let rest = Arc::new(rest);
        if *old != rest && self.try_place(key, Some(old), &rest).is_ok() { rest } else { Arc::clone(old) }
    }

    /// The error is the map that is full; then nothing has been done.
    fn try_place(
        &mut self,
        key: &ServiceKey,
        old: Option<&Arc<Block>>,
        block: &Block,
    ) -> Result<(), &'static str> {
        let Self { current, dataplane, .. } = self;
        let placed = current.placed.get(key);
        let slots = old.map(|old| old.slots.as_slice()).unwrap_or_default();
        let mut known: HashMap<(IpAddr, u16), (u32, u8)> =
            std::iter::zip(slots, placed.map_or(&[][..], |placed| &placed.backends))
                .map(|(slot, &id)| ((slot.ip, slot.port), (id, slot.windows)))
                .collect();
        let missing = block.slots.iter().filter(|slot| !known.contains_key(&(slot.ip, slot.port))).count();
        if missing > current.backend_ids.available() {
            return Err(ebpf::maps::BACKENDS);
        }
        let lines = lines_for(slot_count(block));
        let base = current.lines.take(lines).ok_or(ebpf::maps::SLOTS)?;
        let id = match placed {
            Some(placed) => placed.id,
            None => current.service_ids.take().ok_or_else(|| {
                current.lines.put_back(base, lines);
                ebpf::maps::SERVICES
            })?,
        };

        let mut backends = Vec::with_capacity(block.slots.len());
        let mut narrowed = Vec::new();
        for slot in &block.slots {
            backends.push(match known.remove(&(slot.ip, slot.port)) {
                Some((backend, windows)) => {
                    if windows | slot.windows != windows {
                        apply(*dataplane, &Op::SetWindows(backend, windows | slot.windows));
                    }
                    if windows | slot.windows != slot.windows {
                        narrowed.push(Op::SetWindows(backend, slot.windows));
                    }
                    backend
                }
                None => {
                    let backend = current.backend_ids.take().ok_or(ebpf::maps::BACKENDS)?;
                    apply(*dataplane, &Op::WriteBackend(backend, backend_of(slot, key, id)));
                    backend
                }
            });
        }
        apply(*dataplane, &Op::WriteBlock(base, header(block, id), backends.clone()));
        apply(*dataplane, &Op::Publish(id, ServiceWord::new(base, lines)));
        narrowed.iter().for_each(|op| apply(*dataplane, op));
        let mut gone: Vec<u32> = known.into_values().map(|(backend, _)| backend).collect();
        gone.sort_unstable();
        for backend in gone {
            apply(*dataplane, &Op::SetWindows(backend, 0));
            current.backend_ids.retire(backend);
            dataplane.free(Freed::Backend(backend), key);
        }
        let old = current.placed.insert(key.clone(), Placed { id, base, lines, backends, frontends: 0 });
        if let Some(old) = old {
            current.lines.retire(old.base, old.lines);
            current.placed.entry(key.clone()).and_modify(|placed| placed.frontends = old.frontends);
        }
        Ok(())
    }
}

/// Puts in its place what the maps have instead of what is wanted.
fn patch<K: Ord + Clone, V: Clone>(map: &mut OrdMap<K, V>, kept: Vec<(K, Option<V>)>) {
    for (key, value) in kept {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

fn backend_of(slot: &Slot, key: &ServiceKey, service: u32) -> Backend {
    Backend::new(slot.ip.into(), Port::new(slot.port), key.protocol.number(), service)
        .with_windows(slot.windows)
}

#[expect(clippy::cast_possible_truncation, reason = "fewer slots than backends, whose ids are 32 bits")]
fn slot_count(block: &Block) -> u32 {
    block.slots.len() as u32
}

#[expect(clippy::cast_possible_truncation, reason = "fewer slots than backends, whose ids are 32 bits")]
fn header(block: &Block, service: u32) -> Header {
    Header {
        service,
        local_end: block.local_end() as u32,
        cluster_start: block.cluster_start() as u32,
        slots: slot_count(block),
        affinity_seconds: block.affinity_seconds,
    }
}

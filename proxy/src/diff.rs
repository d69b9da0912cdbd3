//! The difference between what is in the kernel and what is wanted, as operations. [`diff`] grows: it adds and
//! swaps, and never takes away what a client may still dial. [`shrink`] takes away, later. Pure.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ebpf::address::Port;
use ebpf::backend::Backend;
use ebpf::block::{Header, ServiceWord, lines_for};
use ebpf::frontend::FrontendWord;
use imbl::ordmap::DiffItem;

use crate::current::{Current, Placed};
use crate::op::Op;
use crate::tables::{Block, Frontend, ServiceKey, Slot, Tables, Target};

/// How long a frontend outlives its name: clients may have resolved it just before.
pub const GRACE: Duration = Duration::from_millis(200);

/// A barrier costs about 10 ms, so it waits until this many freed elements make it worth while.
const QUARANTINE: usize = 1024;

/// What [`diff`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The operations, in order.
    pub ops: Vec<Op>,
    /// What has no room.
    pub unfit: Vec<Unfit>,
}

/// Something that has no room in the maps. It is tried again with every diff.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// The frontend or service port.
    pub what: What,
    /// The map that is full.
    pub map: &'static str,
}

/// What has no room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A service port: it keeps the endpoints that it already has.
    Service(ServiceKey),
    /// A frontend of a service port, or one that refuses.
    Frontend(Frontend, Option<ServiceKey>),
}

/// What makes `current` serve all of `desired`. Moves `current` forward as if every operation succeeded. Looks
/// only at what differs from the last call, and at what had no room then.
pub fn diff(current: &mut Current, desired: &Tables, now: Instant) -> Changes {
    let mut changes = Changes::default();
    let wanted = std::mem::replace(&mut current.wanted, desired.clone());
    let unsettled = std::mem::take(&mut current.unsettled);
    let touched = wanted.services.diff(&desired.services).map(key_of);
    for key in unsettled.services.iter().chain(touched) {
        match desired.services.get(key) {
            Some(block) => {
                current.leaving.remove(key);
                if current.tables.services.get(key) != Some(block) {
                    place(current, key, block, &mut changes);
                }
            }
            None if current.placed.contains_key(key) => {
                current.leaving.insert(key.clone());
            }
            None => {}
        }
    }
    let touched = wanted.frontends.diff(&desired.frontends).map(key_of);
    for frontend in unsettled.frontends.iter().chain(touched) {
        match desired.frontends.get(frontend) {
            Some(target) => {
                current.doomed.remove(frontend);
                if current.tables.frontends.get(frontend) != Some(target) {
                    lead(current, frontend, target, &mut changes);
                }
            }
            None if current.tables.frontends.contains_key(frontend) => {
                current.doomed.entry(*frontend).or_insert(now);
            }
            None => {}
        }
    }
    changes
}

#[expect(clippy::needless_pass_by_value, reason = "an item of an iterator, which owns nothing")]
fn key_of<'a, K, V>(item: DiffItem<'a, 'a, K, V>) -> &'a K {
    match item {
        DiffItem::Add(key, _) | DiffItem::Remove(key, _) | DiffItem::Update { new: (key, _), .. } => key,
    }
}

/// What takes away everything that has not been wanted for [`GRACE`], and when to ask again.
pub fn shrink(current: &mut Current, now: Instant) -> (Vec<Op>, Option<Instant>) {
    let mut ops = Vec::new();
    let mut due: Vec<Frontend> = current
        .doomed
        .iter()
        .filter(|(_, since)| now >= **since + GRACE)
        .map(|(&frontend, _)| frontend)
        .collect();
    due.sort_unstable();
    for frontend in &due {
        current.doomed.remove(frontend);
        forget_frontend(current, frontend);
        ops.push(Op::RemoveFrontend(frontend.key()));
    }
    let unused = |key: &&ServiceKey| current.placed.get(*key).is_none_or(|placed| placed.frontends == 0);
    let gone: Vec<ServiceKey> = current.leaving.iter().filter(unused).cloned().collect();
    for key in gone {
        retire(current, &key, &mut ops);
    }
    // A freed hash element goes to the next insert at once, so none may come before the barrier.
    if !due.is_empty() || current.quarantined() >= QUARANTINE {
        barrier(current, &mut ops);
    }
    (ops, current.doomed.values().min().map(|&since| since + GRACE))
}

/// The kernel did not take a frontend: it is not there, and is tried again.
pub(crate) fn refuse_frontend(current: &mut Current, frontend: &Frontend) {
    forget_frontend(current, frontend);
    current.unsettled.frontends.insert(*frontend);
}

fn forget_frontend(current: &mut Current, frontend: &Frontend) {
    if let Some(Target::Service(key, _)) = current.tables.frontends.remove(frontend)
        && let Some(placed) = current.placed.get_mut(&key)
    {
        placed.frontends -= 1;
    }
}

fn barrier(current: &mut Current, ops: &mut Vec<Op>) {
    ops.push(Op::Barrier);
    current.release();
}

fn retire(current: &mut Current, key: &ServiceKey, ops: &mut Vec<Op>) {
    current.leaving.remove(key);
    current.tables.services.remove(key);
    let Some(placed) = current.placed.remove(key) else { return };
    ops.push(Op::Publish(placed.id, ServiceWord::UNPUBLISHED));
    current.service_ids.retire(placed.id);
    current.retired.0.push((key.clone(), placed.id));
    current.lines.retire(placed.base, placed.lines);
    for backend in placed.backends {
        current.backend_ids.retire(backend);
        current.retired.1.push((key.clone(), backend));
    }
}

/// Points a frontend to its service port.
fn lead(current: &mut Current, frontend: &Frontend, target: &Target, changes: &mut Changes) {
    let known = current.tables.frontends.contains_key(frontend);
    let unfit = |map| Unfit { what: What::Frontend(*frontend, target.service().cloned()), map };
    if !known && current.tables.frontends.len() >= current.sizes.frontends as usize {
        current.unsettled.frontends.insert(*frontend);
        changes.unfit.push(unfit(ebpf::maps::FRONTENDS));
        return;
    }
    let key = frontend.key();
    let word = match target {
        Target::Service(service, flags) => {
            // A service port without room has been reported; its frontends wait with it.
            let Some(placed) = current.placed.get_mut(service) else {
                current.unsettled.frontends.insert(*frontend);
                return;
            };
            placed.frontends += 1;
            FrontendWord::new(&key, placed.id, *flags)
        }
        Target::Refuse => FrontendWord::new(&key, 0, FrontendWord::REFUSE),
    };
    forget_frontend(current, frontend);
    current.tables.frontends.insert(*frontend, target.clone());
    changes.ops.push(Op::PutFrontend(key, word));
}

/// Gives a service port a new block; without room, one of the endpoints that it already has.
fn place(current: &mut Current, key: &ServiceKey, block: &Arc<Block>, changes: &mut Changes) {
    let Err(map) = try_place(current, key, block, &mut changes.ops) else { return };
    if current.quarantined() > 0 {
        barrier(current, &mut changes.ops);
        if try_place(current, key, block, &mut changes.ops).is_ok() {
            return;
        }
    }
    current.unsettled.services.insert(key.clone());
    changes.unfit.push(Unfit { what: What::Service(key.clone()), map });
    let Some(old) = current.tables.services.get(key) else { return };
    let known: Vec<(IpAddr, u16)> = old.slots.iter().map(|slot| (slot.ip, slot.port)).collect();
    let mut rest = Block::clone(block);
    rest.slots.retain(|slot| known.contains(&(slot.ip, slot.port)));
    if **old != rest {
        // Without room for even one block the old one stays, and the service stays reported.
        let _ = try_place(current, key, &Arc::new(rest), &mut changes.ops);
    }
}

fn try_place(
    current: &mut Current,
    key: &ServiceKey,
    block: &Arc<Block>,
    ops: &mut Vec<Op>,
) -> Result<(), &'static str> {
    let old_block = current.tables.services.get(key).cloned().unwrap_or_default();
    let old = current.placed.get(key).cloned();
    let old_ids = old.as_ref().map_or(&[][..], |placed| &placed.backends);
    let mut known: HashMap<(IpAddr, u16), (u32, u8)> = std::iter::zip(&old_block.slots, old_ids)
        .map(|(slot, &id)| ((slot.ip, slot.port), (id, slot.windows)))
        .collect();
    let missing = block.slots.iter().filter(|slot| !known.contains_key(&(slot.ip, slot.port))).count();
    if missing > current.backend_ids.available() {
        return Err(ebpf::maps::BACKENDS);
    }
    #[expect(clippy::cast_possible_truncation, reason = "fewer slots than backends, whose ids are 32 bits")]
    let slots = block.slots.len() as u32;
    let lines = lines_for(slots);
    let base = current.lines.take(lines).ok_or(ebpf::maps::SLOTS)?;
    let id = match &old {
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
                    ops.push(Op::SetWindows(backend, windows | slot.windows));
                }
                if windows | slot.windows != slot.windows {
                    narrowed.push(Op::SetWindows(backend, slot.windows));
                }
                backend
            }
            None => {
                let backend = current.backend_ids.take().ok_or(ebpf::maps::BACKENDS)?;
                ops.push(Op::WriteBackend(backend, backend_of(slot, key, id)));
                backend
            }
        });
    }
    ops.push(Op::WriteBlock(base, header(block, id), backends.clone()));
    ops.push(Op::Publish(id, ServiceWord::new(base, lines)));
    ops.append(&mut narrowed);
    let mut gone: Vec<u32> = known.into_values().map(|(backend, _)| backend).collect();
    gone.sort_unstable();
    for backend in gone {
        ops.push(Op::SetWindows(backend, 0));
        current.backend_ids.retire(backend);
        current.retired.1.push((key.clone(), backend));
    }
    let frontends = old.map_or(0, |placed| {
        current.lines.retire(placed.base, placed.lines);
        placed.frontends
    });
    current.placed.insert(key.clone(), Placed { id, base, lines, backends, frontends });
    current.tables.services.insert(key.clone(), Arc::clone(block));
    Ok(())
}

fn backend_of(slot: &Slot, key: &ServiceKey, service: u32) -> Backend {
    Backend::new(slot.ip.into(), Port::new(slot.port), key.protocol.number(), service)
        .with_windows(slot.windows)
}

#[expect(clippy::cast_possible_truncation, reason = "fewer slots than backends, whose ids are 32 bits")]
fn header(block: &Block, service: u32) -> Header {
    Header {
        service,
        local_end: block.local_end() as u32,
        cluster_start: block.cluster_start() as u32,
        slots: block.slots.len() as u32,
        affinity_seconds: block.affinity_seconds,
    }
}

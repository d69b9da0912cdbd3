//! From the bytes in the maps back to [`Current`]. The maps hold ids, not names: a service port is found
//! again through a frontend that it still wants. What nobody wants is taken over too, to be shrunk later.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ebpf::backend::Backend;
use ebpf::block::{HEADER_WORDS, LINE_WORDS, Line, ServiceWord};
use ebpf::frontend::{FrontendKey, FrontendWord, UDP};
use foldhash::{HashMap, HashMapExt, HashSet, HashSetExt};
use model::{ObjectName, Protocol};

use crate::allocate::{Ids, Lines};
use crate::current::{Current, Placed, Sizes};
use crate::tables::{Block, Family, Frontend, ServiceKey, Slot, Tables, Target};

/// The maps as they can be read.
pub trait Contents {
    /// How many elements the maps have.
    fn sizes(&self) -> Sizes;
    /// Every frontend.
    fn frontends(&self) -> Vec<(FrontendKey, FrontendWord)>;
    /// An element of `services`.
    fn service(&self, id: u32) -> ServiceWord;
    /// An element of `slots`.
    fn line(&self, index: u32) -> Line;
    /// An element of `backends`.
    fn backend(&self, id: u32) -> Backend;
}

/// What is in the maps, with the names that `desired` gives to what it recognises.
pub fn adopt(contents: &impl Contents, desired: &Tables) -> Current {
    let sizes = contents.sizes();
    let frontends = contents.frontends();
    let names = names(&frontends, desired);
    let mut current = Current::new(sizes);
    let (mut service_ids, mut backend_ids, mut runs) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for id in 0..sizes.services {
        let word = contents.service(id);
        let Some((block, placed, protocol)) = read_block(contents, id, word) else { continue };
        let key = names.get(&id).cloned().unwrap_or_else(|| nameless(id, &block, protocol));
        service_ids.insert(id);
        backend_ids.extend(placed.backends.iter().copied());
        runs.push((placed.base, placed.lines));
        // What is as it is wanted is held once.
        let wanted = desired.services.get(&key).filter(|wanted| ***wanted == block);
        let block = wanted.cloned().unwrap_or_else(|| Arc::new(block));
        current.tables.services.insert(key.clone(), block);
        current.placed.insert(key, placed);
    }
    current.service_ids = Ids::with_used(sizes.services, &service_ids);
    current.backend_ids = Ids::with_used(sizes.backends, &backend_ids);
    current.lines = Lines::with_used(sizes.lines, &runs);
    let by_id: HashMap<u32, ServiceKey> =
        current.placed.iter().map(|(key, placed)| (placed.id, key.clone())).collect();
    for (frontend, target) in targets(&frontends, &by_id) {
        current.lead(&target);
        current.tables.frontends.insert(frontend, target);
    }
    current
}

/// What is in the maps, with the names that `current` knows.
pub fn resolve(contents: &impl Contents, current: &Current) -> Tables {
    let by_id: HashMap<u32, ServiceKey> =
        current.placed.iter().map(|(key, placed)| (placed.id, key.clone())).collect();
    let mut tables = Tables::default();
    for (&id, key) in &by_id {
        if let Some((block, ..)) = read_block(contents, id, contents.service(id)) {
            tables.services.insert(key.clone(), Arc::new(block));
        }
    }
    tables.frontends.extend(targets(&contents.frontends(), &by_id));
    tables
}

/// The name of each id: that of the first frontend, in order, which both sides have.
fn names(frontends: &[(FrontendKey, FrontendWord)], desired: &Tables) -> HashMap<u32, ServiceKey> {
    let present: BTreeMap<Frontend, FrontendWord> =
        frontends.iter().filter_map(|(key, word)| Some((Frontend::from_key(key)?, *word))).collect();
    let mut names = HashMap::new();
    let mut named: HashSet<&ServiceKey> = HashSet::new();
    for (frontend, word) in present {
        if let Some(Target::Service(key, _)) = desired.frontends.get(&frontend)
            && !word.has(FrontendWord::REFUSE)
            && !names.contains_key(&word.service())
            && named.insert(key)
        {
            names.insert(word.service(), key.clone());
        }
    }
    names
}

fn targets<'a>(
    frontends: &'a [(FrontendKey, FrontendWord)],
    by_id: &'a HashMap<u32, ServiceKey>,
) -> impl Iterator<Item = (Frontend, Target)> + 'a {
    frontends.iter().filter_map(|(key, word)| {
        let frontend = Frontend::from_key(key)?;
        if word.has(FrontendWord::REFUSE) {
            return Some((frontend, Target::Refuse));
        }
        let service = by_id.get(&word.service()).cloned();
        // A frontend without its service port has a name that nobody wants, so it is put right or shrunk.
        let service = service.unwrap_or_else(|| nameless(word.service(), &Block::default(), None));
        Some((frontend, Target::Service(service, word.flags())))
    })
}

/// The block that a service word names; None if there is none, or if it makes no sense.
pub(crate) fn read_block(
    contents: &impl Contents,
    id: u32,
    word: ServiceWord,
) -> Option<(Block, Placed, Option<Protocol>)> {
    let sizes = contents.sizes();
    let end = word.base().checked_add(word.lines())?;
    if !word.is_published() || end > sizes.lines {
        return None;
    }
    let first = contents.line(word.base());
    let header = first.header();
    if header.service != id
        || HEADER_WORDS.checked_add(header.slots)? > word.lines().checked_mul(LINE_WORDS)?
    {
        return None;
    }
    let mut line = first;
    let mut backends = Vec::with_capacity(header.slots as usize);
    let mut slots = Vec::with_capacity(header.slots as usize);
    let mut protocol = None;
    for index in HEADER_WORDS..HEADER_WORDS + header.slots {
        if index % LINE_WORDS == 0 {
            line = contents.line(word.base() + index / LINE_WORDS);
        }
        let backend_id = line.word(index);
        if backend_id >= sizes.backends {
            return None;
        }
        let backend = contents.backend(backend_id);
        protocol = Some(if backend.protocol() == UDP { Protocol::Udp } else { Protocol::Tcp });
        backends.push(backend_id);
        slots.push(slot_of(&backend));
    }
    let block = Block { affinity_seconds: header.affinity_seconds, slots };
    let placed = Placed { id, base: word.base(), lines: word.lines(), backends, frontends: 0 };
    Some((block, placed, protocol))
}

fn slot_of(backend: &Backend) -> Slot {
    Slot { ip: IpAddr::from(*backend.address()), port: backend.port().number(), windows: backend.windows() }
}

/// A name that no service can have, for what nobody wants any more.
fn nameless(id: u32, block: &Block, protocol: Option<Protocol>) -> ServiceKey {
    let family = block.slots.first().map_or(Family::V4, |slot| Family::of(slot.ip));
    let name = ObjectName::cluster_scoped(format!("({id})"));
    ServiceKey::new(name, "".into(), protocol.unwrap_or(Protocol::Tcp), family)
}

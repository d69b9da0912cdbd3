//! The fake dataplane: the same bytes as the kernel's maps, kept in memory, with the rules of "grow before
//! shrink" checked after every operation. For tests, and for plans that touch nothing.

use std::collections::{HashMap, HashSet};

use ebpf::backend::Backend;
use ebpf::block::{HEADER_WORDS, LINE_WORDS, Line, ServiceWord, lines_for};
use ebpf::frontend::{FrontendKey, FrontendWord};

use crate::adopt::Contents;
use crate::current::Sizes;
use crate::op::{Dataplane, Op, Refused};

/// Maps in memory.
#[derive(Clone, Debug)]
pub struct Fake {
    sizes: Sizes,
    frontends: HashMap<FrontendKey, FrontendWord>,
    services: Vec<ServiceWord>,
    lines: Vec<Line>,
    backends: Vec<Backend>,
    /// What was in use since the last barrier, and may still be held by a hook.
    held: Held,
    /// Every rule that an operation broke, in words.
    broken: Vec<String>,
}

#[derive(Clone, Debug, Default)]
struct Held {
    lines: HashSet<u32>,
    backends: HashSet<u32>,
    services: HashSet<u32>,
}

impl Fake {
    /// Empty maps.
    pub fn new(sizes: Sizes) -> Self {
        Self {
            sizes,
            frontends: HashMap::new(),
            services: vec![ServiceWord::UNPUBLISHED; sizes.services as usize],
            lines: vec![Line([0; 16]); sizes.lines as usize],
            backends: vec![Backend::UNUSED; sizes.backends as usize],
            held: Held::default(),
            broken: Vec::new(),
        }
    }

    /// Every rule that was broken so far, in words.
    pub fn broken(&self) -> &[String] {
        &self.broken
    }

    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(what());
        }
    }

    fn publish(&mut self, id: u32, word: ServiceWord) {
        let used = self.frontends.values().any(|f| f.service() == id && !f.has(FrontendWord::REFUSE));
        if !word.is_published() {
            self.expect(!used, || format!("service {id} is retired while a frontend names it"));
        }
        let old = std::mem::replace(&mut self.services[id as usize], word);
        if !old.is_published() {
            let fresh = !self.held.services.contains(&id);
            self.expect(fresh, || format!("service id {id} is reused before a barrier"));
        }
        self.hold(id, old);
        if !word.is_published() {
            return;
        }
        let header = self.lines[word.base() as usize].header();
        self.expect(header.service == id, || format!("service {id} names a block of {}", header.service));
        self.expect(word.lines() >= lines_for(header.slots), || format!("service {id} names a short block"));
        for backend in self.slots(word) {
            let element = self.backends[backend as usize];
            self.expect(element.service() == id && element.windows() != 0, || {
                format!("service {id} has a slot for backend {backend}, which is not there")
            });
        }
    }

    /// What a replaced word named may still be held by a hook.
    fn hold(&mut self, id: u32, old: ServiceWord) {
        if !old.is_published() {
            return;
        }
        self.held.services.insert(id);
        self.held.lines.extend(old.base()..old.base() + old.lines());
        self.held.backends.extend(self.slots(old));
    }

    fn slots(&self, word: ServiceWord) -> Vec<u32> {
        let slots = self.lines[word.base() as usize].header().slots;
        (HEADER_WORDS..HEADER_WORDS + slots)
            .map(|index| self.lines[(word.base() + index / LINE_WORDS) as usize].word(index))
            .collect()
    }

    fn published(&self) -> impl Iterator<Item = ServiceWord> + '_ {
        self.services.iter().copied().filter(|word| word.is_published())
    }

    fn write_backend(&mut self, id: u32, backend: Backend) {
        let used = self.published().any(|word| self.slots(word).contains(&id));
        self.expect(!used, || format!("backend {id} is overwritten while a slot names it"));
        let held = self.held.backends.contains(&id);
        self.expect(!held, || format!("backend {id} is reused before a barrier"));
        self.backends[id as usize] = backend;
    }

    fn write_block(&mut self, base: u32, words: &[u32]) {
        #[expect(clippy::cast_possible_truncation, reason = "a block is smaller than its map")]
        let count = words.len().div_ceil(LINE_WORDS as usize) as u32;
        for line in base..base + count {
            let used = self.published().any(|word| (word.base()..word.base() + word.lines()).contains(&line));
            self.expect(!used, || format!("line {line} is overwritten while a service names it"));
            let held = self.held.lines.contains(&line);
            self.expect(!held, || format!("line {line} is reused before a barrier"));
        }
        for (line, words) in std::iter::zip(base.., words.chunks(LINE_WORDS as usize)) {
            self.lines[line as usize].0[..words.len()].copy_from_slice(words);
        }
    }

    fn put_frontend(&mut self, key: FrontendKey, word: FrontendWord) -> Result<(), Refused> {
        if !self.frontends.contains_key(&key) && self.frontends.len() >= self.sizes.frontends as usize {
            return Err(Refused::Full(ebpf::maps::FRONTENDS));
        }
        let there = word.has(FrontendWord::REFUSE) || self.services[word.service() as usize].is_published();
        self.expect(there, || format!("a frontend names service {}, which is not there", word.service()));
        self.frontends.insert(key, word);
        Ok(())
    }

    fn set_windows(&mut self, id: u32, windows: u8) {
        let used = self.published().any(|word| self.slots(word).contains(&id));
        self.expect(windows != 0 || !used, || {
            format!("backend {id} loses its windows while a slot names it")
        });
        let backend = &mut self.backends[id as usize];
        *backend = backend.with_windows(windows);
    }
}

impl Dataplane for Fake {
    fn apply(&mut self, op: &Op) -> Result<(), Refused> {
        match op {
            Op::WriteBackend(id, backend) => self.write_backend(*id, *backend),
            Op::SetWindows(id, windows) => self.set_windows(*id, *windows),
            Op::WriteBlock(base, header, backends) => {
                let words: Vec<u32> = header.words().into_iter().chain(backends.iter().copied()).collect();
                self.write_block(*base, &words);
            }
            Op::Publish(id, word) => self.publish(*id, *word),
            Op::PutFrontend(key, word) => return self.put_frontend(*key, *word),
            Op::RemoveFrontend(key) => {
                let known = self.frontends.remove(key).is_some();
                self.expect(known, || format!("{key:?} is removed but was not there"));
            }
            Op::Barrier => self.held = Held::default(),
        }
        Ok(())
    }
}

impl Contents for Fake {
    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn frontends(&self) -> Vec<(FrontendKey, FrontendWord)> {
        self.frontends.iter().map(|(&key, &word)| (key, word)).collect()
    }

    fn service(&self, id: u32) -> ServiceWord {
        self.services[id as usize]
    }

    fn line(&self, index: u32) -> Line {
        self.lines[index as usize]
    }

    fn backend(&self, id: u32) -> Backend {
        self.backends[id as usize]
    }
}

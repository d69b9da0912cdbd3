//! What upstreams said, kept for as long as they said it holds, and longer where they fail (RFC 8767).
//! Pure: the time comes in. Nothing of the cluster ever gets here. Owned by `forward`.
//!
//! It is bounded by entries and octets. What goes is what was not asked for again since its last turn
//! (second chance), so that names asked for once cannot wash out those in use.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::name::DomainName;
use crate::record::{Question, RecordType};
use crate::stored::{Age, Kind, Stored};
use crate::wire::{Head, Request};

/// CoreDNS keeps as many.
const MAX_ENTRIES: usize = 10_000;
/// 1.6 KiB for each of these, which is more than most take.
const MAX_OCTETS: usize = 16 << 20;
/// How long an answer may be said after its time: the least that RFC 8767, section 5, recommends.
const MAX_STALE: Duration = Duration::from_secs(86_400);
/// How long no answer is taken for the answer (RFC 9520 wants at least 1 s).
const FAILURE: Duration = Duration::from_secs(1);
/// How long an old answer is said at once after upstreams failed. RFC 8767 proposes 30 s for authoritative
/// servers; ours are a few resolvers, and one that is back should be noticed soon.
const RECHECK: Duration = Duration::from_secs(5);
/// An answer that is asked for again in the last tenth of its life is fetched anew beforehand.
const PREFETCH: u32 = 10;

/// What an answer is kept under.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// In lower case.
    pub(crate) name: DomainName,
    pub(crate) rtype: RecordType,
    pub(crate) class: u16,
    /// DO.
    pub(crate) dnssec: bool,
    /// CD.
    pub(crate) checking_disabled: bool,
}

/// The bounds of a cache.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) entries: usize,
    pub(crate) octets: usize,
}

/// The answers of upstreams.
#[derive(Debug)]
pub(crate) struct Cache {
    entries: HashMap<Key, Entry>,
    /// Every key once, in the order of their turns to go.
    turns: VecDeque<Key>,
    totals: Totals,
    limits: Limits,
}

/// What the entries come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) octets: usize,
    pub(crate) successes: usize,
    pub(crate) denials: usize,
}

#[derive(Debug)]
struct Entry {
    /// None where no upstream answered.
    stored: Option<Arc<Stored>>,
    since: Instant,
    until: Instant,
    /// Upstreams are not asked again before this, where what is known is too old.
    recheck: Instant,
    /// Asked for since it was stored.
    again: bool,
    /// Asked for since its last turn.
    used: bool,
}

/// What is known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// Nothing.
    Nothing,
    /// That no upstream answers.
    Failure,
    /// An answer, which may be said as it is.
    Answer(Arc<Stored>, Age),
    /// An answer, which may be said as it is, and is worth fetching anew.
    Expiring(Arc<Stored>, Age),
    /// An answer that is too old, to be said if no upstream knows better.
    Expired(Arc<Stored>),
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: MAX_ENTRIES, octets: MAX_OCTETS }
    }
}

impl Key {
    /// The key of what a request asks for.
    pub(crate) fn of(request: &Request) -> Self {
        Self::new(&request.question, request)
    }

    /// The key of a question that is asked for the sake of a request.
    pub(crate) fn new(question: &Question, request: &Request) -> Self {
        Self {
            name: question.name.to_lower_case(),
            rtype: question.rtype,
            class: question.class,
            dnssec: request.edns.is_some_and(|edns| edns.dnssec),
            checking_disabled: request.head.has(Head::CHECKING_DISABLED),
        }
    }

    pub(crate) fn question(&self) -> Question {
        Question { name: self.name.clone(), rtype: self.rtype, class: self.class }
    }

    fn size(&self) -> usize {
        // Once in the map, once in the order of turns; the octets of the name are shared.
        2 * size_of::<Self>() + self.name.wire().len()
    }
}

impl Cache {
    /// An empty cache.
    pub(crate) fn new(limits: Limits) -> Self {
        Self { entries: HashMap::new(), turns: VecDeque::new(), totals: Totals::default(), limits }
    }

    /// What is known under a key.
    pub(crate) fn look(&mut self, key: &Key, now: Instant) -> Known {
        let Some(entry) = self.entries.get_mut(key) else { return Known::Nothing };
        let again = std::mem::replace(&mut entry.again, true);
        entry.used = true;
        let Some(stored) = &entry.stored else {
            return if now < entry.until { Known::Failure } else { Known::Nothing };
        };
        let stored = Arc::clone(stored);
        if now < entry.until {
            let age = u32::try_from((now - entry.since).as_secs()).unwrap_or(u32::MAX);
            let last_part = entry.until - stored.life() / PREFETCH;
            if again && now >= last_part && now >= entry.recheck {
                return Known::Expiring(stored, Age::Fresh(age));
            }
            return Known::Answer(stored, Age::Fresh(age));
        }
        if now >= entry.until + MAX_STALE {
            return Known::Nothing;
        }
        if now < entry.recheck { Known::Answer(stored, Age::Stale) } else { Known::Expired(stored) }
    }

    /// Keeps an answer for as long as it says. Gives the number of others that had to go.
    pub(crate) fn keep(&mut self, key: &Key, stored: &Arc<Stored>, now: Instant) -> usize {
        let life = stored.life();
        if life.is_zero() {
            // What upstream says now is not to be kept, and what it said before no longer holds.
            self.forget(key);
            return 0;
        }
        self.insert(key, Some(Arc::clone(stored)), (now, life))
    }

    /// Keeps in mind that no upstream answered. An answer from before stays, to be said meanwhile.
    pub(crate) fn fail(&mut self, key: &Key, now: Instant) -> usize {
        if let Some(entry) = self.entries.get_mut(key)
            && entry.stored.is_some()
            && now < entry.until + MAX_STALE
        {
            entry.recheck = now + RECHECK;
            return 0;
        }
        self.insert(key, None, (now, FAILURE))
    }

    /// What is kept.
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    fn insert(&mut self, key: &Key, stored: Option<Arc<Stored>>, (now, life): (Instant, Duration)) -> usize {
        let entry = Entry { stored, since: now, until: now + life, recheck: now, again: false, used: false };
        if entry.size(key) > self.limits.octets {
            self.forget(key);
            return 0;
        }
        self.totals.add(key, &entry);
        match self.entries.insert(key.clone(), entry) {
            Some(old) => self.totals.subtract(key, &old),
            None => self.turns.push_back(key.clone()),
        }
        self.evict()
    }

    fn forget(&mut self, key: &Key) {
        // The key keeps its turn, and counts as an entry until then.
        if let Some(entry) = self.entries.get_mut(key) {
            self.totals.subtract(key, entry);
            entry.stored = None;
            entry.until = entry.since;
            entry.used = false;
            self.totals.add(key, entry);
        }
    }

    fn evict(&mut self) -> usize {
        let mut gone = 0;
        while self.entries.len() > self.limits.entries || self.totals.octets > self.limits.octets {
            let Some(key) = self.turns.pop_front() else { break };
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            if std::mem::take(&mut entry.used) {
                self.turns.push_back(key);
                continue;
            }
            self.totals.subtract(&key, entry);
            self.entries.remove(&key);
            gone += 1;
        }
        gone
    }
}

impl Totals {
    fn add(&mut self, key: &Key, entry: &Entry) {
        self.octets += entry.size(key);
        if let Some(count) = self.count_of(entry) {
            *count += 1;
        }
    }

    fn subtract(&mut self, key: &Key, entry: &Entry) {
        self.octets -= entry.size(key);
        if let Some(count) = self.count_of(entry) {
            *count -= 1;
        }
    }

    fn count_of(&mut self, entry: &Entry) -> Option<&mut usize> {
        entry.stored.as_ref().map(|stored| match stored.kind() {
            Kind::Success => &mut self.successes,
            Kind::Denial => &mut self.denials,
        })
    }
}

impl Entry {
    fn size(&self, key: &Key) -> usize {
        size_of::<Self>() + key.size() + self.stored.as_ref().map_or(0, |stored| stored.size())
    }
}

#[cfg(test)]
mod tests;

//! An upstream's answer as it is kept: its octets, where its TTLs stand, and how long it may be said again.
//! Pure, and it never changes a record: it ages TTLs, leaves out what does not fit, and writes the header,
//! the question and the OPT record for the client that asks now. Made by `forward`, kept by `cache`.

use std::time::Duration;

use crate::record::RecordType;
use crate::respond::extended;
use crate::wire::{self, Contents, HEADER, Head, Rcode, Request, Section};

/// The longest an answer is kept, whatever its TTL: what CoreDNS keeps it for.
const MAX_POSITIVE: u32 = 3600;
/// The longest "there is nothing" is kept: a name that has just been made should be found soon.
const MAX_NEGATIVE: u32 = 30;
/// The TTL of records said again after their time (RFC 8767, section 4).
const STALE_TTL: u32 = 30;

/// An upstream's answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stored {
    /// Header, question and records as they came, without OPT and what came after it.
    octets: Box<[u8]>,
    /// Where the TTLs of the records stand, in order.
    ttls: Box<[u16]>,
    /// Records in the answer, authority and additional sections.
    counts: [u16; 3],
    /// Where the question ends.
    question_end: usize,
    rcode: Rcode,
    kind: Kind,
    /// Seconds it may be kept.
    life: u32,
}

/// What an answer says, in the words of CoreDNS's metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// There are records.
    Success,
    /// There are none.
    Denial,
}

/// How old an answer is when it is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    /// So many seconds, within its life.
    Fresh(u32),
    /// Older than its life, said because nobody says better.
    Stale,
}

impl Stored {
    /// Reads an upstream's answer; None where its records cannot be told apart.
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let (question, question_end) = wire::read_question(message)?;
        let head = Head::read(message)?;
        let mut survey = Survey { end: question_end, ..Survey::default() };
        survey.records(message, question.rtype)?;
        let rcode = Rcode(head.flags & 15 | survey.extended << 4);
        let kind = match rcode {
            Rcode::NO_ERROR if survey.answers => Kind::Success,
            _ => Kind::Denial,
        };
        let life = match kind {
            _ if head.has(Head::TRUNCATED) || ![Rcode::NO_ERROR, Rcode::NX_DOMAIN].contains(&rcode) => 0,
            Kind::Success => survey.least.unwrap_or_default().min(MAX_POSITIVE),
            // Without an SOA nobody said for how long (RFC 2308, section 5).
            Kind::Denial => {
                let negative = survey.negative.unwrap_or_default();
                survey.least.unwrap_or_default().min(negative).min(MAX_NEGATIVE)
            }
        };
        Some(Self {
            octets: message[..survey.end].into(),
            ttls: survey.ttls.into(),
            counts: survey.counts,
            question_end,
            rcode,
            kind,
            life,
        })
    }

    /// How long it may be kept; zero if not at all.
    pub(crate) fn life(&self) -> Duration {
        Duration::from_secs(self.life.into())
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn rcode(&self) -> Rcode {
        self.rcode
    }

    /// About what it takes in memory.
    pub(crate) fn size(&self) -> usize {
        size_of::<Self>() + self.octets.len() + self.ttls.len() * size_of::<u16>()
    }

    /// The whole message at an age, under the id 0 and the question it was asked with.
    pub(crate) fn aged(&self, age: Age) -> Vec<u8> {
        let mut octets = self.octets.to_vec();
        self.age(&mut octets, age);
        self.count(&mut octets, self.counts, false);
        octets
    }

    /// The answer to a request for the same name, type and class, at an age.
    pub(crate) fn answer(&self, request: &Request, age: Age) -> Vec<u8> {
        let extended_error = (age == Age::Stale).then_some(extended::STALE);
        let opt = wire::write_opt(request, &Contents { extended_error, ..Contents::default() });
        let (end, counts, truncated) = self.fit(request.limit() - opt.len());
        let mut octets = self.octets[..end].to_vec();
        self.age(&mut octets, age);
        octets[..2].copy_from_slice(&request.head.id.to_be_bytes());
        octets[2..4].copy_from_slice(&self.flags(request).to_be_bytes());
        let name = request.question.name.wire();
        octets[HEADER..HEADER + name.len()].copy_from_slice(name);
        self.count(&mut octets, counts, !opt.is_empty());
        if truncated {
            octets[2] |= (Head::TRUNCATED >> 8) as u8;
        }
        octets.extend_from_slice(&opt);
        octets
    }

    /// The upstream's flags as far as they are about the data, the client's where they are its own.
    fn flags(&self, request: &Request) -> u16 {
        let own = Head::RECURSION_DESIRED | Head::CHECKING_DISABLED;
        let stored = u16::from_be_bytes([self.octets[2], self.octets[3]]);
        // RFC 6840, section 5.8: AD is for those who asked for it or for DNSSEC.
        let wants_ad = request.head.has(Head::AUTHENTIC) || request.edns.is_some_and(|edns| edns.dnssec);
        let dropped = own | Head::AUTHORITATIVE | if wants_ad { 0 } else { Head::AUTHENTIC };
        stored & !dropped | request.head.flags & own | Head::RECURSION_AVAILABLE
    }

    /// Where to cut so that whole records fit; how many of each section are left; whether that lost some
    /// that are needed. Pointers lead back, so what is left stays readable.
    fn fit(&self, limit: usize) -> (usize, [u16; 3], bool) {
        let (mut end, mut kept) = (self.question_end, [0; 3]);
        let mut ttls = self.ttls.iter();
        for section in 0..3 {
            for ttl_at in ttls.by_ref().take(self.counts[section].into()) {
                let next = self.record_end(*ttl_at);
                if next > limit {
                    return (end, kept, section < 2);
                }
                end = next;
                kept[section] += 1;
            }
        }
        (end, kept, false)
    }

    fn record_end(&self, ttl_at: u16) -> usize {
        let at = usize::from(ttl_at);
        at + 6 + usize::from(u16::from_be_bytes([self.octets[at + 4], self.octets[at + 5]]))
    }

    fn age(&self, octets: &mut [u8], age: Age) {
        let cap = match self.kind {
            Kind::Success => MAX_POSITIVE,
            Kind::Denial => MAX_NEGATIVE,
        };
        for at in self.ttls.iter().map(|at| usize::from(*at)) {
            let Some(octets) = octets.get_mut(at..at + 4) else { return };
            let ttl = match age {
                Age::Fresh(seconds) => ttl(octets).min(cap).saturating_sub(seconds),
                Age::Stale => STALE_TTL,
            };
            octets.copy_from_slice(&ttl.to_be_bytes());
        }
    }

    fn count(&self, octets: &mut [u8], counts: [u16; 3], opt: bool) {
        let counts = [counts[0], counts[1], counts[2] + u16::from(opt)];
        for (index, count) in counts.into_iter().enumerate() {
            octets[6 + index * 2..8 + index * 2].copy_from_slice(&count.to_be_bytes());
        }
    }
}

/// What the records of a message come to.
#[derive(Default)]
struct Survey {
    ttls: Vec<u16>,
    counts: [u16; 3],
    /// Where the last record that is kept ends.
    end: usize,
    /// The smallest TTL.
    least: Option<u32>,
    /// What the SOA says of "there is nothing".
    negative: Option<u32>,
    /// Whether a record is of the type asked for.
    answers: bool,
    /// The upper bits of the code.
    extended: u16,
}

impl Survey {
    fn records(&mut self, message: &[u8], asked: RecordType) -> Option<()> {
        for section in [Section::Answer, Section::Authority, Section::Additional] {
            for _ in 0..section.count(message)? {
                let record = wire::read_record(message, self.end)?;
                if record.rtype == RecordType::OPT {
                    // Between two hops (RFC 6891, section 6.2.1): ours is written anew, and comes last.
                    self.extended = u16::from(message[record.ttl_at]);
                    return Some(());
                }
                let ttl = ttl(&message[record.ttl_at..]);
                self.least = Some(self.least.map_or(ttl, |least| least.min(ttl)));
                self.answers |= section == Section::Answer && asked.covers(record.rtype);
                if section == Section::Authority && record.rtype == RecordType::SOA {
                    let minimum = message.get(record.end.checked_sub(4)?..record.end)?;
                    self.negative = Some(ttl.min(u32::from_be_bytes(minimum.try_into().ok()?)));
                }
                self.ttls.push(u16::try_from(record.ttl_at).ok()?);
                self.counts[section as usize] += 1;
                self.end = record.end;
            }
        }
        Some(())
    }
}

/// A TTL; one with the highest bit set is none (RFC 2181, section 8).
fn ttl(octets: &[u8]) -> u32 {
    let ttl = octets.first_chunk().map_or(0, |octets| u32::from_be_bytes(*octets));
    if ttl > i32::MAX.unsigned_abs() { 0 } else { ttl }
}

#[cfg(test)]
mod tests;

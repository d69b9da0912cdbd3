//! From a request's octets to what is to be done about it: the one place that knows opcodes, transfers and
//! codes. Pure, and never about what a name means; the shells in `server` send, hold or forward as told.

use crate::answer::{Answer, Found, answer};
use crate::name::DomainName;
use crate::record::{CLASS_ANY, CLASS_IN, Data, Record, RecordType};
use crate::wire::{self, Contents, Malformed, Rcode, Request, Transport};
use crate::zone::Zone;

/// What is said to ANY: the CPU "RFC8482", and no operating system.
const ANY_HINFO: &[u8] = b"\x07RFC8482\0";

/// What to do about a request.
#[derive(Debug)]
pub enum Reply {
    /// Nothing: it was noise.
    Drop,
    /// Send these octets.
    Send(Vec<u8>),
    /// Wait for something.
    Wait(Request, Wait),
}

/// What a request waits for.
#[derive(Debug)]
pub enum Wait {
    /// The first lists; then it is to be decided anew.
    Lists,
    /// An upstream's answer to the request as it came.
    Upstream,
    /// An upstream's answer about the name that a chain of aliases ends at.
    Alias(Vec<Record>, DomainName),
}

/// Extended errors (RFC 8914) that we give.
pub(crate) mod extended {
    pub(crate) const NOT_READY: (u16, &str) = (14, "the cluster has not been listed yet");
    pub(crate) const BUSY: (u16, &str) = (0, "too many questions are under way");
    pub(crate) const STALE: (u16, &str) = (3, "no upstream answers; this is an old answer");
    pub(crate) const LOOP: (u16, &str) = (0, "this question was ours");
    pub(crate) const CACHED: (u16, &str) = (13, "no upstream answered a moment ago");
    pub(crate) const NO_UPSTREAM: (u16, &str) = (23, "no upstream answered in time");
    pub(crate) const NOT_PROGRAMMED: (u16, &str) = (0, "this node cannot serve the service or alias");
}

/// What to do about the octets of a request.
pub fn respond(zone: &Zone, message: &[u8], transport: Transport, seed: u64) -> Reply {
    let request = match Request::read(message, transport) {
        Ok(request) => request,
        Err(Malformed::Noise) => return Reply::Drop,
        Err(Malformed::Refuse(head, rcode)) => return Reply::Send(wire::write_refusal(head, rcode)),
    };
    if request.edns.is_some_and(|edns| edns.version > 0) {
        return Reply::Send(failure(&request, Rcode::BAD_VERS, None));
    }
    match (request.question.rtype, transport) {
        (RecordType::AXFR | RecordType::IXFR, Transport::Tcp) => {
            Reply::Send(failure(&request, Rcode::REFUSED, None))
        }
        // A transfer needs a stream (RFC 5936, section 4.2).
        (RecordType::AXFR | RecordType::IXFR, Transport::Udp) => {
            Reply::Send(failure(&request, Rcode::FORM_ERR, None))
        }
        _ => decide(zone, request, seed),
    }
}

/// What to do about a request that has been read.
pub(crate) fn decide(zone: &Zone, request: Request, seed: u64) -> Reply {
    if ![CLASS_IN, CLASS_ANY].contains(&request.question.class) {
        // CHAOS has the versions of servers, ours and the upstreams' (RFC 4892): there is nothing to see. An
        // error would make a libc wait.
        return Reply::Send(wire::write(&request, &Contents::default()));
    }
    let contents = match answer(zone, &request.question, seed) {
        Answer::NotYet => return Reply::Wait(request, Wait::Lists),
        Answer::Forward { chain, .. } if chain.is_empty() => return Reply::Wait(request, Wait::Upstream),
        Answer::Forward { chain, name } => return Reply::Wait(request, Wait::Alias(chain, name)),
        Answer::ServFail => {
            return Reply::Send(failure(&request, Rcode::SERV_FAIL, Some(extended::NOT_PROGRAMMED)));
        }
        Answer::Found(found) if request.question.rtype == RecordType::ANY => Contents {
            authoritative: true,
            answers: vec![least(&request, found, zone.config().ttl)],
            ..Contents::default()
        },
        Answer::Found(Found { records, additional }) => {
            Contents { authoritative: true, answers: records, additional, ..Contents::default() }
        }
        Answer::NoData { chain, soa } => {
            Contents { authoritative: true, answers: chain, authority: vec![soa], ..Contents::default() }
        }
        Answer::NoName { chain, soa } => Contents {
            rcode: Rcode::NX_DOMAIN.0,
            authoritative: true,
            answers: chain,
            authority: vec![soa],
            ..Contents::default()
        },
    };
    Reply::Send(wire::write(&request, &contents))
}

/// As little as can be said to ANY (RFC 8482, section 4.2), so that nobody is flooded with our records. An
/// alias stays one: there is nothing else at its name.
fn least(request: &Request, found: Found, ttl: u32) -> Record {
    let alias = found.records.into_iter().next().filter(|record| record.data.rtype() == RecordType::CNAME);
    alias.unwrap_or_else(|| Record {
        owner: request.question.name.clone(),
        ttl,
        data: Data::Other { rtype: RecordType::HINFO, octets: ANY_HINFO.to_vec() },
    })
}

/// An answer that is only a code.
pub(crate) fn failure(request: &Request, rcode: Rcode, extended: Option<(u16, &'static str)>) -> Vec<u8> {
    wire::write(request, &Contents { rcode: rcode.0, extended_error: extended, ..Contents::default() })
}

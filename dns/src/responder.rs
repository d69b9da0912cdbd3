//! What all sockets of one address share: takes a request in, answers it at once or says that it has to wait,
//! and counts. It decides nothing about names. Used by `worker` and `tcp`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::access::{Access, Verdict};
use crate::fast::{self, Said};
use crate::forward::Forwarder;
use crate::metrics::ServerMetrics;
use crate::names::Reader;
use crate::record::RecordType;
use crate::respond::{Reply, Wait, decide, extended, failure, respond};
use crate::wire::{self, Head, Rcode, Request, Transport};

/// Questions that may wait for an upstream or the first lists at one time. One waiting costs about 2 KiB.
pub(crate) const MAX_PENDING: usize = 4000;
/// Of these, questions that wait for the first lists: the rest stays free for external names.
const MAX_HELD: usize = 1000;
/// How long a question waits for the first lists: less than a client's shortest usual time-out, 2 s.
const HOLD: Duration = Duration::from_millis(1500);

/// What every address shares.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) zone: Reader,
    pub(crate) forwarder: Arc<Forwarder>,
    pub(crate) access: Arc<Access>,
    /// One question in so many is logged; none if 0.
    pub(crate) log_every: u64,
    pub(crate) places: Arc<Places>,
    /// Times are counted from here.
    pub(crate) started: Instant,
}

/// How much may wait.
pub(crate) struct Places {
    pending: Arc<Semaphore>,
    held: Semaphore,
}

impl Default for Places {
    fn default() -> Self {
        Self { pending: Arc::new(Semaphore::new(MAX_PENDING)), held: Semaphore::new(MAX_HELD) }
    }
}

/// What every socket of one address shares.
pub(crate) struct Responder {
    pub(crate) shared: Shared,
    pub(crate) metrics: ServerMetrics,
    asked: AtomicU64,
}

/// What became of a request at once.
pub(crate) enum Taken {
    Nothing,
    Answer(Vec<u8>),
    Later(Job),
}

/// Who asked, how and when.
#[derive(Clone, Copy)]
pub(crate) struct Asker {
    pub(crate) client: SocketAddr,
    pub(crate) transport: Transport,
    pub(crate) since: Instant,
}

/// A request that has to wait.
pub(crate) struct Job {
    request: Request,
    wait: Wait,
    asker: Asker,
    _place: OwnedSemaphorePermit,
}

impl Responder {
    pub(crate) fn new(shared: Shared, metrics: ServerMetrics) -> Self {
        Self { shared, metrics, asked: AtomicU64::new(0) }
    }

    /// Whether a client is to be answered.
    pub(crate) fn admit(&self, asker: &Asker) -> Verdict {
        let now = asker.since.saturating_duration_since(self.shared.started);
        let verdict = self.shared.access.verdict(asker.client.ip(), now);
        self.metrics.count_verdict(verdict);
        verdict
    }

    /// Takes in a datagram: appends its answer, or gives back what has to wait.
    pub(crate) fn take_datagram(
        &self,
        message: &[u8],
        asker: Asker,
        seed: u64,
        out: &mut Vec<u8>,
    ) -> Option<Job> {
        match self.admit(&asker) {
            Verdict::Answer => {}
            Verdict::Refuse => {
                out.extend(refuse(message).unwrap_or_default());
                return None;
            }
            Verdict::Ignore | Verdict::Limit => return None,
        }
        if let Some(said) = self.shared.zone.read(|zone| fast::respond(zone, message, seed, out)) {
            self.count(message, said, &asker);
            return None;
        }
        match self.take(message, asker, seed) {
            Taken::Nothing => None,
            Taken::Answer(answer) => {
                out.extend_from_slice(&answer);
                None
            }
            Taken::Later(job) => Some(job),
        }
    }

    /// Takes in a request that was admitted.
    pub(crate) fn take(&self, message: &[u8], asker: Asker, seed: u64) -> Taken {
        let reply = self.shared.zone.read(|zone| respond(zone, message, asker.transport, seed));
        let answer = match reply {
            Reply::Drop => return Taken::Nothing,
            Reply::Send(answer) => answer,
            Reply::Wait(request, wait) => match self.known(&request, &wait) {
                Some(answer) => answer,
                None => match Arc::clone(&self.shared.places.pending).try_acquire_owned() {
                    Ok(place) => return Taken::Later(Job { request, wait, asker, _place: place }),
                    Err(_) => self.shared.forwarder.shed(&request),
                },
            },
        };
        self.count(message, said(message, &answer), &asker);
        Taken::Answer(answer)
    }

    fn known(&self, request: &Request, wait: &Wait) -> Option<Vec<u8>> {
        match wait {
            Wait::Upstream => self.shared.forwarder.known(request),
            Wait::Lists | Wait::Alias(..) => None,
        }
    }

    /// Answers a request that has to wait. Bounded in time.
    pub(crate) async fn finish(&self, job: Job) -> Vec<u8> {
        let Job { request, wait, asker, _place } = job;
        let answer = match wait {
            Wait::Lists => self.hold(request).await,
            Wait::Upstream | Wait::Alias(..) => self.ask(&request, wait).await,
        };
        self.count(&answer, said(&answer, &answer), &asker);
        answer
    }

    /// Waits for the first lists, then answers.
    async fn hold(&self, request: Request) -> Vec<u8> {
        let Shared { zone, places, forwarder, .. } = &self.shared;
        let Ok(place) = places.held.try_acquire() else { return forwarder.shed(&request) };
        let listed = timeout(HOLD, zone.wait_ready()).await;
        drop(place);
        if listed.is_err() {
            return failure(&request, Rcode::SERV_FAIL, Some(extended::NOT_READY));
        }
        match zone.read(|zone| decide(zone, request, rand::random())) {
            Reply::Send(answer) => answer,
            Reply::Wait(request, wait) => self.ask(&request, wait).await,
            Reply::Drop => Vec::new(),
        }
    }

    async fn ask(&self, request: &Request, wait: Wait) -> Vec<u8> {
        let forwarder = &self.shared.forwarder;
        match wait {
            Wait::Upstream => forwarder.relay(request).await,
            Wait::Alias(chain, name) => forwarder.chase(request, chain, name).await,
            Wait::Lists => failure(request, Rcode::SERV_FAIL, Some(extended::NOT_READY)),
        }
    }

    fn count(&self, message: &[u8], said: Said, asker: &Asker) {
        let took = asker.since.elapsed();
        self.metrics.count(asker.transport, said, took);
        let every = self.shared.log_every;
        if every > 0 && self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(every) {
            log(message, said, asker, took);
        }
    }
}

/// One question and what became of it, for who wants to see what is asked.
fn log(message: &[u8], said: Said, asker: &Asker, took: Duration) {
    let Some((question, _)) = wire::read_question(message) else { return };
    tracing::info!(
        target: "dns::queries",
        client = %asker.client, name = %question.name, r#type = %question.rtype, rcode = said.rcode.name(),
        transport = ?asker.transport, micros = took.as_micros(),
        "asked"
    );
}

/// What is said to a stranger who is to know: that it is refused, and nothing of its question.
pub(crate) fn refuse(message: &[u8]) -> Option<Vec<u8>> {
    let head =
        Head::read(message).filter(|head| message.len() >= wire::HEADER && !head.has(Head::RESPONSE))?;
    Some(wire::write_refusal(head, Rcode::REFUSED))
}

fn said(message: &[u8], answer: &[u8]) -> Said {
    let at = wire::question_end(message).unwrap_or_default();
    let rtype = at.checked_sub(4).and_then(|at| wire::word(message, at)).unwrap_or_default();
    let rcode = Head::read(answer).map_or(u16::MAX, |head| head.flags & 15);
    Said { rtype: RecordType(rtype), rcode: Rcode(rcode) }
}

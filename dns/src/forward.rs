//! The way upstream: what the cache does not know is asked for, once however many want it at a time. It knows
//! nothing of names. Called by `server` for whatever is not ours.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use crate::cache::{Cache, Key, Known, Limits};
use crate::exchange::attempt;
use crate::loops::Probes;
use crate::metrics::Metrics;
use crate::name::DomainName;
use crate::record::{Question, Record, RecordType};
use crate::respond::{extended, failure};
use crate::splice;
use crate::stored::{Age, Stored};
use crate::upstream::{Order, Upstream, UpstreamState};
use crate::wire::{self, Rcode, Request};

/// All that an upstream answer may take: glibc gives up after 5 s, so a SERVFAIL after 4 s still helps.
const DEADLINE: Duration = Duration::from_secs(4);
/// How long upstreams have before an old answer is given instead (RFC 8767, section 5).
const STALE_AFTER: Duration = Duration::from_millis(1800);
/// Attempts for one question, over all upstreams.
const MAX_ATTEMPTS: usize = 6;
/// Questions on their way upstream at one time: as many as clients may wait for. Beyond it, those are left
/// that nobody has to wait for, and then any.
const MAX_FLIGHTS: usize = 4000;

/// Asks upstreams.
#[derive(Debug)]
pub struct Forwarder {
    upstreams: ArcSwap<Vec<Arc<Upstream>>>,
    /// The domains with upstreams of their own, the deeper ones first.
    stubs: Vec<Stub>,
    probes: Mutex<Probes>,
    cache: Mutex<Cache>,
    flights: Mutex<HashMap<Key, watch::Receiver<Flight>>>,
    metrics: Metrics,
}

/// A domain with upstreams of its own.
#[derive(Debug)]
struct Stub {
    domain: DomainName,
    upstreams: Vec<Arc<Upstream>>,
}

/// A question on its way upstream, for all who ask it meanwhile.
#[derive(Clone, Debug)]
enum Flight {
    UnderWay,
    /// With the answer, if there is one.
    Landed(Option<Arc<Stored>>),
}

/// What is to be said to a question.
enum Outcome {
    Answer(Arc<Stored>, Age),
    Failure((u16, &'static str)),
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum AskError {
    #[error("there is no upstream")]
    NoUpstream,
    #[error("no upstream answered in time")]
    TimedOut,
    #[error("the last upstream failed")]
    Failed(#[source] io::Error),
    #[error("upstreams say {}", .0.name())]
    Said(Rcode),
}

impl Forwarder {
    /// A forwarder to these upstreams, and to others for names in some domains; the deepest domain counts.
    pub fn new(
        upstreams: Vec<SocketAddr>,
        stub_domains: BTreeMap<DomainName, Vec<SocketAddr>>,
        metrics: Metrics,
    ) -> Self {
        let stub = |(domain, addresses): (DomainName, Vec<SocketAddr>)| Stub {
            domain,
            upstreams: addresses.into_iter().map(|address| Arc::new(Upstream::new(address))).collect(),
        };
        let mut stubs: Vec<Stub> = stub_domains.into_iter().map(stub).collect();
        stubs.sort_by_key(|stub| Reverse(stub.domain.labels().count()));
        let this = Self {
            upstreams: ArcSwap::default(),
            stubs,
            probes: Mutex::default(),
            cache: Mutex::new(Cache::new(Limits::default())),
            flights: Mutex::default(),
            metrics,
        };
        this.replace(upstreams);
        this
    }

    /// Replaces the upstreams. What is known of those that stay is kept.
    pub fn replace(&self, addresses: Vec<SocketAddr>) {
        let known = self.upstreams.load();
        if addresses.is_empty() {
            tracing::warn!("there is no upstream DNS server: names outside the cluster answer SERVFAIL");
        }
        let keep = |address| known.iter().find(|upstream| upstream.address == address).cloned();
        let new = addresses.into_iter().map(|a| keep(a).unwrap_or_else(|| Arc::new(Upstream::new(a))));
        self.upstreams.store(Arc::new(new.collect()));
    }

    /// The upstreams in order.
    pub fn upstreams(&self) -> Vec<SocketAddr> {
        self.upstreams.load().iter().map(|upstream| upstream.address).collect()
    }

    /// What is known of every upstream, in order.
    pub fn states(&self) -> Vec<UpstreamState> {
        self.by_domain().into_iter().map(|(domain, upstream)| upstream.describe(domain)).collect()
    }

    /// The upstreams that were found to send our questions back to us, and are not asked.
    pub fn loops(&self) -> Vec<SocketAddr> {
        let all = self.by_domain().into_iter().map(|(_, upstream)| upstream);
        all.filter(|upstream| upstream.loops()).map(|upstream| upstream.address).collect()
    }

    /// Asks every upstream for which it is due whether it leads back to us.
    pub(crate) fn probe(self: &Arc<Self>) {
        for (domain, upstream) in self.by_domain() {
            if !upstream.is_probe_due(Instant::now()) {
                continue;
            }
            let Some(name) = lock(&self.probes).begin(&domain, upstream.address, rand::random()) else {
                return;
            };
            let this = Arc::clone(self);
            // Ends by `DEADLINE`.
            tokio::spawn(async move {
                // CoreDNS asks for the same type: one that no client needs.
                let question = Question::new(name.clone(), RecordType::HINFO);
                let query = wire::write_question(&question, false, false);
                let said =
                    timeout(DEADLINE, attempt(Arc::clone(&upstream), query, this.metrics.clone())).await;
                let came_back = lock(&this.probes).end(&name);
                if !came_back && matches!(said, Ok((_, Ok(_)))) {
                    upstream.set_loops(false);
                }
            });
        }
    }

    /// Whether a question is one of our own that an upstream sent back.
    fn is_loop(&self, name: &DomainName) -> bool {
        let Some(address) = lock(&self.probes).asked(name) else { return false };
        let all = self.by_domain().into_iter().map(|(_, upstream)| upstream);
        for upstream in all.filter(|upstream| upstream.address == address) {
            if upstream.set_loops(true) {
                self.metrics.loops.inc();
            }
        }
        true
    }

    /// Every upstream with the domain it is asked about.
    fn by_domain(&self) -> Vec<(DomainName, Arc<Upstream>)> {
        let root = DomainName::root();
        let general = self.upstreams.load();
        let general = general.iter().map(|upstream| (root.clone(), Arc::clone(upstream)));
        let stubs = self.stubs.iter();
        let stubs =
            stubs.flat_map(|stub| stub.upstreams.iter().map(|u| (stub.domain.clone(), Arc::clone(u))));
        general.chain(stubs).collect()
    }

    /// The answer to a request for which there is no place.
    pub(crate) fn shed(&self, request: &Request) -> Vec<u8> {
        self.metrics.shed.inc();
        failure(request, Rcode::SERV_FAIL, Some(extended::BUSY))
    }

    /// The answer to a request that is not ours, if it is known without waiting.
    pub(crate) fn known(self: &Arc<Self>, request: &Request) -> Option<Vec<u8>> {
        self.look(&Key::of(request)).ok().map(|outcome| outcome.answer(request))
    }

    /// The answer to a request that is not ours: the upstream's records, with the client's id and the client's
    /// spelling of the question.
    pub(crate) async fn relay(self: &Arc<Self>, request: &Request) -> Vec<u8> {
        if self.is_loop(&request.question.name) {
            return failure(request, Rcode::SERV_FAIL, Some(extended::LOOP));
        }
        self.resolve(Key::of(request)).await.answer(request)
    }

    /// The answer to a request of ours whose chain of aliases leads out of the zone: the chain, then what
    /// the upstream says of its end.
    pub(crate) async fn chase(
        self: &Arc<Self>,
        request: &Request,
        chain: Vec<Record>,
        name: DomainName,
    ) -> Vec<u8> {
        let question = Question { name, ..request.question.clone() };
        let said = match self.resolve(Key::new(&question, request)).await {
            Outcome::Answer(stored, age) => splice::contents(chain, &stored.aged(age)),
            Outcome::Failure(extended) => return failure(request, Rcode::SERV_FAIL, Some(extended)),
        };
        match said {
            Some(contents) => wire::write(request, &contents),
            None => failure(request, Rcode::SERV_FAIL, Some(extended::NO_UPSTREAM)),
        }
    }

    async fn resolve(self: &Arc<Self>, key: Key) -> Outcome {
        let stale = match self.look(&key) {
            Ok(outcome) => return outcome,
            Err(stale) => stale,
        };
        self.metrics.count_miss();
        let Some(flight) = self.fly(&key, MAX_FLIGHTS) else {
            self.metrics.shed.inc();
            return stale.map_or(Outcome::Failure(extended::BUSY), |stored| self.stale(stored));
        };
        let Some(stored) = stale else {
            let landed = landed(flight).await;
            return landed.map_or(Outcome::Failure(extended::NO_UPSTREAM), Outcome::fresh);
        };
        match timeout(STALE_AFTER, landed(flight)).await {
            Ok(Some(stored)) => return Outcome::fresh(stored),
            Ok(None) => {}
            // Those who ask next need not wait as long.
            Err(_) => _ = lock(&self.cache).fail(&key, Instant::now()),
        }
        self.stale(stored)
    }

    /// What the cache says; an error where upstreams have to be asked, with the answer to give if they fail.
    fn look(self: &Arc<Self>, key: &Key) -> Result<Outcome, Option<Arc<Stored>>> {
        let known = lock(&self.cache).look(key, Instant::now());
        match known {
            Known::Nothing => return Err(None),
            Known::Expired(stored) => return Err(Some(stored)),
            Known::Failure => return Ok(Outcome::Failure(extended::CACHED)),
            Known::Answer(stored, Age::Stale) => return Ok(self.stale(stored)),
            Known::Answer(..) | Known::Expiring(..) => {}
        }
        if matches!(known, Known::Expiring(..)) && self.fly(key, MAX_FLIGHTS / 2).is_some() {
            self.metrics.prefetched.inc();
        }
        let (Known::Answer(stored, age) | Known::Expiring(stored, age)) = known else { return Err(None) };
        self.metrics.count_hit(stored.kind());
        Ok(Outcome::Answer(stored, age))
    }

    fn stale(&self, stored: Arc<Stored>) -> Outcome {
        self.metrics.count_hit(stored.kind());
        self.metrics.served_stale.inc();
        Outcome::Answer(stored, Age::Stale)
    }

    /// Joins the flight of a question or begins one; None where there are as many as there may be.
    fn fly(self: &Arc<Self>, key: &Key, limit: usize) -> Option<watch::Receiver<Flight>> {
        let mut flights = lock(&self.flights);
        match flights.get(key) {
            // One whose task ended without landing panicked: the process is about to end.
            Some(flight) if flight.has_changed().is_ok() => {
                self.metrics.joined.inc();
                return Some(flight.clone());
            }
            Some(_) | None => {}
        }
        if flights.len() >= limit {
            return None;
        }
        let (sender, receiver) = watch::channel(Flight::UnderWay);
        flights.insert(key.clone(), receiver.clone());
        let (this, key) = (Arc::clone(self), key.clone());
        // It outlives those who wait for it, so that what arrives late is kept; never longer than `DEADLINE`.
        tokio::spawn(async move {
            let stored = this.fetch(&key).await;
            lock(&this.flights).remove(&key);
            // That nobody waits any more is no fault.
            let _ = sender.send(Flight::Landed(stored));
        });
        Some(receiver)
    }

    /// Asks upstreams, and keeps what they say.
    async fn fetch(&self, key: &Key) -> Option<Arc<Stored>> {
        let query = wire::write_question(&key.question(), key.dnssec, key.checking_disabled);
        let stored = match self.ask(&key.name, &query).await {
            Ok(stored) => Some(Arc::new(stored)),
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a question found no answer upstream"
                );
                self.metrics.unanswered.inc();
                // It costs nothing to find out anew that there is no upstream, and there may be one now.
                if matches!(error, AskError::NoUpstream) {
                    return None;
                }
                None
            }
        };
        let mut cache = lock(&self.cache);
        let evicted = match &stored {
            Some(stored) => cache.keep(key, stored, Instant::now()),
            None => cache.fail(key, Instant::now()),
        };
        self.metrics.count_cache(cache.totals(), evicted);
        stored
    }

    /// Asks one upstream after another, the next when one is slow or fails, until one answers.
    async fn ask(&self, name: &DomainName, query: &[u8]) -> Result<Stored, AskError> {
        let now = Instant::now();
        let deadline = now + DEADLINE;
        let order = match self.stubs.iter().find(|stub| name.is_below(&stub.domain)) {
            Some(stub) => Order::new(&stub.upstreams, now),
            None => Order::new(&self.upstreams.load(), now),
        };
        if order.is_empty() {
            return Err(AskError::NoUpstream);
        }
        let attempts = MAX_ATTEMPTS.min(order.len() * 3);
        let mut under_way = JoinSet::new();
        let (mut started, mut last) = (0, AskError::TimedOut);
        loop {
            let mut turn = deadline;
            if started < attempts {
                let (upstream, patience) = order.attempt(started);
                started += 1;
                turn = deadline.min(Instant::now() + patience);
                under_way.spawn(attempt(upstream, query.to_vec(), self.metrics.clone()));
            }
            match timeout_at(turn, under_way.join_next()).await {
                Ok(Some(Ok((_, Ok(stored))))) if !is_failure(stored.rcode()) => return Ok(stored),
                Ok(Some(Ok((_, Ok(stored))))) => last = AskError::Said(stored.rcode()),
                Ok(Some(Ok((upstream, Err(error))))) => {
                    upstream.failed(Instant::now());
                    last = AskError::Failed(error);
                }
                // A task that panicked; the process is about to end.
                Ok(Some(Err(_))) => {}
                Ok(None) if started >= attempts => return Err(last),
                Ok(None) => {}
                Err(_) if turn == deadline => return Err(last),
                Err(_) => order.attempt(started - 1).0.late(Instant::now()),
            }
            if under_way.is_empty() && started >= order.len() && matches!(last, AskError::Said(_)) {
                return Err(last);
            }
        }
    }
}

impl Outcome {
    fn fresh(stored: Arc<Stored>) -> Self {
        Self::Answer(stored, Age::Fresh(0))
    }

    fn answer(&self, request: &Request) -> Vec<u8> {
        match self {
            Self::Answer(stored, age) => stored.answer(request, *age),
            // Nothing but SERVFAIL makes a pod's libc go on: musl ignores other errors and waits.
            Self::Failure(extended) => failure(request, Rcode::SERV_FAIL, Some(*extended)),
        }
    }
}

/// What a flight brings; None where no upstream answered.
async fn landed(mut flight: watch::Receiver<Flight>) -> Option<Arc<Stored>> {
    let landed = flight.wait_for(|flight| matches!(flight, Flight::Landed(_))).await.ok()?.clone();
    match landed {
        Flight::Landed(stored) => stored,
        Flight::UnderWay => None,
    }
}

fn is_failure(rcode: Rcode) -> bool {
    [Rcode::FORM_ERR, Rcode::SERV_FAIL, Rcode::NOT_IMP, Rcode::REFUSED].contains(&rcode) || rcode.0 > 15
}

/// Locks what every write leaves whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

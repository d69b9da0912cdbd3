//! The decisions of the hooks: which backend a socket is sent to, and which frontend it is shown. Pure but
//! for what [`Kernel`] stores; everything is inlined, for the verifier's sake.

use crate::address::{Address, Port};
use crate::affinity::{AffinityKey, AffinityWord, NODE_CLIENT, namespace_client};
use crate::backend::{self, Backend};
use crate::block::{HEADER_WORDS, Header, LINE_WORDS, Window};
use crate::choice::{ChoiceKey, ChoiceWord};
use crate::frontend::{FrontendKey, FrontendWord};
use crate::hostport::lead;
use crate::kernel::{Kernel, Maps, Recorded};
use crate::maps::HEARTBEAT_VALID_NS;
use crate::reverse::{Dialled, Record, ReverseKey};
use crate::stats::Reason;

/// How many other slots an unconnected socket tries when its choice is already the backend of another
/// frontend.
const SLOT_TRIES: u32 = 4;

/// What a hook decided about a dialled address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing to do with us.
    Leave,
    /// Send it to this address and port instead.
    Send(Address, Port),
    /// ECONNREFUSED.
    Refuse,
    /// EHOSTUNREACH.
    Unreachable,
}

/// The part of a service's block that a frontend uses.
pub(crate) struct Route {
    pub(crate) service: u32,
    base: u32,
    header: Header,
    window: Window,
    pub(crate) bit: u8,
}

impl Route {
    /// Whether clients stick to a backend.
    #[inline(always)]
    pub(crate) const fn has_affinity(&self) -> bool {
        self.header.affinity_seconds != 0
    }
}

/// A socket connects to `key`: TCP, or UDP that becomes connected.
#[inline(always)]
pub fn connect<K: Kernel>(kernel: &K, key: &FrontendKey) -> Verdict {
    let (id, backend) = match choose(kernel, key) {
        Ok(chosen) => chosen,
        Err(stop) => {
            // An earlier connect() of this socket may have left a record; what it says is over.
            release(kernel);
            if let Stop::Leave(Reason::NoFrontend) = stop
                && let Some((address, port)) = lead(kernel, key)
            {
                // Without it nobody could tell that the socket ends with the pod.
                if !kernel.add_record(&Record::of_host_port(key)) {
                    kernel.count(Reason::NotRecorded);
                }
                return Verdict::Send(address, port);
            }
            return stop.verdict(kernel);
        }
    };
    kernel.opened(id);
    let record = Record::new(key, id, backend);
    if !kernel.add_record(&record) {
        // The socket was connected before, or the map is full.
        release(kernel);
        if !kernel.add_record(&record) {
            kernel.count(Reason::NotRecorded);
        }
    }
    Verdict::Send(*backend.address(), backend.port())
}

/// A socket is closed, or connects again: what it dialled before is over.
#[inline(always)]
pub fn release<R: Recorded>(kernel: &R) {
    let Some(record) = kernel.record() else { return };
    if let Some(backend) = kernel.recorded_backend(record.backend())
        && record.led_to(backend)
    {
        kernel.closed(record.backend());
    }
    kernel.remove_record();
}

/// A UDP socket sends a datagram to `key` without being connected to it.
#[inline(always)]
pub fn send<K: Kernel>(kernel: &K, key: &FrontendKey) -> Verdict {
    let cookie = kernel.socket_cookie();
    let (address, port) = match keep_or_choose(kernel, key, cookie) {
        Ok(backend) => (*backend.address(), backend.port()),
        Err(Stop::Leave(Reason::NoFrontend)) => match lead(kernel, key) {
            Some(led) => led,
            None => return Stop::Leave(Reason::NoFrontend).verdict(kernel),
        },
        Err(stop) => return stop.verdict(kernel),
    };
    let reverse = ReverseKey::new(cookie, address, port);
    let dialled = Dialled::new(&reverse, *key.address(), key.port());
    match kernel.dialled(&reverse) {
        Some(known) if known.is(&dialled) => {}
        Some(_) | None => kernel.set_dialled(&reverse, &dialled),
    }
    Verdict::Send(address, port)
}

/// A datagram from `address` and `port` is shown to a UDP socket; `connected` if that is its peer. The
/// frontend to show instead.
#[inline(always)]
pub fn receive<K: Kernel>(
    kernel: &K,
    address: Address,
    port: Port,
    connected: bool,
) -> Option<(Address, Port)> {
    if connected {
        return peer(kernel);
    }
    let key = ReverseKey::new(kernel.socket_cookie(), address, port);
    match read_dialled(kernel, &key) {
        Some(dialled) => Some(dialled),
        // The element may have been handed to another key under the first lookup.
        None => read_dialled(kernel, &key),
    }
}

/// The frontend that a connected socket dialled, if it dialled one.
#[inline(always)]
pub fn peer<R: Recorded>(kernel: &R) -> Option<(Address, Port)> {
    let record = kernel.record()?;
    if record.is_known() { Some((record.address(), record.port())) } else { None }
}

/// Why there is no backend.
#[derive(Clone, Copy)]
pub(crate) enum Stop {
    Leave(Reason),
    Refuse(Reason),
    Unreachable,
}

impl Stop {
    #[inline(always)]
    fn verdict<K: Kernel>(self, kernel: &K) -> Verdict {
        match self {
            Self::Leave(reason) => {
                kernel.count(reason);
                Verdict::Leave
            }
            Self::Refuse(reason) => {
                kernel.count(reason);
                Verdict::Refuse
            }
            Self::Unreachable => {
                kernel.count(Reason::NoLocalEndpoint);
                Verdict::Unreachable
            }
        }
    }
}

/// A backend for a connection: its id, and itself. No closures in here: those that the compiler
/// does not inline carry enums into the BTF, which the kernel refuses.
#[inline(always)]
fn choose<'a, K: Kernel>(kernel: &'a K, key: &FrontendKey) -> Result<(u32, &'a Backend), Stop> {
    let route = route(kernel, key)?;
    kernel.foresee_record();
    let id = pick(kernel, &route, key.address().is_ipv4())?;
    Ok((id, load(kernel, id)?))
}

#[inline(always)]
fn keep_or_choose<'a, K: Kernel>(kernel: &'a K, key: &FrontendKey, cookie: u64) -> Result<&'a Backend, Stop> {
    let route = route(kernel, key)?;
    keep_or_pick(kernel, &route, key, cookie)
}

#[inline(always)]
fn route<K: Kernel>(kernel: &K, key: &FrontendKey) -> Result<Route, Stop> {
    let word = find(kernel, key)?;
    if word.has(FrontendWord::NODE_ONLY) && kernel.netns_cookie() != kernel.node_netns() {
        return Err(Stop::Leave(Reason::OtherNamespace));
    }
    follow(kernel, word, word.has(FrontendWord::SOCKET_LOCAL))
}

/// Whether the daemon answers names. Its beat may be in the future: the clock is that of the last tick.
#[inline(always)]
fn is_answering<K: Maps>(kernel: &K) -> bool {
    kernel.now_ns().saturating_sub(kernel.heartbeat_ns()) < HEARTBEAT_VALID_NS
}

/// Where the word of a frontend leads; `local` if its policy wants the local window.
#[inline(always)]
pub(crate) fn follow<K: Maps>(kernel: &K, word: FrontendWord, local: bool) -> Result<Route, Stop> {
    if word.has(FrontendWord::REFUSE) {
        return Err(Stop::Refuse(Reason::NoPort));
    }
    let here_first = word.has(FrontendWord::HERE_FIRST);
    if here_first && is_answering(kernel) {
        return Err(Stop::Leave(Reason::HereFirst));
    }
    let service = kernel.service(word.service()).ok_or(Stop::Leave(Reason::Inconsistent))?;
    if !service.is_published() {
        return Err(Stop::Leave(Reason::Unpublished));
    }
    let header = kernel.line(service.base()).ok_or(Stop::Leave(Reason::Inconsistent))?.header();
    let (window, bit) =
        if local { (header.local(), backend::LOCAL) } else { (header.cluster(), backend::CLUSTER) };
    if window.is_empty() {
        if !here_first {
            kernel.refused(word.service());
        }
        return Err(match (here_first, header.slots) {
            (true, _) => Stop::Leave(Reason::HereFirst),
            (false, 0) => Stop::Refuse(Reason::NoEndpoint),
            (false, _) => Stop::Unreachable,
        });
    }
    Ok(Route { service: word.service(), base: service.base(), header, window, bit })
}

/// The word of the frontend, else that of the address as a whole.
#[inline(always)]
pub(crate) fn find<K: Maps>(kernel: &K, key: &FrontendKey) -> Result<FrontendWord, Stop> {
    if let Some(word) = checked(kernel, key) {
        return Ok(word);
    }
    checked(kernel, &FrontendKey::any_port(*key.address())).ok_or(Stop::Leave(Reason::NoFrontend))
}

/// A mismatch is an element that was handed to another key meanwhile: it is looked up once more.
#[inline(always)]
fn checked<K: Maps>(kernel: &K, key: &FrontendKey) -> Option<FrontendWord> {
    let word = kernel.frontend(key)?;
    if word.is_of(key) {
        return Some(word);
    }
    match kernel.frontend(key) {
        Some(word) if word.is_of(key) => Some(word),
        Some(_) | None => None,
    }
}

#[inline(always)]
fn pick<K: Kernel>(kernel: &K, route: &Route, ipv4: bool) -> Result<u32, Stop> {
    if route.has_affinity() { stick(kernel, route, client(kernel, ipv4)) } else { any(kernel, route) }
}

/// Any backend of the route.
#[inline(always)]
pub(crate) fn any<K: Maps>(kernel: &K, route: &Route) -> Result<u32, Stop> {
    at(kernel, route, route.window.slot(kernel.random()))
}

/// The backend that the client sticks to (R12), else any from now on.
#[inline(always)]
pub(crate) fn stick<K: Maps>(kernel: &K, route: &Route, client: Address) -> Result<u32, Stop> {
    let key = AffinityKey::new(route.service, client);
    #[expect(clippy::cast_possible_truncation, reason = "seconds since boot fit 32 bits for 136 years")]
    let now = (kernel.now_ns() / 1_000_000_000) as u32;
    if let Some(known) = kernel.affinity(&key)
        && now.saturating_sub(known.seconds()) <= route.header.affinity_seconds
        && let Some(backend) = kernel.backend(known.backend())
        && backend.serves(route.service, route.bit)
    {
        if known.seconds() != now {
            kernel.set_affinity(&key, AffinityWord::new(known.backend(), now));
        }
        return Ok(known.backend());
    }
    let id = any(kernel, route)?;
    kernel.set_affinity(&key, AffinityWord::new(id, now));
    Ok(id)
}

/// R12: the client of a socket is its pod's address, the node, or else its namespace.
#[inline(always)]
fn client<K: Kernel>(kernel: &K, ipv4: bool) -> Address {
    let cookie = kernel.netns_cookie();
    if cookie == kernel.node_netns() {
        return NODE_CLIENT;
    }
    let known = match kernel.pod(cookie) {
        Some(pod) => Some(pod),
        None => kernel.found_pod(cookie),
    };
    if let Some(pod) = known {
        let address = if ipv4 { pod.ipv4 } else { pod.ipv6 };
        if !address.is_none() {
            return address;
        }
    }
    namespace_client(cookie)
}

#[inline(always)]
fn keep_or_pick<'a, K: Kernel>(
    kernel: &'a K,
    route: &Route,
    key: &FrontendKey,
    cookie: u64,
) -> Result<&'a Backend, Stop> {
    if route.has_affinity() {
        return load(kernel, pick(kernel, route, key.address().is_ipv4())?);
    }
    let choice = ChoiceKey::new(cookie, route.service);
    if let Some(word) = kernel.choice(&choice)
        && word.is_of(&choice)
        && let Some(backend) = kernel.backend(word.backend())
        && backend.serves(route.service, route.bit)
    {
        return Ok(backend);
    }
    let mut slot = route.window.slot(kernel.random());
    let mut id = at(kernel, route, slot)?;
    for _ in 0..SLOT_TRIES {
        // Replies are told apart by where they come from, so two frontends must not share a backend.
        if !is_taken(kernel, load(kernel, id)?, key, cookie) {
            break;
        }
        slot = route.window.next(slot);
        id = at(kernel, route, slot)?;
    }
    kernel.set_choice(&choice, ChoiceWord::new(&choice, id));
    kernel.opened(id);
    load(kernel, id)
}

/// Whether replies of the backend are already shown to this socket as those of another frontend.
#[inline(always)]
fn is_taken<K: Kernel>(kernel: &K, backend: &Backend, key: &FrontendKey, cookie: u64) -> bool {
    let reverse = ReverseKey::new(cookie, *backend.address(), backend.port());
    let dialled = Dialled::new(&reverse, *key.address(), key.port());
    match kernel.dialled(&reverse) {
        Some(known) => known.is_of(&reverse) && !known.is(&dialled),
        None => false,
    }
}

#[inline(always)]
fn read_dialled<K: Kernel>(kernel: &K, key: &ReverseKey) -> Option<(Address, Port)> {
    let dialled = kernel.dialled(key)?;
    if dialled.is_of(key) { Some((*dialled.address(), dialled.port())) } else { None }
}

/// The backend id in a slot.
#[inline(always)]
fn at<K: Maps>(kernel: &K, route: &Route, slot: u32) -> Result<u32, Stop> {
    // The first line is looked up again too: a branch for it would lose the mask that the verifier wants.
    let word = HEADER_WORDS + slot;
    let line = kernel.line(route.base + word / LINE_WORDS).ok_or(Stop::Leave(Reason::Inconsistent))?;
    Ok(line.word(word))
}

#[inline(always)]
pub(crate) fn load<K: Maps>(kernel: &K, id: u32) -> Result<&Backend, Stop> {
    kernel.backend(id).ok_or(Stop::Leave(Reason::Inconsistent))
}

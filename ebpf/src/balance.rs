//! The decisions of the hooks: which backend a socket is sent to, and which frontend it is shown. Pure but
//! for what [`Kernel`] stores; everything is inlined, for the verifier's sake.

use crate::address::Address;
use crate::affinity::{AffinityKey, AffinityWord, NODE_CLIENT, namespace_client};
use crate::backend::{self, Backend};
use crate::block::{HEADER_WORDS, Header, LINE_WORDS, Line, Window};
use crate::choice::{ChoiceKey, ChoiceWord};
use crate::frontend::{FrontendKey, FrontendWord};
use crate::kernel::Kernel;
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
    /// Send it to this address and port (network order) instead.
    Send(Address, [u8; 2]),
    /// ECONNREFUSED.
    Refuse,
    /// EHOSTUNREACH.
    Unreachable,
}

/// The part of a service's block that a frontend uses.
struct Route<'a> {
    service: u32,
    base: u32,
    first: &'a Line,
    header: Header,
    window: Window,
    bit: u8,
}

/// A socket connects to `key`: TCP, or UDP that becomes connected.
#[inline(always)]
pub fn connect<K: Kernel>(kernel: &K, key: &FrontendKey) -> Verdict {
    let chosen = route(kernel, key).and_then(|route| {
        let id = pick(kernel, &route, key.address().is_ipv4())?;
        Ok((route.service, id, load(kernel, id)?))
    });
    let (service, id, backend) = match chosen {
        Ok(chosen) => chosen,
        Err(stop) => {
            // An earlier connect() of this socket may have left a record; what it says is over.
            kernel.forget_record();
            return stop.verdict(kernel);
        }
    };
    kernel.opened(id);
    if !kernel.set_record(&Record::new(*key.address(), key.port(), service, id)) {
        kernel.count(Reason::NotRecorded);
    }
    Verdict::Send(*backend.address(), backend.port())
}

/// A UDP socket sends a datagram to `key` without being connected to it.
#[inline(always)]
pub fn send<K: Kernel>(kernel: &K, key: &FrontendKey) -> Verdict {
    let cookie = kernel.socket_cookie();
    let chosen = route(kernel, key).and_then(|route| keep_or_pick(kernel, &route, key, cookie));
    let backend = match chosen {
        Ok(backend) => backend,
        Err(stop) => return stop.verdict(kernel),
    };
    let reverse = ReverseKey::new(cookie, *backend.address(), backend.port());
    let dialled = Dialled::new(&reverse, *key.address(), key.port());
    if kernel.dialled(&reverse) != Some(dialled) {
        kernel.set_dialled(&reverse, &dialled);
    }
    Verdict::Send(*backend.address(), backend.port())
}

/// A datagram from `address` and `port` is shown to a UDP socket; `connected` if that is its peer. The
/// frontend to show instead.
#[inline(always)]
pub fn receive<K: Kernel>(
    kernel: &K,
    address: Address,
    port: [u8; 2],
    connected: bool,
) -> Option<(Address, [u8; 2])> {
    if connected {
        return peer(kernel);
    }
    let key = ReverseKey::new(kernel.socket_cookie(), address, port);
    // The second lookup is for an element that was handed to another key under the first one.
    read_dialled(kernel, &key).or_else(|| read_dialled(kernel, &key))
}

/// The frontend that a connected socket dialled, if it dialled one.
#[inline(always)]
pub fn peer<K: Kernel>(kernel: &K) -> Option<(Address, [u8; 2])> {
    let record = kernel.record()?;
    record.is_known().then(|| (*record.address(), record.port()))
}

/// Why there is no backend.
#[derive(Clone, Copy)]
enum Stop {
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

#[inline(always)]
fn route<'a, K: Kernel>(kernel: &'a K, key: &FrontendKey) -> Result<Route<'a>, Stop> {
    let word = find(kernel, key)?;
    if word.has(FrontendWord::REFUSE) {
        return Err(Stop::Refuse(Reason::NoPort));
    }
    if word.has(FrontendWord::NODE_ONLY) && kernel.netns_cookie() != kernel.node_netns() {
        return Err(Stop::Leave(Reason::OtherNamespace));
    }
    let here_first = word.has(FrontendWord::HERE_FIRST);
    if here_first && kernel.now_ns().wrapping_sub(kernel.heartbeat_ns()) < HEARTBEAT_VALID_NS {
        return Err(Stop::Leave(Reason::HereFirst));
    }
    let service = kernel.service(word.service()).ok_or(Stop::Leave(Reason::Inconsistent))?;
    if !service.is_published() {
        return Err(Stop::Leave(Reason::Unpublished));
    }
    let first = kernel.line(service.base()).ok_or(Stop::Leave(Reason::Inconsistent))?;
    let header = first.header();
    let (window, bit) = if word.has(FrontendWord::SOCKET_LOCAL) {
        (header.local(), backend::LOCAL)
    } else {
        (header.cluster(), backend::CLUSTER)
    };
    if window.is_empty() {
        return Err(match (here_first, header.slots) {
            (true, _) => Stop::Leave(Reason::HereFirst),
            (false, 0) => Stop::Refuse(Reason::NoEndpoint),
            (false, _) => Stop::Unreachable,
        });
    }
    Ok(Route { service: word.service(), base: service.base(), first, header, window, bit })
}

/// The word of the frontend, else that of the address as a whole.
#[inline(always)]
fn find<K: Kernel>(kernel: &K, key: &FrontendKey) -> Result<FrontendWord, Stop> {
    if let Some(word) = checked(kernel, key) {
        return Ok(word);
    }
    checked(kernel, &FrontendKey::any_port(*key.address())).ok_or(Stop::Leave(Reason::NoFrontend))
}

/// A mismatch is an element that was handed to another key meanwhile: it is looked up once more.
#[inline(always)]
fn checked<K: Kernel>(kernel: &K, key: &FrontendKey) -> Option<FrontendWord> {
    let word = kernel.frontend(key)?;
    if word.is_of(key) {
        return Some(word);
    }
    kernel.frontend(key).filter(|word| word.is_of(key))
}

#[inline(always)]
fn pick<K: Kernel>(kernel: &K, route: &Route<'_>, ipv4: bool) -> Result<u32, Stop> {
    if route.header.affinity_seconds == 0 {
        return at(kernel, route, route.window.slot(kernel.random()));
    }
    let key = AffinityKey::new(route.service, client(kernel, ipv4));
    #[expect(clippy::cast_possible_truncation, reason = "seconds since boot fit 32 bits for 136 years")]
    let now = (kernel.now_ns() / 1_000_000_000) as u32;
    if let Some(known) = kernel.affinity(&key)
        && now.wrapping_sub(known.seconds()) <= route.header.affinity_seconds
        && kernel.backend(known.backend()).is_some_and(|backend| backend.serves(route.service, route.bit))
    {
        if known.seconds() != now {
            kernel.set_affinity(&key, AffinityWord::new(known.backend(), now));
        }
        return Ok(known.backend());
    }
    let id = at(kernel, route, route.window.slot(kernel.random()))?;
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
    let pod = kernel.pod(cookie).map(|pod| if ipv4 { pod.ipv4 } else { pod.ipv6 });
    match pod {
        Some(address) if !address.is_none() => address,
        Some(_) | None => namespace_client(cookie),
    }
}

#[inline(always)]
fn keep_or_pick<'a, K: Kernel>(
    kernel: &'a K,
    route: &Route<'_>,
    key: &FrontendKey,
    cookie: u64,
) -> Result<&'a Backend, Stop> {
    if route.header.affinity_seconds != 0 {
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
    kernel.dialled(&reverse).is_some_and(|known| known.is_of(&reverse) && known != dialled)
}

#[inline(always)]
fn read_dialled<K: Kernel>(kernel: &K, key: &ReverseKey) -> Option<(Address, [u8; 2])> {
    let dialled = kernel.dialled(key)?;
    dialled.is_of(key).then(|| (*dialled.address(), dialled.port()))
}

/// The backend id in a slot.
#[inline(always)]
fn at<K: Kernel>(kernel: &K, route: &Route<'_>, slot: u32) -> Result<u32, Stop> {
    let word = HEADER_WORDS + slot;
    if word < LINE_WORDS {
        return Ok(route.first.word(word));
    }
    let line = kernel.line(route.base + word / LINE_WORDS).ok_or(Stop::Leave(Reason::Inconsistent))?;
    Ok(line.word(word))
}

#[inline(always)]
fn load<K: Kernel>(kernel: &K, id: u32) -> Result<&Backend, Stop> {
    kernel.backend(id).ok_or(Stop::Leave(Reason::Inconsistent))
}

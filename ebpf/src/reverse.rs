//! What turns a backend's address back into the frontend that was dialled.
//!
//! Records of connected sockets, from connect() to close(); [`crate::seat`] says where they lie. All layouts share
//! the pinned maps, because sockets outlive every layout: a later one writes a higher version.
//! Map `reverse_udp`: LRU of unconnected UDP sockets, by socket cookie and backend address.

use crate::address::{Address, Port, mix, mix_pair};
use crate::backend::Backend;
use crate::element::read_backwards;
use crate::frontend::FrontendKey;

/// The only version so far.
pub const VERSION: u8 = 1;

/// What a connected socket dialled, in four little-endian words: version, two bytes on, the port in network order;
/// the address; service id; backend id, and a check of the backend's address and port. A hook makes it in registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Record([u64; 4]);

impl Record {
    /// In place of a backend id, none of which is as large.
    const HOST_PORT: u32 = u32::MAX;

    /// The record of a socket that dialled `key`, a port of the node, and was led to a pod. It has no backend.
    #[inline(always)]
    pub const fn of_host_port(key: &FrontendKey) -> Self {
        Self::of(key, [0, Self::HOST_PORT, 0])
    }

    /// The record of a socket that dialled `key` and was sent to `backend`, whose id is `id`.
    #[inline(always)]
    pub const fn new(key: &FrontendKey, id: u32, backend: &Backend) -> Self {
        Self::of(key, [backend.service(), id, check(backend)])
    }

    #[inline(always)]
    const fn of(key: &FrontendKey, [service, backend, check]: [u32; 3]) -> Self {
        let [a, b, c, d] = key.address().words();
        let first = VERSION as u32 | (key.port().word() as u32) << 16;
        Self([pair(first, a), pair(b, c), pair(d, service), pair(backend, check)])
    }

    /// Whether the socket was led to a pod by a port of the node.
    #[inline(always)]
    pub const fn is_of_host_port(&self) -> bool {
        self.backend() == Self::HOST_PORT
    }

    /// Whether `backend`, which has the recorded id now, is the one that the socket was sent to: ids are
    /// reused.
    #[inline(always)]
    pub const fn led_to(&self, backend: &Backend) -> bool {
        upper(self.0[2]) == backend.service() && upper(self.0[3]) == check(backend)
    }

    /// Whether it says anything.
    #[inline(always)]
    pub const fn is_known(&self) -> bool {
        self.0[0] as u16 == VERSION as u16
    }

    /// The address dialled.
    #[inline(always)]
    pub const fn address(&self) -> Address {
        Address::from_words([upper(self.0[0]), self.0[1] as u32, upper(self.0[1]), self.0[2] as u32])
    }

    /// The port dialled.
    #[inline(always)]
    pub const fn port(&self) -> Port {
        Port::from_word((self.0[0] >> 16) as u16)
    }

    /// The backend id at the time.
    #[inline(always)]
    pub const fn backend(&self) -> u32 {
        self.0[3] as u32
    }

    /// A check of all of it and of `seed`.
    #[inline(always)]
    pub(crate) const fn checked(&self, seed: u64) -> u32 {
        let [a, b, c, d] = self.0;
        upper(mix_pair(mix_pair(mix_pair(mix_pair(mix_pair(1, seed), a), b), c), d))
    }
}

/// Two words, the first one in front.
#[inline(always)]
const fn pair(first: u32, second: u32) -> u64 {
    first as u64 | (second as u64) << 32
}

/// The second one.
#[inline(always)]
const fn upper(pair: u64) -> u32 {
    (pair >> 32) as u32
}

#[inline(always)]
const fn check(backend: &Backend) -> u32 {
    let [a, b, c, d] = backend.address().words();
    mix(mix(mix(mix(mix(1, a), b), c), d), backend.port().word() as u32)
}

/// Map key of `reverse_udp`: socket cookie, backend address, port in network order, six zero bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct ReverseKey {
    cookie: u64,
    address: Address,
    /// Eight bytes: port, zeros.
    port: [u32; 2],
}

const _: () = assert!(size_of::<ReverseKey>() == 32);

impl ReverseKey {
    /// The key of what comes to a socket from an address and port.
    #[inline(always)]
    pub const fn new(cookie: u64, address: Address, port: Port) -> Self {
        Self { cookie, address, port: [port_word(port), 0] }
    }

    #[inline(always)]
    const fn check(&self) -> u32 {
        let [a, b, c, d] = self.address.words();
        let cookie = mix(mix(1, self.cookie as u32), (self.cookie >> 32) as u32);
        mix(mix(mix(mix(mix(cookie, a), b), c), d), self.port[0])
    }
}

/// Map value of `reverse_udp`: check of the key, port in network order, two zero bytes, address. A writer
/// copies from the front, so the check is read last: if it fits, so does what was read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Dialled {
    check: u32,
    /// Four bytes: port, zeros.
    port: u32,
    address: Address,
}

const _: () = assert!(size_of::<Dialled>() == 24);

impl Dialled {
    /// The entry of `key`.
    #[inline(always)]
    pub const fn new(key: &ReverseKey, address: Address, port: Port) -> Self {
        Self { check: key.check(), port: port_word(port), address }
    }

    /// Reads an element that another CPU may be handing to another key: the check last.
    ///
    /// # Safety
    ///
    /// `element` must point to an element of the map.
    #[inline(always)]
    pub unsafe fn read(element: *const Self) -> Self {
        // SAFETY: the caller vouches for the element, which has three pairs of words.
        let pairs: [u64; 3] = unsafe { read_backwards(element.cast()) };
        // SAFETY: six words, which any bytes are.
        unsafe { core::mem::transmute(pairs) }
    }

    /// Whether this is an entry of `key`.
    #[inline(always)]
    pub const fn is_of(&self, key: &ReverseKey) -> bool {
        self.check == key.check()
    }

    /// Whether both say the same of the same key.
    #[inline(always)]
    pub const fn is(&self, other: &Self) -> bool {
        self.check == other.check && self.port == other.port && self.address.is(&other.address)
    }

    /// The address dialled.
    #[inline(always)]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// The port dialled.
    #[inline(always)]
    pub const fn port(&self) -> Port {
        word_port(self.port)
    }
}

/// A port in the first two of four bytes.
#[inline(always)]
const fn port_word(port: Port) -> u32 {
    ((port.number() as u32) << 16).to_be()
}

/// The port in the first two of four bytes.
#[inline(always)]
const fn word_port(word: u32) -> Port {
    Port::new((u32::from_be(word) >> 16) as u16)
}

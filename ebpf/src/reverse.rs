//! What turns a backend's address back into the frontend that was dialled.
//!
//! Map `reverse`: SK_STORAGE of connected sockets. This layout never changes, because the kernel cannot
//! migrate it: later layouts use the reserved bytes and a higher version, and open the same pinned map.
//! Map `reverse_udp`: LRU of unconnected UDP sockets, by socket cookie and backend address.

use crate::address::{Address, mix};

/// The only version so far.
pub const VERSION: u8 = 1;

/// What a connected socket dialled: version, zero, port in network order, address, service id, backend id,
/// four reserved zero bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(4))]
pub struct Record {
    version: u8,
    zero: u8,
    port: [u8; 2],
    address: Address,
    service: u32,
    backend: u32,
    reserved: [u8; 4],
}

const _: () = assert!(size_of::<Record>() == 32);

impl Record {
    /// The record of a socket that dialled `address` and `port`.
    #[inline(always)]
    pub const fn new(address: Address, port: [u8; 2], service: u32, backend: u32) -> Self {
        Self { version: VERSION, zero: 0, port, address, service, backend, reserved: [0; 4] }
    }

    /// Whether it says anything.
    #[inline(always)]
    pub const fn is_known(&self) -> bool {
        self.version == VERSION
    }

    /// The address dialled.
    #[inline(always)]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// The port dialled, in network order.
    #[inline(always)]
    pub const fn port(&self) -> [u8; 2] {
        self.port
    }

    /// The service id at the time.
    pub const fn service(&self) -> u32 {
        self.service
    }

    /// The backend id at the time.
    pub const fn backend(&self) -> u32 {
        self.backend
    }
}

/// Map key of `reverse_udp`: socket cookie, backend address, port in network order, six zero bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct ReverseKey {
    cookie: u64,
    address: Address,
    port: [u8; 2],
    zero: [u8; 6],
}

const _: () = assert!(size_of::<ReverseKey>() == 32);

impl ReverseKey {
    /// The key of what comes to a socket from an address and port.
    #[inline(always)]
    pub const fn new(cookie: u64, address: Address, port: [u8; 2]) -> Self {
        Self { cookie, address, port, zero: [0; 6] }
    }

    #[inline(always)]
    const fn check(&self) -> u32 {
        let [a, b, c, d] = self.address.words();
        let cookie = mix(mix(1, self.cookie as u32), (self.cookie >> 32) as u32);
        let port = u32::from_ne_bytes([self.port[0], self.port[1], 1, 1]);
        mix(mix(mix(mix(mix(cookie, a), b), c), d), port)
    }
}

/// Map value of `reverse_udp`: check of the key, port in network order, two zero bytes, address. A writer
/// copies from the front, so the check is read last: if it fits, so does what was read before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Dialled {
    check: u32,
    port: [u8; 2],
    zero: [u8; 2],
    address: Address,
}

const _: () = assert!(size_of::<Dialled>() == 24);

impl Dialled {
    /// The entry of `key`.
    #[inline(always)]
    pub const fn new(key: &ReverseKey, address: Address, port: [u8; 2]) -> Self {
        Self { check: key.check(), port, zero: [0; 2], address }
    }

    /// Reads an element that another CPU may be handing to another key: the check last.
    ///
    /// # Safety
    ///
    /// `element` must point to an element of the map.
    #[inline(always)]
    pub unsafe fn read(element: *const Self) -> Self {
        let words = element.cast::<u32>();
        let mut copy = [0_u32; 6];
        for index in (0..6).rev() {
            // SAFETY: an element has six words, and its alignment is at least theirs.
            let word = unsafe { words.add(index) };
            // SAFETY: the caller vouches for the element.
            copy[index] = unsafe { word.read_volatile() };
        }
        let [check, rest, a, b, c, d] = copy;
        let [p, q, y, z] = rest.to_ne_bytes();
        Self { check, port: [p, q], zero: [y, z], address: Address::from_words([a, b, c, d]) }
    }

    /// Whether this is an entry of `key`.
    #[inline(always)]
    pub const fn is_of(&self, key: &ReverseKey) -> bool {
        self.check == key.check()
    }

    /// The address dialled.
    #[inline(always)]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// The port dialled, in network order.
    #[inline(always)]
    pub const fn port(&self) -> [u8; 2] {
        self.port
    }
}

//! Map `affinity`: LRU, service and client -> the backend it sticks to and when it last did (R12). One entry
//! for every address of the service port, because they share the service id.

use crate::address::Address;

/// Map key: service id, client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(4))]
pub struct AffinityKey {
    service: u32,
    client: Address,
}

const _: () = assert!(size_of::<AffinityKey>() == 20);

impl AffinityKey {
    /// The key of a client of a service.
    #[inline(always)]
    pub const fn new(service: u32, client: Address) -> Self {
        Self { service, client }
    }

    /// The key as the map has it.
    pub const fn to_bytes(&self) -> [u8; 20] {
        let [a, b, c, d] = self.service.to_ne_bytes();
        let [e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t] = self.client.bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t]
    }
}

/// Map value: backend id (32 bits), last used in seconds of CLOCK_MONOTONIC (32 bits). It needs no check of
/// its key: the backend must still belong to the service, and then it is a fair answer for any client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct AffinityWord(pub u64);

impl AffinityWord {
    /// A client that used `backend` at `seconds`.
    #[inline(always)]
    pub const fn new(backend: u32, seconds: u32) -> Self {
        Self(backend as u64 | (seconds as u64) << 32)
    }

    /// The backend id.
    #[inline(always)]
    pub const fn backend(self) -> u32 {
        self.0 as u32
    }

    /// When it was last used.
    #[inline(always)]
    pub const fn seconds(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// The node itself as a client: from the discard prefix (RFC 6666), so that no pod has it.
pub const NODE_CLIENT: Address = Address::from_words([1_u32.to_le(), 0x4f, 0, 1]);

/// A network namespace without a known address as a client, by its cookie.
#[inline(always)]
pub const fn namespace_client(cookie: u64) -> Address {
    Address::from_words([1_u32.to_le(), 0x4e, cookie as u32, (cookie >> 32) as u32])
}

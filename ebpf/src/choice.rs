//! Map `choice`: LRU, socket and service -> the backend of an unconnected UDP socket, so that datagrams of
//! one socket go to one backend for as long as it serves.

use crate::address::mix;

/// Map key: socket cookie, service id, and four zero bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C, align(8))]
pub struct ChoiceKey {
    cookie: u64,
    service: u32,
    zero: u32,
}

const _: () = assert!(size_of::<ChoiceKey>() == 16);

impl ChoiceKey {
    /// The key of a socket and a service.
    #[inline(always)]
    pub const fn new(cookie: u64, service: u32) -> Self {
        Self { cookie, service, zero: 0 }
    }

    /// The key as the map has it.
    pub const fn to_bytes(&self) -> [u8; 16] {
        let ([a, b, c, d, e, f, g, h], [i, j, k, l]) =
            (self.cookie.to_ne_bytes(), self.service.to_ne_bytes());
        [a, b, c, d, e, f, g, h, i, j, k, l, 0, 0, 0, 0]
    }

    #[inline(always)]
    const fn check(&self) -> u32 {
        mix(mix(mix(1, self.cookie as u32), (self.cookie >> 32) as u32), self.service)
    }
}

/// Map value: backend id (32 bits), check of the key (32 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct ChoiceWord(pub u64);

impl ChoiceWord {
    /// The word of `key`.
    #[inline(always)]
    pub const fn new(key: &ChoiceKey, backend: u32) -> Self {
        Self(backend as u64 | (key.check() as u64) << 32)
    }

    /// The backend id.
    #[inline(always)]
    pub const fn backend(self) -> u32 {
        self.0 as u32
    }

    /// Whether this is a word of `key`.
    #[inline(always)]
    pub const fn is_of(self, key: &ChoiceKey) -> bool {
        (self.0 >> 32) as u32 == key.check()
    }
}

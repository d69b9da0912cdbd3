//! Where the record of a connected socket lies: in the seat that its cookie has in an array, found without a hash
//! and written without a lock or an allocation; if another socket sits there, in the hash `reverse`. A seat counts
//! the records that lie in the hash in its stead, so that nobody looks there in vain. All layouts share both maps.

use core::cell::UnsafeCell;

use crate::maps::RECORDS_ENTRIES;
use crate::reverse::Record;

/// Element of map `records`, a line of the cache: the cookie of who sits there (0 for nobody), its record, how
/// many other records lie in the hash, and a check of cookie and record.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct Seat {
    holder: UnsafeCell<u64>,
    record: UnsafeCell<Record>,
    aside: UnsafeCell<u64>,
    check: UnsafeCell<u32>,
}

const _: () = assert!(size_of::<Seat>() == 64);

// SAFETY: `aside` and an empty `holder` change by atomic operations, the rest by the hooks of the one who sits there.
unsafe impl Sync for Seat {}

/// What whoever removes a record needs.
pub trait Seats {
    /// Element `index` of map `records`.
    fn seat(&self, index: u32) -> Option<&Seat>;
    /// Adds to [`Seat::aside`] atomically; it may wrap.
    fn count(&self, seat: &Seat, summand: u64);
    /// Removes the record of a socket from `reverse`; false if there is none.
    fn remove_aside(&self, cookie: u64) -> bool;
}

/// What a hook has besides.
pub trait Records: Seats {
    /// Makes a cookie the holder of a seat atomically; false if somebody sits there.
    fn claim(&self, seat: &Seat, cookie: u64) -> bool;
    /// The record of a socket in `reverse`.
    fn aside(&self, cookie: u64) -> Option<&Record>;
    /// Inserts one into `reverse`; false if there is one, or no room.
    fn put_aside(&self, cookie: u64, record: &Record) -> bool;
}

/// The seat of a cookie.
#[inline(always)]
pub const fn index(cookie: u64) -> u32 {
    cookie as u32 % RECORDS_ENTRIES
}

/// The record of a socket.
#[inline(always)]
pub fn record<R: Records>(maps: &R, cookie: u64) -> Option<&Record> {
    let seat = maps.seat(index(cookie))?;
    if seat.who() == cookie {
        // SAFETY: nobody writes it but the hooks of this socket.
        return Some(unsafe { &*seat.record.get() });
    }
    if seat.has_aside() { maps.aside(cookie) } else { None }
}

/// Has the line of a seat brought here: to claim it would wait for that, to load it does not.
#[inline(always)]
pub fn foresee<S: Seats>(maps: &S, cookie: u64) {
    if let Some(seat) = maps.seat(index(cookie)) {
        seat.who();
    }
}

/// Stores the record of a socket; false if it has one, or if there is no room.
#[inline(always)]
pub fn add<R: Records>(maps: &R, cookie: u64, record: &Record) -> bool {
    let Some(seat) = maps.seat(index(cookie)) else { return false };
    let holder = seat.who();
    if holder == cookie || seat.has_aside() && maps.aside(cookie).is_some() {
        return false;
    }
    if holder == 0 && maps.claim(seat, cookie) {
        seat.fill(cookie, record);
        return true;
    }
    // First the count: a record that is not counted is not found.
    maps.count(seat, 1);
    let added = maps.put_aside(cookie, record);
    if !added {
        maps.count(seat, 1_u64.wrapping_neg());
    }
    added
}

/// Removes the record of a socket, if it has one.
#[inline(always)]
pub fn remove<S: Seats>(maps: &S, cookie: u64) {
    let Some(seat) = maps.seat(index(cookie)) else { return };
    if seat.who() == cookie {
        seat.leave();
    } else if seat.has_aside() && maps.remove_aside(cookie) {
        maps.count(seat, 1_u64.wrapping_neg());
    }
}

impl Seat {
    /// Where the cookie of who sits there is: 0 for nobody.
    #[inline(always)]
    pub const fn holder(&self) -> *mut u64 {
        self.holder.get()
    }

    /// Where the number of records is that lie in the hash in its stead.
    #[inline(always)]
    pub const fn aside(&self) -> *mut u64 {
        self.aside.get()
    }

    /// Who sits there, and the record, for a reader that is none of the socket's own hooks: None if nobody does, or if
    /// it changes under the reader's eyes, which the check tells.
    #[inline]
    pub fn occupant(&self) -> Option<(u64, Record)> {
        let cookie = self.who();
        // SAFETY: a copy that may be torn; any bits are a record.
        let record = unsafe { self.record.get().read_volatile() };
        // SAFETY: one load.
        let found = unsafe { self.check.get().read_volatile() };
        (cookie != 0 && found == record.checked(cookie)).then_some((cookie, record))
    }

    #[inline(always)]
    fn who(&self) -> u64 {
        // SAFETY: one load of a word that changes as a whole.
        unsafe { self.holder.get().read_volatile() }
    }

    #[inline(always)]
    fn has_aside(&self) -> bool {
        // SAFETY: as above.
        unsafe { self.aside.get().read_volatile() != 0 }
    }

    /// For who has just claimed it. Two threads that connect one socket at once may leave a record that is a mixture
    /// of both; that is theirs alone.
    #[inline(always)]
    fn fill(&self, cookie: u64, record: &Record) {
        // SAFETY: nobody else writes to a seat that is claimed.
        unsafe { self.record.get().write_volatile(*record) };
        // SAFETY: as above.
        unsafe { self.check.get().write_volatile(record.checked(cookie)) };
    }

    /// For who sits there.
    #[inline(always)]
    fn leave(&self) {
        // SAFETY: nobody else changes the holder of a seat that is taken; one store.
        unsafe { self.holder.get().write_volatile(0) };
    }
}

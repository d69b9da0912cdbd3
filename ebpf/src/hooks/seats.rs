//! The seats of records as the programs reach them: two maps, and the atomic instructions of BPF, each of which is
//! in every kernel since 5.12. It decides nothing.

use core::arch::asm;

use aya_ebpf::bindings::BPF_NOEXIST;
use ebpf::reverse::Record;
use ebpf::seat::{Records, Seat, Seats};

use super::maps;

/// Maps `records` and `reverse`.
pub(super) struct PinnedSeats;

impl Seats for PinnedSeats {
    #[inline(always)]
    fn seat(&self, index: u32) -> Option<&Seat> {
        maps::RECORDS.get(index)
    }

    #[inline(always)]
    fn count(&self, seat: &Seat, summand: u64) {
        // This target has no read-modify-write atomics in core.
        // SAFETY: an aligned word of an element; every change of it is atomic. What fetches is a full barrier.
        unsafe {
            asm!("{1} = atomic_fetch_add((u64 *)({0} + 0), {1})", in(reg) seat.aside(), inout(reg) summand => _);
        }
    }

    #[inline(always)]
    fn remove_aside(&self, cookie: u64) -> bool {
        maps::REVERSE.remove(cookie).is_ok()
    }
}

impl Records for PinnedSeats {
    #[inline(always)]
    fn claim(&self, seat: &Seat, cookie: u64) -> bool {
        let found: u64;
        // SAFETY: as above; every change of an empty seat is atomic.
        unsafe {
            asm!("r0 = cmpxchg_64({0} + 0, r0, {1})", in(reg) seat.holder(), in(reg) cookie, inout("r0") 0_u64 => found);
        }
        found == 0
    }

    #[inline(always)]
    fn aside(&self, cookie: u64) -> Option<&Record> {
        // SAFETY: only this socket's own hooks write its element.
        unsafe { maps::REVERSE.get(cookie) }
    }

    #[inline(always)]
    fn put_aside(&self, cookie: u64, record: &Record) -> bool {
        maps::REVERSE.insert(cookie, record, BPF_NOEXIST as u64).is_ok()
    }
}

//! The records of the sockets, as the hooks left them in two maps: what each connected socket dialled, and where
//! that led. Read by the walks over namespaces; it never looks at a socket.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ebpf::maps::RECORDS_ENTRIES;
use ebpf::reverse::Record;
use ebpf::seat::{self, Seat, Seats};

use crate::sys::{self, Memory};

/// The records of all sockets, by cookie.
pub(crate) type Records = HashMap<u64, Record>;

/// Maps `records` and `reverse`. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct RecordMaps(Arc<Pinned>);

#[derive(Debug)]
struct Pinned {
    seats: OwnedFd,
    aside: OwnedFd,
}

/// So many seats are mapped at once: while they are, they count as memory of this process.
const PART: u32 = 4096;

/// A part of the seats.
struct Part<'a> {
    number: u32,
    seats: Memory,
    pinned: &'a Pinned,
}

impl RecordMaps {
    pub(crate) fn new(seats: OwnedFd, aside: OwnedFd) -> Self {
        Self(Arc::new(Pinned { seats, aside }))
    }

    /// What every connected socket dialled.
    pub(crate) fn read(&self) -> io::Result<Records> {
        let mut records = Records::new();
        for number in 0..RECORDS_ENTRIES / PART {
            let part = self.part(number)?;
            records.extend(
                (number * PART..(number + 1) * PART).filter_map(|index| part.seat(index)?.occupant()),
            );
        }
        records.extend(sys::elements::<u64, Record>(self.0.aside.as_fd())?);
        records.retain(|_, record| record.is_known());
        Ok(records)
    }

    /// Removes the records of sockets that are no more.
    pub(super) fn forget<'a>(&self, mut cookies: impl Iterator<Item = &'a u64>) -> io::Result<()> {
        cookies.try_for_each(|cookie| {
            seat::remove(&self.part(seat::index(*cookie) / PART)?, *cookie);
            Ok(())
        })
    }

    fn part(&self, number: u32) -> io::Result<Part<'_>> {
        let size = PART as usize * size_of::<Seat>();
        let seats = Memory::part(self.0.seats.as_fd(), number as usize * size, size)?;
        Ok(Part { number, seats, pinned: &self.0 })
    }
}

impl Seats for Part<'_> {
    fn seat(&self, index: u32) -> Option<&Seat> {
        let place = (index / PART == self.number).then(|| self.seats.at::<Seat>((index % PART) as usize))?;
        // SAFETY: the memory is an array of seats, and lives as long as this.
        Some(unsafe { place.as_ref() })
    }

    fn count(&self, seat: &Seat, summand: u64) {
        // SAFETY: an aligned word that lives as long as the seat; the hooks change it by atomic operations, too.
        unsafe { AtomicU64::from_ptr(seat.aside()) }.fetch_add(summand, Ordering::SeqCst);
    }

    fn remove_aside(&self, cookie: u64) -> bool {
        // One that cannot be removed is left to the next sweep.
        sys::remove(self.pinned.aside.as_fd(), &cookie).unwrap_or(false)
    }
}

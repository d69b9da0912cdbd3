//! The clock that no one can set, in whole seconds. Called by attach, detach and status; nothing here is a time
//! of day.

use std::time::Duration;

/// CLOCK_MONOTONIC, as every process of the machine reads it. `std::time::Instant` hides its number.
pub(crate) fn monotonic() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes no more than the timespec, which outlives the call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    assert_eq!(result, 0, "every Linux has CLOCK_MONOTONIC");
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Its seconds, never zero.
pub(crate) fn monotonic_seconds() -> u32 {
    u32::try_from(monotonic().as_secs()).unwrap_or(u32::MAX).max(1)
}

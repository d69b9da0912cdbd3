//! Awaiting a condition with a deadline: the only place of the bench that sleeps.
//!
//! A condition says why it does not hold yet, so that the failure of a test does too.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How long anything may take that is not itself under test. Generous: CI has two cores for everything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(20);

/// Asks until the condition holds, and returns what it found; after the deadline, the last reason why not.
///
/// # Errors
/// The last error of `condition`.
pub fn until<T>(what: &str, condition: impl FnMut() -> Result<T>) -> Result<T> {
    until_within(DEADLINE, what, condition)
}

/// As [`until`], with another deadline.
///
/// # Errors
/// The last error of `condition`.
pub(crate) fn until_within<T>(
    limit: Duration,
    what: &str,
    mut condition: impl FnMut() -> Result<T>,
) -> Result<T> {
    let deadline = Instant::now() + limit;
    loop {
        match condition() {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() > deadline => {
                return Err(error).with_context(|| format!("waited {} s for {what}", limit.as_secs()));
            }
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

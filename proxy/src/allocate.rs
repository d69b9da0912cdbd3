//! Which ids and which lines of `slots` are in use. What is freed stays in quarantine until a barrier has
//! passed, because a hook may still hold it. Pure bookkeeping; called by the diff.

use std::collections::{BTreeSet, VecDeque};

/// Numbers below a limit.
#[derive(Clone, Debug)]
pub(crate) struct Ids {
    limit: u32,
    /// Every number from here on is free.
    fresh: u32,
    free: VecDeque<u32>,
    quarantine: Vec<u32>,
}

impl Ids {
    pub(crate) const fn new(limit: u32) -> Self {
        Self { limit, fresh: 0, free: VecDeque::new(), quarantine: Vec::new() }
    }

    /// All numbers but those in use.
    pub(crate) fn with_used(limit: u32, used: &BTreeSet<u32>) -> Self {
        let fresh = used.last().map_or(0, |last| last + 1);
        let free = (0..fresh).filter(|id| !used.contains(id)).collect();
        Self { limit, fresh, free, quarantine: Vec::new() }
    }

    /// How many can be taken now.
    pub(crate) fn available(&self) -> usize {
        self.free.len() + (self.limit - self.fresh) as usize
    }

    pub(crate) fn take(&mut self) -> Option<u32> {
        if let Some(id) = self.free.pop_front() {
            return Some(id);
        }
        (self.fresh < self.limit).then(|| {
            self.fresh += 1;
            self.fresh - 1
        })
    }

    /// Frees what a hook may still hold.
    pub(crate) fn retire(&mut self, id: u32) {
        self.quarantine.push(id);
    }

    pub(crate) const fn quarantined(&self) -> usize {
        self.quarantine.len()
    }

    /// A barrier has passed.
    pub(crate) fn release(&mut self) {
        self.free.extend(self.quarantine.drain(..));
    }
}

/// Runs of lines, handed out in powers of two (a buddy allocator): freed neighbours join again, so that
/// churn does not eat the array.
#[derive(Clone, Debug)]
pub(crate) struct Lines {
    /// The free runs of each order.
    free: Vec<BTreeSet<u32>>,
    quarantine: Vec<(u32, u32)>,
}

impl Lines {
    /// `limit` lines, but for the runs (first line, lines) in use.
    pub(crate) fn with_used(limit: u32, used: &[(u32, u32)]) -> Self {
        let mut lines = Self { free: vec![BTreeSet::new(); 33], quarantine: Vec::new() };
        let mut taken: Vec<(u32, u32)> =
            used.iter().map(|&(base, count)| (base, 1 << order_of(count))).collect();
        taken.sort_unstable();
        let mut next = 0;
        for (base, count) in taken {
            lines.add_range(next, base);
            next = next.max(base + count);
        }
        lines.add_range(next, limit);
        lines
    }

    /// A run of at least `count` lines, aligned to its size.
    pub(crate) fn take(&mut self, count: u32) -> Option<u32> {
        let order = order_of(count);
        let found = (order..self.free.len()).find(|&order| !self.free[order].is_empty())?;
        let base = self.free[found].pop_first()?;
        for half in order..found {
            self.free[half].insert(base + (1 << half));
        }
        Some(base)
    }

    /// Gives back what no hook has ever seen.
    pub(crate) fn put_back(&mut self, base: u32, count: u32) {
        let (mut base, mut order) = (base, order_of(count));
        while order < 31 && self.free[order].remove(&(base ^ (1 << order))) {
            base &= !(1 << order);
            order += 1;
        }
        self.free[order].insert(base);
    }

    /// Frees what a hook may still hold.
    pub(crate) fn retire(&mut self, base: u32, count: u32) {
        self.quarantine.push((base, count));
    }

    pub(crate) const fn quarantined(&self) -> usize {
        self.quarantine.len()
    }

    /// A barrier has passed.
    pub(crate) fn release(&mut self) {
        for (base, count) in std::mem::take(&mut self.quarantine) {
            self.put_back(base, count);
        }
    }

    /// Frees `start..end` in the largest aligned runs.
    fn add_range(&mut self, mut start: u32, end: u32) {
        while start < end {
            let fits = (end - start).ilog2();
            let order = if start == 0 { fits } else { fits.min(start.trailing_zeros()) };
            self.put_back(start, 1 << order);
            start += 1 << order;
        }
    }
}

/// The power of two that holds `count` lines.
fn order_of(count: u32) -> usize {
    count.max(1).next_power_of_two().ilog2() as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retired_id_is_not_handed_out_before_the_barrier() {
        let mut ids = Ids::new(2);
        assert_eq!((ids.take(), ids.take(), ids.take()), (Some(0), Some(1), None));
        ids.retire(0);
        assert_eq!(ids.take(), None);
        ids.release();
        assert_eq!(ids.take(), Some(0));
    }

    #[test]
    fn ids_in_use_are_not_handed_out() {
        let mut ids = Ids::with_used(5, &BTreeSet::from([0, 3]));
        assert_eq!(ids.available(), 3);
        assert_eq!([ids.take(), ids.take(), ids.take(), ids.take()], [Some(1), Some(2), Some(4), None]);
    }

    #[test]
    fn freed_neighbours_join_again() {
        let mut lines = Lines::with_used(8, &[]);
        let singles: Vec<u32> = (0..8).map(|_| lines.take(1).unwrap()).collect();
        assert_eq!(lines.take(1), None);
        for base in singles {
            lines.put_back(base, 1);
        }
        assert_eq!(lines.take(8), Some(0));
    }

    #[test]
    fn runs_in_use_are_not_handed_out() {
        let mut lines = Lines::with_used(8, &[(2, 2), (5, 1)]);
        let mut taken: Vec<u32> = std::iter::from_fn(|| lines.take(1)).collect();
        taken.sort_unstable();
        assert_eq!(taken, [0, 1, 4, 6, 7]);
    }
}

//! The kernel with what is counted beside it: the operations, for the metrics, and the connections of what leaves,
//! which the kernel forgets when its ids are used again. Made by `proxy` for one diff.

use crate::counts::Counts;
use crate::dataplane::Kernel;
use crate::op::{Dataplane, Freed, Op, OpCounts, Refused};
use crate::tables::ServiceKey;

/// A dataplane that counts.
pub(crate) struct Counted<'a> {
    kernel: &'a mut Kernel,
    counts: &'a mut Counts,
    ops: &'a mut OpCounts,
    /// Operations of this diff.
    pub(crate) applied: usize,
}

impl<'a> Counted<'a> {
    pub(crate) const fn new(kernel: &'a mut Kernel, counts: &'a mut Counts, ops: &'a mut OpCounts) -> Self {
        Self { kernel, counts, ops, applied: 0 }
    }
}

impl Dataplane for Counted<'_> {
    fn apply(&mut self, op: &Op) -> Result<(), Refused> {
        self.counts.note_reused(op, self.kernel);
        self.applied += 1;
        self.ops.note(op);
        let applied = self.kernel.apply(op);
        match (&applied, op) {
            // A frontend that is refused is told of with its service.
            (Ok(()), _) | (Err(_), Op::PutFrontend(..)) => {}
            (Err(refused), op) => {
                tracing::warn!(%refused, kind = op.kind(), "the kernel is not as it should be")
            }
        }
        applied
    }

    fn free(&mut self, id: Freed, key: &ServiceKey) {
        self.counts.note_freed(id, &key.name);
    }
}

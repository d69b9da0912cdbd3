//! Where a bench tells what it does and what it found: each figure as it comes, so that a bench that fails at its end
//! has told the rest.

use super::figure::Figure;
use crate::say;

/// What has been told, and to whom.
pub(crate) struct Report {
    json: bool,
    told: usize,
    missed: usize,
}

impl Report {
    /// For people a table, for machines a line of JSON for each figure.
    pub(super) const fn new(json: bool) -> Self {
        Self { json, told: 0, missed: 0 }
    }

    /// What a person waits for; machines get figures alone.
    pub(super) fn progress(&self, text: &str) {
        if !self.json {
            say::line(text);
        }
    }

    /// Tells figures, and judges them.
    pub(super) fn tell(&mut self, figures: impl IntoIterator<Item = Figure>) {
        for figure in figures {
            if self.json {
                say::line(figure.json().to_string());
            } else {
                if self.told == 0 {
                    say::line(Figure::HEAD);
                }
                say::line(figure.row());
            }
            self.told += 1;
            self.missed += usize::from(!figure.holds());
        }
    }

    /// Ends it. Whether every bound holds.
    pub(super) fn holds(self) -> bool {
        self.progress(&match self.missed {
            0 => format!("every bound of {} figures holds", self.told),
            missed => format!("{missed} of {} figures DO NOT HOLD", self.told),
        });
        self.missed == 0
    }
}

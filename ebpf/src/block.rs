//! Maps `services` and `slots`. A service is one word that names its block; a block is a run of cache lines:
//! a header of eight words, then the backend ids, ordered local-only, both, cluster-only. A published block
//! never changes: a new one is written elsewhere and the word is swapped, so that a reader sees the old set
//! or the new one and never a mix.

/// One cache line of `slots`: map value of 64 bytes. An array element is rounded up to 8 bytes, so single
/// words would waste half; a line also brings header and first eight ids in one miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(8))]
pub struct Line(pub [u32; 16]);

const _: () = assert!(size_of::<Line>() == 64);

/// Words in a line.
pub const LINE_WORDS: u32 = 16;
/// Words of the header; the id of slot `i` is word `HEADER_WORDS + i` of the block.
pub const HEADER_WORDS: u32 = 8;

/// Map value of `services`: first line of the block (32 bits), lines of the block (32 bits). Zero is a
/// service that has not been published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct ServiceWord(pub u64);

impl ServiceWord {
    /// A service without a block.
    pub const UNPUBLISHED: Self = Self(0);

    /// A published service.
    #[inline(always)]
    pub const fn new(base: u32, lines: u32) -> Self {
        Self(base as u64 | (lines as u64) << 32)
    }

    /// The first line of its block.
    #[inline(always)]
    pub const fn base(self) -> u32 {
        self.0 as u32
    }

    /// How many lines the block has.
    #[inline(always)]
    pub const fn lines(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Whether it has a block.
    #[inline(always)]
    pub const fn is_published(self) -> bool {
        self.0 != 0
    }
}

/// Positions in a block that a frontend may use: `start..end`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The first slot.
    pub start: u32,
    /// One past the last slot.
    pub end: u32,
}

/// The header of a block. Words 5 to 7 are zero; a later algorithm takes them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// The service id, so that a block found without its service can be told.
    pub service: u32,
    /// Slots `0..local_end` are in the local window.
    pub local_end: u32,
    /// Slots `cluster_start..slots` are in the cluster window.
    pub cluster_start: u32,
    /// How many slots there are.
    pub slots: u32,
    /// Session affinity in seconds, 0 for none (R12).
    pub affinity_seconds: u32,
}

impl Header {
    /// The header's words as they stand at the start of a block.
    pub const fn words(&self) -> [u32; HEADER_WORDS as usize] {
        [self.service, self.local_end, self.cluster_start, self.slots, self.affinity_seconds, 0, 0, 0]
    }

    /// The local window.
    #[inline(always)]
    pub const fn local(&self) -> Window {
        Window { start: 0, end: self.local_end }
    }

    /// The cluster window.
    #[inline(always)]
    pub const fn cluster(&self) -> Window {
        Window { start: self.cluster_start, end: self.slots }
    }
}

impl Line {
    /// The header, of the first line of a block.
    #[inline(always)]
    pub const fn header(&self) -> Header {
        Header {
            service: self.0[0],
            local_end: self.0[1],
            cluster_start: self.0[2],
            slots: self.0[3],
            affinity_seconds: self.0[4],
        }
    }

    /// The word at `index`, which is taken modulo the length of a line.
    #[inline(always)]
    pub const fn word(&self, index: u32) -> u32 {
        self.0[(index % LINE_WORDS) as usize]
    }
}

impl Window {
    /// How many slots it has.
    #[inline(always)]
    pub const fn len(self) -> u32 {
        self.end.saturating_sub(self.start)
    }

    /// Whether it has none.
    #[inline(always)]
    pub const fn is_empty(self) -> bool {
        self.end <= self.start
    }

    /// The slot for a random number: multiply and shift, so that no division runs in the kernel and each
    /// slot is as likely as the others to within `len` in 2^32.
    #[inline(always)]
    pub const fn slot(self, random: u32) -> u32 {
        self.start + ((random as u64 * self.len() as u64) >> 32) as u32
    }

    /// The slot after `slot`, around the end.
    #[inline(always)]
    pub const fn next(self, slot: u32) -> u32 {
        if slot + 1 < self.end { slot + 1 } else { self.start }
    }
}

/// How many lines a block of so many slots takes.
pub const fn lines_for(slots: u32) -> u32 {
    (HEADER_WORDS + slots).div_ceil(LINE_WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_slots_fit_the_first_line() {
        assert_eq!([0, 8, 9, 24, 25].map(lines_for), [1, 1, 2, 2, 3]);
    }

    #[test]
    fn a_window_spreads_the_whole_range_of_random_numbers() {
        let window = Window { start: 3, end: 7 };
        let picks = [0, 1 << 30, 1 << 31, 3 << 30, u32::MAX].map(|random| window.slot(random));
        assert_eq!(picks, [3, 4, 5, 6, 6]);
        assert_eq!([3, 6].map(|slot| window.next(slot)), [4, 3]);
    }

    #[test]
    fn the_header_survives_the_round_trip() {
        let header = Header { service: 9, local_end: 2, cluster_start: 1, slots: 5, affinity_seconds: 10 };
        let mut line = Line([0; 16]);
        line.0[..8].copy_from_slice(&header.words());
        assert_eq!(line.header(), header);
    }
}

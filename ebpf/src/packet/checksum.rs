//! Internet checksums (RFC 1071), as differences: a checksum is brought up to date by what changed, because
//! the rest of the packet may be in the card's hands.

/// The difference that replacing `old` by `new` makes: words as they lie in memory.
#[inline(always)]
pub const fn difference(old: [u32; 4], new: [u32; 4]) -> u32 {
    let ([a, b, c, d], [e, f, g, h]) = (old, new);
    let old = !a as u64 + !b as u64 + !c as u64 + !d as u64;
    fold(old + e as u64 + f as u64 + g as u64 + h as u64)
}

/// The same for one word.
#[inline(always)]
pub const fn word_difference(old: u32, new: u32) -> u32 {
    fold(!old as u64 + new as u64)
}

/// A sum with its carries, in 32 bits.
#[inline(always)]
const fn fold(sum: u64) -> u32 {
    let once = (sum & 0xffff_ffff) + (sum >> 32);
    (once + (once >> 32)) as u32
}

/// The checksum `check`, both as they lie in memory, after a difference.
#[inline(always)]
pub const fn apply(check: u16, difference: u32) -> u16 {
    let sum = !check as u32 + (difference & 0xffff) + (difference >> 16);
    let once = (sum & 0xffff) + (sum >> 16);
    !((once + (once >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(words: &[u32]) -> u16 {
        let sum: u64 = words.iter().map(|&word| u64::from(word & 0xffff) + u64::from(word >> 16)).sum();
        let sum = (sum & 0xffff) + (sum >> 16);
        !((sum & 0xffff) + (sum >> 16)) as u16
    }

    #[test]
    fn a_difference_gives_the_checksum_of_the_changed_words() {
        let old = [0x0a60_0001, 0xffff_ffff, 0, 0x8000_8000];
        for new in [[1, 2, 3, 4], [0xffff_fffe; 4], [0x0101, 0, 0, 1], old] {
            assert_eq!(apply(whole(&old), difference(old, new)), whole(&new), "{new:?}");
            assert_eq!(
                apply(whole(&old[..1]), word_difference(old[0], new[0])),
                whole(&new[..1]),
                "{:x}",
                new[0]
            );
        }
    }
}

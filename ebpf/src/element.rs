//! How a hook reads an element of a hash that does not fit one load: another CPU may be handing it to another key
//! meanwhile. A writer copies from the front, so whoever reads from the back can trust a check in front.

/// Reads the pairs of words that an element consists of, the first one last.
///
/// # Safety
///
/// `element` must point to an element of a map, of so many pairs.
#[inline(always)]
pub(crate) unsafe fn read_backwards<const N: usize>(element: *const u64) -> [u64; N] {
    let mut pairs = [0; N];
    for index in (0..N).rev() {
        // SAFETY: the caller vouches for so many pairs.
        let pair = unsafe { element.add(index) };
        // SAFETY: the same; an element is aligned to eight bytes.
        pairs[index] = unsafe { pair.read_volatile() };
    }
    pairs
}

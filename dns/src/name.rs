//! Domain names as they stand on the wire, and the lower-case view of one that the zone is searched by.
//!
//! A `DomainName` keeps the case it was given in, because answers give it back as asked (RFC 4343); whoever
//! compares says so. No compression pointers: those belong to the message, in `wire`.

use std::fmt;
use std::sync::Arc;

/// The longest name in wire form (RFC 1035, section 2.3.4).
pub(crate) const MAX_NAME: usize = 255;
/// The longest label.
const MAX_LABEL: usize = 63;
/// The most labels a name of 255 octets can have, without the root.
const MAX_LABELS: usize = 127;

/// An absolute domain name in uncompressed wire form, its case kept.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DomainName(Arc<[u8]>);

/// A name folded to lower case with its labels found, on the stack: what lookups work on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Folded {
    wire: [u8; MAX_NAME],
    starts: [u8; MAX_LABELS + 1],
    count: usize,
}

impl DomainName {
    /// Reads an uncompressed name from the start of `bytes`; None where it is cut short, too long or has a
    /// compression pointer.
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        let mut at = 0;
        loop {
            let length = usize::from(*bytes.get(at)?);
            if length > MAX_LABEL {
                return None;
            }
            at += length + 1;
            if at > MAX_NAME {
                return None;
            }
            if length == 0 {
                return bytes.get(..at).map(|wire| Self(wire.into()));
            }
        }
    }

    /// The name without labels.
    pub fn root() -> Self {
        Self([0].into())
    }

    /// Builds a name from labels; None where a label is empty or too long, or the whole is.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut wire = Vec::with_capacity(64);
        for label in labels {
            push_label(&mut wire, label)?;
        }
        wire.push(0);
        (wire.len() <= MAX_NAME).then(|| Self(wire.into()))
    }

    /// Parses dotted text, the final dot optional. No escapes: names of API objects have none.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Self::from_labels([]);
        }
        Self::from_labels(text.split('.').map(str::as_bytes))
    }

    /// The name with one label more on its left.
    pub fn child(&self, label: &[u8]) -> Option<Self> {
        let mut wire = Vec::with_capacity(self.0.len() + label.len() + 1);
        push_label(&mut wire, label)?;
        wire.extend_from_slice(&self.0);
        (wire.len() <= MAX_NAME).then(|| Self(wire.into()))
    }

    /// The name without its first `labels` labels; the root where it has no more.
    pub fn parent(&self, labels: usize) -> Self {
        let mut rest = &*self.0;
        for _ in 0..labels {
            match rest {
                [0] | [] => break,
                [length, tail @ ..] => rest = &tail[usize::from(*length)..],
            }
        }
        Self(rest.into())
    }

    /// The labels from left to right, without the root.
    pub fn labels(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let (&length, tail) = rest.split_first()?;
            if length == 0 {
                return None;
            }
            let (label, after) = tail.split_at(usize::from(length));
            rest = after;
            Some(label)
        })
    }

    /// The wire form with the final zero octet.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }

    /// Equal whatever the case (RFC 4343).
    pub fn matches(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(&other.0)
    }

    /// Whether it is a domain or stands below it, whatever the case.
    pub fn is_below(&self, domain: &Self) -> bool {
        let above = self.labels().count().checked_sub(domain.labels().count());
        above.is_some_and(|above| self.parent(above).matches(domain))
    }

    /// The same name in lower case.
    pub(crate) fn to_lower_case(&self) -> Self {
        // Length octets are at most 63, so they stay: 'A' is 65.
        Self(self.0.to_ascii_lowercase().into())
    }

    pub(crate) fn fold(&self) -> Folded {
        Folded::read(&self.0).expect("a name is in wire form")
    }
}

impl Folded {
    /// Reads an uncompressed name from the start of `bytes`; None where it is none.
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        let mut folded = Self { wire: [0; MAX_NAME], starts: [0; MAX_LABELS + 1], count: 0 };
        let mut at = 0;
        loop {
            let length = usize::from(*bytes.get(at)?);
            let next = at + length + 1;
            if length > MAX_LABEL || next > MAX_NAME {
                return None;
            }
            folded.starts[folded.count] = u8::try_from(at).ok()?;
            if length == 0 {
                break;
            }
            folded.count += 1;
            at = next;
        }
        folded.wire[..at].copy_from_slice(bytes.get(..at)?);
        // Length octets are at most 63, so folding cannot touch them: 'A' is 65.
        folded.wire[..at].make_ascii_lowercase();
        Some(folded)
    }

    /// The octets of the wire form, with the final zero.
    pub(crate) fn wire_length(&self) -> usize {
        self.start(self.count) + 1
    }

    /// Where the label at `index` from the left begins; of the root, where there are so many.
    pub(crate) fn start(&self, index: usize) -> usize {
        self.starts[index].into()
    }

    /// The number of labels, without the root.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// The label at `index` from the left.
    pub(crate) fn label(&self, index: usize) -> &[u8] {
        &self.wires(index, index + 1)[1..]
    }

    /// The wire form of the labels from `from` up to and without `to`.
    pub(crate) fn wires(&self, from: usize, to: usize) -> &[u8] {
        &self.wire[usize::from(self.starts[from])..usize::from(self.starts[to])]
    }

    /// How many labels stand left of `zone`; None where the name is not under it.
    pub(crate) fn labels_above(&self, zone: &Self) -> Option<usize> {
        let above = self.count.checked_sub(zone.count)?;
        (self.wires(above, self.count) == zone.wires(0, zone.count)).then_some(above)
    }
}

/// Appends a label with its length octet; None where it is empty or too long.
pub(crate) fn push_label(wire: &mut Vec<u8>, label: &[u8]) -> Option<()> {
    let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
    wire.push(length);
    wire.extend_from_slice(label);
    Some(())
}

impl fmt::Display for DomainName {
    /// Dotted, with the final dot, escaped as RFC 1035 section 5.1 does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.len() == 1 {
            return f.write_str(".");
        }
        for label in self.labels() {
            for &octet in label {
                match octet {
                    b'.' | b'\\' | b'"' | b';' => write!(f, "\\{}", char::from(octet))?,
                    b'!'..=b'~' => write!(f, "{}", char::from(octet))?,
                    other => write!(f, "\\{other:03}")?,
                }
            }
            f.write_str(".")?;
        }
        Ok(())
    }
}

impl fmt::Debug for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_wire_agree() {
        let name = DomainName::parse("Web.shop.svc").unwrap();
        assert_eq!(name.wire(), b"\x03Web\x04shop\x03svc\0");
        assert_eq!(name.to_string(), "Web.shop.svc.");
        assert_eq!(DomainName::from_wire(b"\x03Web\x04shop\x03svc\0tail"), Some(name.clone()));
        assert_eq!(name.parent(2).to_string(), "svc.");
        assert_eq!(name.parent(9).to_string(), ".");
        assert_eq!(DomainName::from_labels([&b"a.b\x01"[..]]).unwrap().to_string(), "a\\.b\\001.");
    }

    #[test]
    fn broken_names_are_none() {
        assert_eq!(DomainName::parse("a..b"), None);
        assert_eq!(DomainName::parse(&"a".repeat(64)), None);
        assert_eq!(DomainName::parse(&"abcdefgh.".repeat(29)), None, "261 octets");
        assert!(DomainName::parse(&"a.".repeat(127)).is_some(), "255 octets");
        assert_eq!(DomainName::from_wire(b"\x03web"), None);
        assert_eq!(DomainName::from_wire(b"\xc0\x0c"), None);
    }

    #[test]
    fn the_longest_name_folds() {
        let name = DomainName::parse(&"A.".repeat(127)).unwrap().fold();
        assert_eq!((name.count(), name.label(126)), (127, &b"a"[..]));
    }

    #[test]
    fn a_zone_is_a_suffix_of_whole_labels() {
        let zone = DomainName::parse("cluster.local").unwrap().fold();
        let above = |text| DomainName::parse(text).unwrap().fold().labels_above(&zone);
        assert_eq!(above("web.Cluster.LOCAL"), Some(1));
        assert_eq!(above("cluster.local"), Some(0));
        assert_eq!(above("xcluster.local"), None);
        assert_eq!(above("local"), None);
        let below = |a, b| DomainName::parse(a).unwrap().is_below(&DomainName::parse(b).unwrap());
        assert!(below("a.Corp.example", "corp.EXAMPLE") && below("corp.example", "corp.example"));
        assert!(below("corp.example", "") && below("", ""));
        assert!(!below("xcorp.example", "corp.example") && !below("example", "corp.example"));
    }
}

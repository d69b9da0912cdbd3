//! The common questions answered straight from octets to octets: addresses of services and hosts, and names
//! that are not there, below the cluster domain. It knows no meaning of its own: `zone` says what stands at a
//! name, and whatever is not as plain as that is left to `respond`, which says octet for octet the same (a
//! test compares them). Pure; called by `worker` for every datagram.

use std::net::IpAddr;

use crate::bundle::Shape;
use crate::name::Folded;
use crate::record::{CLASS_IN, RecordType, Soa};
use crate::wire::{self, HEADER, Head, Rcode, word};
use crate::zone::{Node, Zone};

/// Types from here on ask for more than one type of record, or are about messages.
const FIRST_META_TYPE: u16 = 128;
/// A name with more labels may go beyond what `wire` remembers for compression.
const MAX_LABELS: usize = 32;
/// Labels below the domain that a denial's SOA mentions too: the question would be compressed against them.
const MENTIONED: [&[u8]; 2] = [b"dns", b"hostmaster"];
/// The owner of a record that is the name asked for.
const ASKED_NAME: [u8; 2] = [0xc0, 12];

/// What was said, for the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) rtype: RecordType,
    pub(crate) rcode: Rcode,
}

/// Appends the answer to a datagram to `out`; None, and nothing appended, where it is not a plain one.
pub(crate) fn respond(zone: &Zone, message: &[u8], seed: u64, out: &mut Vec<u8>) -> Option<Said> {
    let asked = Asked::read(message)?;
    let above = asked.name.labels_above(zone.domain())?;
    let rcode = match zone.in_cluster(&asked.name, above) {
        Node::Missing => asked.deny(zone, Rcode::NX_DOMAIN, above, out)?,
        Node::Empty => asked.deny(zone, Rcode::NO_ERROR, above, out)?,
        Node::Service(_) if asked.rtype == RecordType::SRV => return None,
        Node::Service(bundle) => match &bundle.shape {
            Shape::Cluster(names) if names.programmed => {
                let addresses = names.addresses.iter().copied();
                asked.say(addresses, (zone, above), seed, out)?
            }
            Shape::Headless(names) => {
                let addresses = names.hosts.iter().map(|host| host.address);
                asked.say(addresses, (zone, above), seed, out)?
            }
            Shape::Cluster(_) | Shape::External(_) => return None,
        },
        Node::Host(bundle, first, count) => {
            let Shape::Headless(names) = &bundle.shape else { return None };
            let addresses = names.hosts[first..first + count].iter().map(|host| host.address);
            asked.say(addresses, (zone, above), seed, out)?
        }
        Node::Pod(address) => asked.say(std::iter::once(address), (zone, above), seed, out)?,
        Node::NotYet | Node::Apex | Node::Version | Node::Server | Node::Port(..) | Node::Address(..) => {
            return None;
        }
    };
    Some(Said { rtype: asked.rtype, rcode })
}

/// A plain question: class IN, one type of record, perhaps EDNS of version 0.
struct Asked<'a> {
    name: Folded,
    rtype: RecordType,
    /// The header and the question as they came.
    head: &'a [u8],
    /// The OPT record of the answer, perhaps none.
    opt: &'static [u8],
    /// The most octets the answer may have.
    limit: usize,
}

impl<'a> Asked<'a> {
    fn read(message: &'a [u8]) -> Option<Self> {
        let flags = word(message, 2)?;
        if flags & (Head::RESPONSE | Head::OPCODE) != 0 {
            return None;
        }
        let extra = match message.get(4..HEADER)? {
            [0, 1, 0, 0, 0, 0, 0, extra @ (0 | 1)] => *extra,
            _ => return None,
        };
        let name = Folded::read(&message[HEADER..])?;
        let end = HEADER + name.wire_length() + 4;
        let (rtype, class) = (word(message, end - 4)?, word(message, end - 2)?);
        if rtype >= FIRST_META_TYPE || class != CLASS_IN || name.count() > MAX_LABELS {
            return None;
        }
        let (opt, payload) = match extra {
            0 => (&[][..], None),
            _ => {
                let edns = wire::read_opt(message, end)?;
                (wire::plain_opt(edns.dnssec), (edns.version == 0).then_some(edns.payload)?.into())
            }
        };
        let limit = wire::datagram_limit(payload);
        Some(Self { name, rtype: RecordType(rtype), head: &message[..end], opt, limit })
    }

    /// The addresses of the type asked for, from a random start; if there are none, that the name has no such.
    fn say(
        &self,
        addresses: impl Iterator<Item = IpAddr> + Clone,
        (zone, above): (&Zone, usize),
        seed: u64,
        out: &mut Vec<u8>,
    ) -> Option<Rcode> {
        let addresses = addresses.filter(|address| self.rtype == RecordType::of_address(*address));
        let count = addresses.clone().count();
        if count == 0 {
            return self.deny(zone, Rcode::NO_ERROR, above, out);
        }
        let data: u16 = if self.rtype == RecordType::A { 4 } else { 16 };
        let length = self.head.len() + count * (12 + usize::from(data)) + self.opt.len();
        if length > self.limit {
            return None;
        }
        self.begin(Rcode::NO_ERROR, [u16::try_from(count).ok()?, 0], out);
        let start = usize::try_from(seed % count as u64).unwrap_or_default();
        let ttl = zone.config().ttl.to_be_bytes();
        for address in addresses.clone().skip(start).chain(addresses.take(start)) {
            out.extend_from_slice(&ASKED_NAME);
            out.extend_from_slice(&self.rtype.0.to_be_bytes());
            out.extend_from_slice(&CLASS_IN.to_be_bytes());
            out.extend_from_slice(&ttl);
            out.extend_from_slice(&data.to_be_bytes());
            match address {
                IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
                IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
            }
        }
        out.extend_from_slice(self.opt);
        Some(Rcode::NO_ERROR)
    }

    /// That there is nothing, with the SOA of the cluster domain, which stands `above` labels into the question.
    fn deny(&self, zone: &Zone, rcode: Rcode, above: usize, out: &mut Vec<u8>) -> Option<Rcode> {
        let below_domain = above.checked_sub(1).map(|label| self.name.label(label));
        if zone.domain().count() == 0 || below_domain.is_some_and(|label| MENTIONED.contains(&label)) {
            return None;
        }
        let apex = u16::try_from(HEADER + self.name.start(above)).ok()?;
        let domain = (0xc000 | apex).to_be_bytes();
        let (server, mailbox) = zone.soa_names();
        let data = u16::try_from(server.len() + mailbox.len() + 2 * domain.len() + 20).ok()?;
        if self.head.len() + 12 + usize::from(data) + self.opt.len() > self.limit {
            return None;
        }
        self.begin(rcode, [0, 1], out);
        out.extend_from_slice(&domain);
        out.extend_from_slice(&RecordType::SOA.0.to_be_bytes());
        out.extend_from_slice(&CLASS_IN.to_be_bytes());
        let minimum = zone.config().negative_ttl();
        out.extend_from_slice(&minimum.to_be_bytes());
        out.extend_from_slice(&data.to_be_bytes());
        for name in [server, mailbox] {
            out.extend_from_slice(name);
            out.extend_from_slice(&domain);
        }
        for value in [zone.serial(), Soa::REFRESH, Soa::RETRY, Soa::EXPIRE, minimum] {
            out.extend_from_slice(&value.to_be_bytes());
        }
        out.extend_from_slice(self.opt);
        Some(rcode)
    }

    /// The header, with the records in the answer and authority sections, and the question bit for bit.
    fn begin(&self, rcode: Rcode, [answers, authority]: [u16; 2], out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(self.head);
        let kept = u16::from_be_bytes([self.head[2], self.head[3]]) & Head::ECHOED;
        let flags = Head::RESPONSE | Head::AUTHORITATIVE | Head::RECURSION_AVAILABLE | kept | rcode.0;
        let extra = u16::from(!self.opt.is_empty());
        for (index, word) in [flags, 1, answers, authority, extra].into_iter().enumerate() {
            let at = start + 2 + 2 * index;
            out[at..at + 2].copy_from_slice(&word.to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests;

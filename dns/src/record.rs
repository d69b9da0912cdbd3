//! Resource records and questions as plain values, in the words of RFC 1035 and RFC 2782. How they are
//! written on the wire is the business of `wire`; what they mean is that of `answer`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::name::DomainName;

/// A record type by its number (IANA), so that types unknown to us pass through.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordType(pub u16);

/// The class IN.
pub const CLASS_IN: u16 = 1;
/// The class ANY.
pub(crate) const CLASS_ANY: u16 = 255;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// The name in the case it was asked in.
    pub name: DomainName,
    /// The type.
    pub rtype: RecordType,
    /// The class.
    pub class: u16,
}

/// One resource record of class IN.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Record {
    /// Whose record it is.
    pub owner: DomainName,
    /// Seconds it may be kept.
    pub ttl: u32,
    /// Its data.
    pub data: Data,
}

/// The data of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// An alias.
    Cname(DomainName),
    /// A name server.
    Ns(DomainName),
    /// The name of an address.
    Ptr(DomainName),
    /// Where a service is (RFC 2782).
    Srv {
        /// 100 divided by the number of records, at least 1.
        weight: u16,
        /// The port.
        port: u16,
        /// The host.
        target: DomainName,
    },
    /// Text of one string.
    Txt(&'static str),
    /// The head of a zone.
    Soa(Soa),
    /// Data from elsewhere, uncompressed.
    Other {
        /// Its type.
        rtype: RecordType,
        /// Its octets.
        octets: Vec<u8>,
    },
}

/// The SOA of one of our zones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Soa {
    /// The primary name server.
    pub server: DomainName,
    /// The mailbox of who answers for the zone.
    pub mailbox: DomainName,
    /// Grows with the snapshots.
    pub serial: u32,
    /// Seconds a negative answer may be kept (RFC 2308).
    pub minimum: u32,
}

impl Question {
    /// A question of class IN.
    pub fn new(name: DomainName, rtype: RecordType) -> Self {
        Self { name, rtype, class: CLASS_IN }
    }
}

impl RecordType {
    /// IPv4 address.
    pub const A: Self = Self(1);
    /// Name server.
    pub const NS: Self = Self(2);
    /// Alias.
    pub const CNAME: Self = Self(5);
    /// Head of a zone.
    pub const SOA: Self = Self(6);
    /// Name of an address.
    pub const PTR: Self = Self(12);
    /// Host information; what is left of ANY (RFC 8482).
    pub const HINFO: Self = Self(13);
    /// Text.
    pub const TXT: Self = Self(16);
    /// IPv6 address.
    pub const AAAA: Self = Self(28);
    /// Location of a service.
    pub const SRV: Self = Self(33);
    /// The EDNS pseudo record.
    pub const OPT: Self = Self(41);
    /// Incremental zone transfer.
    pub const IXFR: Self = Self(251);
    /// Zone transfer.
    pub const AXFR: Self = Self(252);
    /// Whatever there is.
    pub const ANY: Self = Self(255);

    const NAMES: [(Self, &'static str); 21] = [
        (Self::A, "A"),
        (Self::NS, "NS"),
        (Self::CNAME, "CNAME"),
        (Self::SOA, "SOA"),
        (Self::PTR, "PTR"),
        (Self::HINFO, "HINFO"),
        (Self(15), "MX"),
        (Self::TXT, "TXT"),
        (Self::AAAA, "AAAA"),
        (Self::SRV, "SRV"),
        (Self(35), "NAPTR"),
        (Self::OPT, "OPT"),
        (Self(43), "DS"),
        (Self(46), "RRSIG"),
        (Self(47), "NSEC"),
        (Self(48), "DNSKEY"),
        (Self(50), "NSEC3"),
        (Self(65), "HTTPS"),
        (Self::IXFR, "IXFR"),
        (Self::AXFR, "AXFR"),
        (Self::ANY, "ANY"),
    ];

    /// How many labels `position` tells apart.
    pub(crate) const LABELS: usize = Self::NAMES.len() + 1;

    /// A number below `LABELS` and a label, the same for all types that are not common ones.
    pub(crate) fn position(self) -> (usize, &'static str) {
        let position = Self::NAMES.iter().position(|(known, _)| *known == self);
        position.map_or((Self::NAMES.len(), "other"), |position| (position, Self::NAMES[position].1))
    }

    /// The mnemonic, where the type is a common one.
    pub fn mnemonic(self) -> Option<&'static str> {
        Self::NAMES.iter().find(|(known, _)| *known == self).map(|(_, name)| *name)
    }

    /// The type of a mnemonic or of `TYPE123` (RFC 3597).
    pub fn parse(text: &str) -> Option<Self> {
        let known = Self::NAMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(text));
        known.map(|(rtype, _)| *rtype).or_else(|| text.strip_prefix("TYPE")?.parse().ok().map(Self))
    }

    /// The type of the record of an address.
    pub(crate) const fn of_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::A,
            IpAddr::V6(_) => Self::AAAA,
        }
    }

    /// Whether records of type `of` belong into an answer to a question of this type.
    pub fn covers(self, of: Self) -> bool {
        self == of || self == Self::ANY
    }
}

impl Data {
    /// The record of an address.
    pub fn of_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(ip) => Self::A(ip),
            IpAddr::V6(ip) => Self::Aaaa(ip),
        }
    }

    /// Its type.
    pub const fn rtype(&self) -> RecordType {
        match self {
            Self::A(_) => RecordType::A,
            Self::Aaaa(_) => RecordType::AAAA,
            Self::Cname(_) => RecordType::CNAME,
            Self::Ns(_) => RecordType::NS,
            Self::Ptr(_) => RecordType::PTR,
            Self::Srv { .. } => RecordType::SRV,
            Self::Txt(_) => RecordType::TXT,
            Self::Soa(_) => RecordType::SOA,
            Self::Other { rtype, .. } => *rtype,
        }
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mnemonic() {
            Some(name) => f.write_str(name),
            None => write!(f, "TYPE{}", self.0),
        }
    }
}

impl fmt::Debug for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::A(ip) => write!(f, "{ip}"),
            Self::Aaaa(ip) => write!(f, "{ip}"),
            Self::Cname(name) | Self::Ns(name) | Self::Ptr(name) => write!(f, "{name}"),
            Self::Srv { weight, port, target } => write!(f, "0 {weight} {port} {target}"),
            Self::Txt(text) => write!(f, "\"{text}\""),
            Self::Soa(soa) => write!(
                f,
                "{} {} {} {} {} {} {}",
                soa.server,
                soa.mailbox,
                soa.serial,
                Soa::REFRESH,
                Soa::RETRY,
                Soa::EXPIRE,
                soa.minimum
            ),
            Self::Other { octets, .. } => write!(f, "\\# {}", octets.len()),
        }
    }
}

impl Soa {
    // Nobody transfers the zone, so these only have to be plausible to a checker (RFC 1912, section 2.2).
    /// Seconds between a secondary's checks.
    pub const REFRESH: u32 = 7200;
    /// Seconds until it tries again.
    pub const RETRY: u32 = 1800;
    /// Seconds until it gives up.
    pub const EXPIRE: u32 = 86400;
}

impl fmt::Display for Record {
    /// One line of a zone file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} IN {} {}", self.owner, self.ttl, self.data.rtype(), self.data)
    }
}

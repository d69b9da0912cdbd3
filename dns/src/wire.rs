//! DNS messages as octets: reads a request, writes an answer (RFC 1035, RFC 6891). Pure. Answers that do
//! not fit lose whole records, get TC, and keep their OPT record. Called by `respond` and `forward`.

use crate::name::DomainName;
use crate::record::{CLASS_IN, Data, Question, Record, RecordType, Soa};

/// The length of the header.
pub(crate) const HEADER: usize = 12;
/// What a client without EDNS takes over UDP.
const PLAIN_PAYLOAD: u16 = 512;
/// What we say we take over UDP, and the most we send: without fragments on any path (DNS flag day 2020).
pub(crate) const OWN_PAYLOAD: u16 = 1232;
/// The most we send to a client that says it takes it. It sits on a link of this node, so fragments arrive.
const MAX_PAYLOAD: u16 = 4096;
/// Suffixes remembered for compression: the question, the zone and the first targets are what repeats.
const MAX_SUFFIXES: usize = 48;

/// A response code, with the bits that EDNS adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rcode(pub u16);

impl Rcode {
    /// No error.
    pub const NO_ERROR: Self = Self(0);
    /// The request is no DNS message.
    pub const FORM_ERR: Self = Self(1);
    /// We cannot say.
    pub const SERV_FAIL: Self = Self(2);
    /// The name does not exist.
    pub const NX_DOMAIN: Self = Self(3);
    /// The kind of request is unknown to us.
    pub const NOT_IMP: Self = Self(4);
    /// We will not say.
    pub const REFUSED: Self = Self(5);
    /// An EDNS version unknown to us.
    pub const BAD_VERS: Self = Self(16);

    /// The word of the IANA registry.
    pub fn name(self) -> &'static str {
        match self.0 {
            0 => "NOERROR",
            1 => "FORMERR",
            2 => "SERVFAIL",
            3 => "NXDOMAIN",
            4 => "NOTIMP",
            5 => "REFUSED",
            16 => "BADVERS",
            _ => "OTHER",
        }
    }
}

/// How a request came, and so how long its answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// A datagram.
    Udp,
    /// A stream.
    Tcp,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The first two words of the header: id and flags.
    pub head: Head,
    /// The one question.
    pub question: Question,
    /// Its EDNS part.
    pub edns: Option<Edns>,
    /// How it came.
    pub transport: Transport,
}

/// Id and flags of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Chosen by the client.
    pub id: u16,
    /// The flags as they came.
    pub flags: u16,
}

/// What a request says in its OPT record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edns {
    /// The octets it takes over UDP.
    pub payload: u16,
    /// 0 is the only version there is.
    pub version: u8,
    /// DNSSEC OK.
    pub dnssec: bool,
}

/// Why something is no request that can be answered from its question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Not worth a word: too short for a header, or itself a response.
    Noise,
    /// To be answered with this code and no question.
    Refuse(Head, Rcode),
}

impl Head {
    pub(crate) const RESPONSE: u16 = 0x8000;
    pub(crate) const AUTHORITATIVE: u16 = 0x0400;
    pub(crate) const TRUNCATED: u16 = 0x0200;
    pub(crate) const RECURSION_DESIRED: u16 = 0x0100;
    pub(crate) const RECURSION_AVAILABLE: u16 = 0x0080;
    pub(crate) const AUTHENTIC: u16 = 0x0020;
    pub(crate) const CHECKING_DISABLED: u16 = 0x0010;
    pub(crate) const OPCODE: u16 = 0x7800;
    /// The client's flags that an answer repeats.
    pub(crate) const ECHOED: u16 = Self::RECURSION_DESIRED | Self::CHECKING_DISABLED;

    /// Reads the first two words.
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        Some(Self { id: word(message, 0)?, flags: word(message, 2)? })
    }

    pub(crate) fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

impl Request {
    /// Reads a request.
    pub fn read(message: &[u8], transport: Transport) -> Result<Self, Malformed> {
        let head = Head::read(message).filter(|_| message.len() >= HEADER).ok_or(Malformed::Noise)?;
        if head.has(Head::RESPONSE) {
            return Err(Malformed::Noise);
        }
        if head.has(Head::OPCODE) {
            return Err(Malformed::Refuse(head, Rcode::NOT_IMP));
        }
        let broken = Malformed::Refuse(head, Rcode::FORM_ERR);
        if word(message, 4) != Some(1) {
            return Err(broken);
        }
        let (question, at) = read_question(message).ok_or(broken)?;
        let edns = read_edns(message, at).ok_or(broken)?;
        Ok(Self { head, question, edns, transport })
    }

    /// The most octets its answer may have.
    pub fn limit(&self) -> usize {
        match (self.transport, &self.edns) {
            (Transport::Tcp, _) => usize::from(u16::MAX),
            (Transport::Udp, edns) => datagram_limit(edns.map(|edns| edns.payload)),
        }
    }
}

/// The most octets of a datagram to a client that says it takes so many, or says nothing.
pub(crate) fn datagram_limit(payload: Option<u16>) -> usize {
    payload.map_or(PLAIN_PAYLOAD, |payload| payload.clamp(PLAIN_PAYLOAD, MAX_PAYLOAD)).into()
}

/// What goes into an answer.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    /// The code; default no error.
    pub rcode: u16,
    /// AA.
    pub authoritative: bool,
    /// The answer section.
    pub answers: Vec<Record>,
    /// The authority section.
    pub authority: Vec<Record>,
    /// The additional section without OPT.
    pub additional: Vec<Record>,
    /// An extended error (RFC 8914), sent where the client speaks EDNS.
    pub extended_error: Option<(u16, &'static str)>,
}

/// Writes the answer to a request.
pub(crate) fn write(request: &Request, contents: &Contents) -> Vec<u8> {
    let opt = write_opt(request, contents);
    let mut writer = Writer::new(request.limit() - opt.len());
    writer.header(request, contents);
    writer.question(&request.question);
    let answers = writer.section(&contents.answers);
    // A lost SOA would turn "no data" into "ask elsewhere", so it counts as truncation; a lost address in
    // the additional section does not (RFC 2181, section 9).
    let authority = if answers.whole { writer.section(&contents.authority) } else { Written::default() };
    let truncated = !answers.whole || !(authority.whole || contents.authority.is_empty());
    let additional = if truncated { Written::default() } else { writer.section(&contents.additional) };
    writer.octets.extend_from_slice(&opt);
    let counts = [1, answers.count, authority.count, additional.count + u16::from(!opt.is_empty())];
    for (index, count) in counts.into_iter().enumerate() {
        writer.octets[4 + index * 2..6 + index * 2].copy_from_slice(&count.to_be_bytes());
    }
    if truncated {
        writer.octets[2] |= (Head::TRUNCATED >> 8) as u8;
    }
    writer.octets
}

/// Writes the answer to what is no request: a header alone.
pub(crate) fn write_refusal(head: Head, rcode: Rcode) -> Vec<u8> {
    let flags = Head::RESPONSE | Head::RECURSION_AVAILABLE | (rcode.0 & 15);
    let kept = head.flags & (Head::OPCODE | Head::RECURSION_DESIRED);
    let mut octets = Vec::with_capacity(HEADER);
    octets.extend_from_slice(&head.id.to_be_bytes());
    octets.extend_from_slice(&(flags | kept).to_be_bytes());
    octets.resize(HEADER, 0);
    octets
}

/// Writes a question of our own to an upstream, with EDNS. AD in it says that AD is understood in the answer
/// (RFC 6840, section 5.7).
pub(crate) fn write_question(question: &Question, dnssec: bool, checking_disabled: bool) -> Vec<u8> {
    let mut octets = Vec::with_capacity(64);
    let checking = if checking_disabled { Head::CHECKING_DISABLED } else { 0 };
    for word in [0, Head::RECURSION_DESIRED | Head::AUTHENTIC | checking, 1, 0, 0, 1] {
        octets.extend_from_slice(&word.to_be_bytes());
    }
    octets.extend_from_slice(question.name.wire());
    octets.extend_from_slice(&question.rtype.0.to_be_bytes());
    octets.extend_from_slice(&question.class.to_be_bytes());
    let edns = Edns { payload: OWN_PAYLOAD, version: 0, dnssec };
    octets.extend_from_slice(&opt_record(edns, &Contents::default()));
    octets
}

/// The OPT record of the answer to a request; nothing where it came without one.
pub(crate) fn write_opt(request: &Request, contents: &Contents) -> Vec<u8> {
    request.edns.map(|edns| opt_record(edns, contents)).unwrap_or_default()
}

/// Where the first question ends; None where there is none.
pub(crate) fn question_end(message: &[u8]) -> Option<usize> {
    read_question(message).map(|(_, at)| at)
}

pub(crate) fn read_question(message: &[u8]) -> Option<(Question, usize)> {
    let name = DomainName::from_wire(message.get(HEADER..)?)?;
    let at = HEADER + name.wire().len();
    let (rtype, class) = (RecordType(word(message, at)?), word(message, at + 2)?);
    Some((Question { name, rtype, class }, at + 4))
}

/// The sections of a message that have records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section {
    Answer,
    Authority,
    Additional,
}

impl Section {
    /// How many records a message says it has.
    pub(crate) fn count(self, message: &[u8]) -> Option<u16> {
        word(message, 6 + 2 * self as usize)
    }
}

/// Where the parts of a record stand in its message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RecordAt {
    pub(crate) rtype: RecordType,
    pub(crate) class: u16,
    pub(crate) ttl_at: usize,
    pub(crate) end: usize,
}

/// Finds the record at an offset; None where it is cut short.
pub(crate) fn read_record(message: &[u8], at: usize) -> Option<RecordAt> {
    let at = skip_name(message, at)?;
    let (rtype, class) = (RecordType(word(message, at)?), word(message, at + 2)?);
    let end = at + 10 + usize::from(word(message, at + 8)?);
    (end <= message.len()).then_some(RecordAt { rtype, class, ttl_at: at + 4, end })
}

/// The OPT record, wherever it stands; the outer None is a broken message: two of them, or records cut short.
fn read_edns(message: &[u8], mut at: usize) -> Option<Option<Edns>> {
    let mut edns = None;
    for section in [Section::Answer, Section::Authority, Section::Additional] {
        for _ in 0..section.count(message)? {
            let record = read_record(message, at)?;
            if record.rtype == RecordType::OPT {
                if edns.is_some() {
                    return None;
                }
                edns = Some(read_opt(message, at)?);
            }
            at = record.end;
        }
    }
    Some(edns)
}

/// The OPT record at an offset; None where there is none, or a broken one.
pub(crate) fn read_opt(message: &[u8], at: usize) -> Option<Edns> {
    let record = read_record(message, at)?;
    if record.rtype != RecordType::OPT || message[at] != 0 {
        return None;
    }
    let (version, flags) = (message[record.ttl_at + 1], word(message, record.ttl_at + 2)?);
    Some(Edns { payload: record.class, version, dnssec: flags & 0x8000 != 0 })
}

/// The OPT record of an answer with nothing special about it, for a client that sent one.
pub(crate) fn plain_opt(dnssec: bool) -> &'static [u8] {
    const HIGH: u8 = OWN_PAYLOAD.to_be_bytes()[0];
    const LOW: u8 = OWN_PAYLOAD.to_be_bytes()[1];
    if dnssec {
        &[0, 0, 41, HIGH, LOW, 0, 0, 0x80, 0, 0, 0]
    } else {
        &[0, 0, 41, HIGH, LOW, 0, 0, 0, 0, 0, 0]
    }
}

fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += usize::from(length) + 1,
            0xc0..=0xff => return Some(at + 2),
            64..=0xbf => return None,
        }
    }
}

pub(crate) fn word(message: &[u8], at: usize) -> Option<u16> {
    let octets = message.get(at..at + 2)?;
    Some(u16::from_be_bytes([octets[0], octets[1]]))
}

fn opt_record(asked: Edns, contents: &Contents) -> Vec<u8> {
    let mut options = Vec::new();
    if let Some((code, text)) = contents.extended_error {
        options.extend_from_slice(&15u16.to_be_bytes());
        options.extend_from_slice(&short(2 + text.len()).to_be_bytes());
        options.extend_from_slice(&code.to_be_bytes());
        options.extend_from_slice(text.as_bytes());
    }
    let mut octets = vec![0];
    let extended = (contents.rcode >> 4) << 8;
    let flags = if asked.dnssec { 0x8000 } else { 0 };
    for word in [RecordType::OPT.0, OWN_PAYLOAD, extended, flags, short(options.len())] {
        octets.extend_from_slice(&word.to_be_bytes());
    }
    octets.extend_from_slice(&options);
    octets
}

fn short(length: usize) -> u16 {
    u16::try_from(length).expect("record data is built below 64 KiB")
}

/// What became of a section.
#[derive(Default)]
struct Written {
    count: u16,
    whole: bool,
}

struct Writer {
    octets: Vec<u8>,
    limit: usize,
    /// A name written before, how many of its octets to skip, and where the rest stands.
    suffixes: Vec<(DomainName, usize, u16)>,
}

impl Writer {
    fn new(limit: usize) -> Self {
        Self { octets: Vec::with_capacity(512), limit, suffixes: Vec::new() }
    }

    fn header(&mut self, request: &Request, contents: &Contents) {
        let kept = request.head.flags & Head::ECHOED;
        let authoritative = if contents.authoritative { Head::AUTHORITATIVE } else { 0 };
        let flags = Head::RESPONSE | Head::RECURSION_AVAILABLE | authoritative | kept | (contents.rcode & 15);
        self.word(request.head.id);
        self.word(flags);
        self.octets.resize(HEADER, 0);
    }

    fn question(&mut self, question: &Question) {
        self.name(&question.name);
        self.word(question.rtype.0);
        self.word(question.class);
    }

    /// Writes as many whole records as fit.
    fn section(&mut self, records: &[Record]) -> Written {
        let mut count = 0;
        for record in records {
            let (before, known) = (self.octets.len(), self.suffixes.len());
            self.record(record);
            if self.octets.len() > self.limit {
                self.octets.truncate(before);
                self.suffixes.truncate(known);
                return Written { count, whole: false };
            }
            count += 1;
        }
        Written { count, whole: true }
    }

    fn record(&mut self, record: &Record) {
        self.name(&record.owner);
        self.word(record.data.rtype().0);
        self.word(CLASS_IN);
        self.octets.extend_from_slice(&record.ttl.to_be_bytes());
        let length_at = self.octets.len();
        self.word(0);
        self.data(&record.data);
        let length = short(self.octets.len() - length_at - 2);
        self.octets[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
    }

    fn data(&mut self, data: &Data) {
        match data {
            Data::A(ip) => self.octets.extend_from_slice(&ip.octets()),
            Data::Aaaa(ip) => self.octets.extend_from_slice(&ip.octets()),
            Data::Cname(name) | Data::Ns(name) | Data::Ptr(name) => self.name(name),
            Data::Srv { weight, port, target } => {
                self.word(0);
                self.word(*weight);
                self.word(*port);
                // RFC 2782: never compressed. Later names may point at it all the same.
                self.plain_name(target);
            }
            Data::Txt(text) => {
                self.octets.push(u8::try_from(text.len()).expect("our texts are short"));
                self.octets.extend_from_slice(text.as_bytes());
            }
            Data::Soa(soa) => {
                self.name(&soa.server);
                self.name(&soa.mailbox);
                for value in [soa.serial, Soa::REFRESH, Soa::RETRY, Soa::EXPIRE, soa.minimum] {
                    self.octets.extend_from_slice(&value.to_be_bytes());
                }
            }
            Data::Other { octets, .. } => self.octets.extend_from_slice(octets),
        }
    }

    /// Writes a name, ending it with a pointer to a suffix written before. Suffixes match whatever their
    /// case, so an owner comes back in the case of the question (RFC 4343).
    fn name(&mut self, name: &DomainName) {
        let wire = name.wire();
        let mut at = 0;
        while wire[at] != 0 {
            let rest = &wire[at..];
            let known =
                self.suffixes.iter().find(|(n, skip, _)| n.wire()[*skip..].eq_ignore_ascii_case(rest));
            if let Some((_, _, offset)) = known {
                let pointer = 0xc000 | offset;
                return self.word(pointer);
            }
            self.remember(name, at);
            let next = at + 1 + usize::from(wire[at]);
            self.octets.extend_from_slice(&wire[at..next]);
            at = next;
        }
        self.octets.push(0);
    }

    fn plain_name(&mut self, name: &DomainName) {
        let wire = name.wire();
        let mut at = 0;
        while wire[at] != 0 {
            self.remember(name, at);
            let next = at + 1 + usize::from(wire[at]);
            self.octets.extend_from_slice(&wire[at..next]);
            at = next;
        }
        self.octets.push(0);
    }

    fn remember(&mut self, name: &DomainName, skip: usize) {
        match u16::try_from(self.octets.len()) {
            Ok(offset) if offset < 0x4000 && self.suffixes.len() < MAX_SUFFIXES => {
                self.suffixes.push((name.clone(), skip, offset));
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn word(&mut self, word: u16) {
        self.octets.extend_from_slice(&word.to_be_bytes());
    }
}

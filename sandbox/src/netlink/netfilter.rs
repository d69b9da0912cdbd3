//! One nftables table by raw nfnetlink messages: a container image has no `nft`. Writes a table whole, in one
//! transaction, and reads back what is in it. Knows how rules are encoded; decides none.

use std::io;
use std::net::IpAddr;

use ipnet::IpNet;
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

use super::{NetlinkError, aligned};

const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFPROTO_INET: u8 = 1;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_GETRULE: u16 = 7;
/// Attributes that all three kinds of object begin with: the table's name.
const TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_USERDATA: u16 = 7;
const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;
const NFT_RETURN: i32 = -5;
const NESTED: u16 = 0x8000;
const HEADER: usize = 16;
/// Behind the header of each message: family, version, resource.
const GENERIC_HEADER: usize = 4;

/// A table of the family `inet`, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    pub(crate) chains: Vec<Chain>,
}

/// A chain that the kernel enters by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chain {
    pub(crate) name: &'static str,
    pub(crate) hook: Hook,
    pub(crate) rules: Vec<Rule>,
}

/// Where a chain is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    /// Before connections are tracked, packets that arrive.
    RawPrerouting,
    /// Before connections are tracked, packets of the node.
    RawOutput,
    /// Where sources are translated.
    SourceNat,
}

/// What happens to packets of one source or destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) side: Side,
    pub(crate) range: IpNet,
    pub(crate) verdict: Verdict,
}

/// The address that a rule looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Source,
    Destination,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing, and nor does any rule behind it.
    Return,
    /// Gives the packet the node's address.
    Masquerade,
    /// The packet is not tracked.
    Untracked,
}

/// A netfilter socket of the network namespace of the thread that opened it.
pub(crate) struct Netfilter {
    socket: Socket,
}

impl Netfilter {
    pub(crate) fn open() -> Result<Self, NetlinkError> {
        let open = || -> io::Result<Socket> {
            let mut socket = Socket::new(NETLINK_NETFILTER)?;
            socket.bind_auto()?;
            socket.connect(&SocketAddr::new(0, 0))?;
            socket.set_cap_ack(true)?;
            Ok(socket)
        };
        let socket = open().map_err(|error| NetlinkError::new("opening a netfilter socket", error))?;
        Ok(Self { socket })
    }

    /// Puts the table in place of whatever has its name, in one transaction.
    pub(crate) fn replace(&self, table: &Table) -> Result<(), NetlinkError> {
        let mut batch = Batch::begin();
        batch.add(NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, &string(TABLE, table.name));
        batch.add(NFT_MSG_DELTABLE, 0, &string(TABLE, table.name));
        batch.add(NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, &string(TABLE, table.name));
        for chain in &table.chains {
            batch.add(NFT_MSG_NEWCHAIN, libc::NLM_F_CREATE, &chain_attributes(table, chain));
            for rule in &chain.rules {
                let attributes = rule_attributes(table, chain, rule);
                batch.add(NFT_MSG_NEWRULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, &attributes);
            }
        }
        self.commit(batch).map_err(|error| NetlinkError::new(format!("writing table {}", table.name), error))
    }

    /// Removes a table with all that is in it. Fine if it is not there.
    pub(crate) fn remove(&self, table: &str) -> Result<(), NetlinkError> {
        let mut batch = Batch::begin();
        batch.add(NFT_MSG_NEWTABLE, libc::NLM_F_CREATE, &string(TABLE, table));
        batch.add(NFT_MSG_DELTABLE, 0, &string(TABLE, table));
        self.commit(batch).map_err(|error| NetlinkError::new(format!("removing table {table}"), error))
    }

    /// The rules of a table in order, each as its chain's name and its comment. Empty if it is not there.
    pub(crate) fn rules(&self, table: &str) -> Result<Vec<(String, String)>, NetlinkError> {
        let failed = |error| NetlinkError::new(format!("reading table {table}"), error);
        let flags = libc::NLM_F_REQUEST | libc::NLM_F_DUMP;
        let request = message(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETRULE, flags, 1, &string(TABLE, table));
        self.socket.send(&request, 0).map_err(failed)?;
        let mut rules = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full().map_err(failed)?;
            for answer in Answer::all(&datagram) {
                match i32::from(answer.kind) {
                    libc::NLMSG_DONE => return Ok(rules),
                    libc::NLMSG_ERROR => match answer.error() {
                        Some(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
                        Some(error) => return Err(failed(error)),
                        None => return Ok(rules),
                    },
                    _ => rules.extend(answer.rule(table)),
                }
            }
        }
    }

    /// Every message is acknowledged, whether or not an earlier one has failed.
    fn commit(&self, batch: Batch) -> io::Result<()> {
        let mut missing = batch.count;
        let last = batch.last;
        self.socket.send(&batch.end(), 0)?;
        let mut first_error = None;
        while missing > 0 {
            let (datagram, _) = self.socket.recv_from_full()?;
            for answer in Answer::all(&datagram).filter(|answer| i32::from(answer.kind) == libc::NLMSG_ERROR)
            {
                missing = missing.saturating_sub(1);
                first_error = first_error.or_else(|| answer.error());
                // The frame itself was refused: nothing else is answered.
                if answer.sequence == 0 || answer.sequence > last {
                    missing = 0;
                }
            }
        }
        first_error.map_or(Ok(()), Err)
    }
}

/// Messages that take effect together or not at all.
struct Batch {
    bytes: Vec<u8>,
    count: u32,
    last: u32,
}

impl Batch {
    fn begin() -> Self {
        Self { bytes: frame(NFNL_MSG_BATCH_BEGIN, 0), count: 0, last: 0 }
    }

    fn add(&mut self, kind: u16, flags: i32, attributes: &[u8]) {
        self.count += 1;
        self.last += 1;
        let flags = flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK;
        self.bytes.extend(message(NFNL_SUBSYS_NFTABLES << 8 | kind, flags, self.last, attributes));
    }

    fn end(mut self) -> Vec<u8> {
        self.bytes.extend(frame(NFNL_MSG_BATCH_END, self.last + 1));
        self.bytes
    }
}

/// One message of an answer.
struct Answer<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

impl<'a> Answer<'a> {
    fn all(mut bytes: &'a [u8]) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            let header = bytes.get(..HEADER)?;
            let length = u32::from_ne_bytes(header[..4].try_into().ok()?) as usize;
            let body = bytes.get(HEADER..length)?;
            bytes = bytes.get(aligned(length)..).unwrap_or_default();
            let kind = u16::from_ne_bytes(header[4..6].try_into().ok()?);
            let sequence = u32::from_ne_bytes(header[8..12].try_into().ok()?);
            Some(Self { kind, sequence, body })
        })
    }

    /// The error of an NLMSG_ERROR; None for an acknowledgement.
    fn error(&self) -> Option<io::Error> {
        let code = i32::from_ne_bytes(self.body.get(..4)?.try_into().ok()?);
        (code != 0).then(|| io::Error::from_raw_os_error(-code))
    }

    fn rule(&self, table: &str) -> Option<(String, String)> {
        let attributes = self.body.get(GENERIC_HEADER..)?;
        let text = |wanted| find(attributes, wanted).map(text_of);
        // Kernels before 4.19 dump the rules of every table.
        if text(TABLE)? != table {
            return None;
        }
        // Of a comment: its type, its length, its text.
        let comment = find(attributes, NFTA_RULE_USERDATA).and_then(|data| data.get(2..)).map(text_of);
        Some((text(NFTA_RULE_CHAIN)?, comment.unwrap_or_default()))
    }
}

fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        let value = attributes.get(4..length)?;
        if kind & !NESTED == wanted {
            return Some(value);
        }
        attributes = attributes.get(aligned(length)..)?;
    }
}

fn text_of(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

impl Rule {
    /// What a person reads beside the rule, and how it is recognised.
    pub(crate) fn comment(&self) -> String {
        let side = match self.side {
            Side::Source => "from",
            Side::Destination => "to",
        };
        let verdict = match self.verdict {
            Verdict::Return => "as it is",
            Verdict::Masquerade => "masqueraded",
            Verdict::Untracked => "untracked",
        };
        format!("{side} {} {verdict}", self.range)
    }
}

fn chain_attributes(table: &Table, chain: &Chain) -> Vec<u8> {
    const ACCEPT: u32 = 1;
    let (kind, hook, priority): (&str, u32, i32) = match chain.hook {
        Hook::RawPrerouting => ("filter", 0, -300),
        Hook::RawOutput => ("filter", 3, -300),
        Hook::SourceNat => ("nat", 4, 100),
    };
    let place = [number(1, hook), number(2, priority.cast_unsigned())].concat();
    [string(TABLE, table.name), string(3, chain.name), nest(4, &place), number(5, ACCEPT), string(7, kind)]
        .concat()
}

fn rule_attributes(table: &Table, chain: &Chain, rule: &Rule) -> Vec<u8> {
    let comment = rule.comment();
    let length = u8::try_from(comment.len() + 1).unwrap_or(u8::MAX);
    let comment = [&[0, length], comment.as_bytes(), &[0]].concat();
    [
        string(TABLE, table.name),
        string(NFTA_RULE_CHAIN, chain.name),
        nest(NFTA_RULE_EXPRESSIONS, &expressions(rule)),
        attribute(NFTA_RULE_USERDATA, &comment),
    ]
    .concat()
}

/// `meta nfproto F; payload => register 1; register 1 & mask == network; verdict`.
fn expressions(rule: &Rule) -> Vec<u8> {
    const META_NFPROTO: u32 = 15;
    const NETWORK_HEADER: u32 = 1;
    let (family, offset) = match (rule.range, rule.side) {
        (IpNet::V4(_), Side::Source) => (NFPROTO_IPV4, 12),
        (IpNet::V4(_), Side::Destination) => (NFPROTO_IPV4, 16),
        (IpNet::V6(_), Side::Source) => (NFPROTO_IPV6, 8),
        (IpNet::V6(_), Side::Destination) => (NFPROTO_IPV6, 24),
    };
    let network = octets(rule.range.network());
    let mask = octets(rule.range.netmask());
    let length = if rule.range.addr().is_ipv4() { 4 } else { 16 };
    let mut list = vec![
        expression("meta", &[number(1, NFT_REG_1), number(2, META_NFPROTO)]),
        compare(&[family]),
        expression(
            "payload",
            &[number(1, NFT_REG_1), number(2, NETWORK_HEADER), number(3, offset), number(4, length)],
        ),
    ];
    if rule.range.prefix_len() < rule.range.max_prefix_len() {
        let zero = vec![0; network.len()];
        let registers = [number(1, NFT_REG_1), number(2, NFT_REG_1), number(3, length)].concat();
        list.push(expression("bitwise", &[registers, data(4, &mask), data(5, &zero)]));
    }
    list.push(compare(&network));
    list.push(match rule.verdict {
        Verdict::Return => {
            let code = nest(2, &number(1, NFT_RETURN.cast_unsigned()));
            expression("immediate", &[number(1, NFT_REG_VERDICT), nest(2, &code)])
        }
        Verdict::Masquerade => expression("masq", &[]),
        Verdict::Untracked => expression("notrack", &[]),
    });
    list.concat()
}

fn compare(value: &[u8]) -> Vec<u8> {
    const EQUAL: u32 = 0;
    expression("cmp", &[number(1, NFT_REG_1), number(2, EQUAL), data(3, value)])
}

fn expression(name: &str, attributes: &[Vec<u8>]) -> Vec<u8> {
    nest(1, &[string(1, name), nest(2, &attributes.concat())].concat())
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

fn data(kind: u16, value: &[u8]) -> Vec<u8> {
    nest(kind, &attribute(1, value))
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn string(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

fn nest(kind: u16, value: &[u8]) -> Vec<u8> {
    attribute(kind | NESTED, value)
}

#[expect(clippy::cast_possible_truncation, reason = "a rule is a few hundred bytes")]
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = Vec::with_capacity(aligned(length));
    bytes.extend((length as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(aligned(length), 0);
    bytes
}

/// The message that begins or ends a batch.
fn frame(kind: u16, sequence: u32) -> Vec<u8> {
    let mut bytes = message(kind, libc::NLM_F_REQUEST, sequence, &[]);
    bytes[HEADER] = 0;
    bytes[HEADER + 2..HEADER + 4].copy_from_slice(&NFNL_SUBSYS_NFTABLES.to_be_bytes());
    bytes
}

#[expect(clippy::cast_possible_truncation, reason = "flags are 16 bits, messages a few hundred bytes")]
fn message(kind: u16, flags: i32, sequence: u32, attributes: &[u8]) -> Vec<u8> {
    let length = HEADER + GENERIC_HEADER + attributes.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend((length as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend((flags as u16).to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend([NFPROTO_INET, 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

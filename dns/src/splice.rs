//! Puts a chain of our aliases in front of an upstream's answer. The only file that knows hickory: an
//! upstream's records are compressed against its own message, so they must be understood to be moved.

use hickory_proto::op::Message;
use hickory_proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};

use crate::name::DomainName;
use crate::record::{Data, Record, RecordType};
use crate::wire::Contents;

/// The answer made of our chain and the upstream's message; None where that is no message.
pub(crate) fn contents(chain: Vec<Record>, message: &[u8]) -> Option<Contents> {
    let message = Message::from_vec(message).ok()?;
    let mut answers = chain;
    answers.extend(records(&message.answers));
    Some(Contents {
        rcode: u16::from(message.metadata.response_code),
        // The first name is ours (RFC 1035, section 4.1.1).
        authoritative: true,
        answers,
        authority: records(&message.authorities),
        ..Contents::default()
    })
}

fn records(records: &[hickory_proto::rr::Record]) -> Vec<Record> {
    records.iter().filter_map(record).collect()
}

fn record(record: &hickory_proto::rr::Record) -> Option<Record> {
    let rtype = RecordType(record.record_type().into());
    let owner = DomainName::from_wire(&plain(&record.name)?)?;
    Some(Record { owner, ttl: record.ttl, data: Data::Other { rtype, octets: plain(&record.data)? } })
}

/// The octets of something without compression.
fn plain(what: &impl BinEncodable) -> Option<Vec<u8>> {
    let mut octets = Vec::new();
    let mut encoder = BinEncoder::new(&mut octets);
    encoder.set_name_encoding(NameEncoding::Uncompressed);
    what.emit(&mut encoder).ok()?;
    Some(octets)
}

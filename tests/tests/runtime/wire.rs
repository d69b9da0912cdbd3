//! Protocol buffers, as much of them as the runtime's messages need: fields by number, written and read.
//!
//! By hand, because generated code would need a compiler of its own and minutes to build for ten messages.

use anyhow::{Context, Result, bail};

/// A message that is being written.
#[derive(Clone, Debug, Default)]
pub(crate) struct Message(pub(crate) Vec<u8>);

/// A message that was received.
pub(crate) struct Fields(Vec<(u64, Vec<u8>)>);

impl Message {
    pub(crate) fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    pub(crate) fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    pub(crate) fn texts(self, field: u64, texts: &[&str]) -> Self {
        texts.iter().fold(self, |message, text| message.text(field, text))
    }

    pub(crate) fn message(self, field: u64, inner: &Self) -> Self {
        self.bytes(field, &inner.0)
    }

    fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap_or(0) | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap_or(0));
    }
}

impl Fields {
    pub(crate) fn read(mut bytes: &[u8]) -> Result<Self> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes)?;
            let value = match key & 7 {
                0 => varint(&mut bytes)?.to_be_bytes().to_vec(),
                2 => {
                    let length = usize::try_from(varint(&mut bytes)?)?;
                    let (value, rest) = bytes.split_at_checked(length).context("a field is cut off")?;
                    bytes = rest;
                    value.to_vec()
                }
                other => bail!("a field of wire type {other}"),
            };
            fields.push((key >> 3, value));
        }
        Ok(Self(fields))
    }

    pub(crate) fn all(&self, field: u64) -> impl Iterator<Item = &[u8]> {
        self.0.iter().filter(move |(number, _)| *number == field).map(|(_, value)| value.as_slice())
    }

    pub(crate) fn text(&self, field: u64) -> String {
        self.all(field).map(|value| String::from_utf8_lossy(value).into_owned()).next().unwrap_or_default()
    }

    pub(crate) fn number(&self, field: u64) -> u64 {
        let value = self.all(field).find_map(|value| <[u8; 8]>::try_from(value).ok());
        u64::from_be_bytes(value.unwrap_or_default())
    }

    pub(crate) fn message(&self, field: u64) -> Result<Self> {
        Self::read(self.all(field).next().unwrap_or_default())
    }
}

fn varint(bytes: &mut &[u8]) -> Result<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().context("a number is cut off")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    bail!("a number has no end")
}

#[test]
fn what_is_written_reads_back() {
    let inner = Message::default().text(1, "web").number(4, 300);
    let message = Message::default().message(1, &inner).texts(2, &["a", "b"]);
    let read = Fields::read(&message.0).unwrap();
    let inner = read.message(1).unwrap();
    assert_eq!((inner.text(1).as_str(), inner.number(4), inner.number(9)), ("web", 300, 0));
    assert_eq!(read.all(2).collect::<Vec<_>>(), [b"a", b"b"]);
    assert!(Fields::read(&[0x0a, 5, 1]).is_err());
}

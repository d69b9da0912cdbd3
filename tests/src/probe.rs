//! What the `probe` program prints, as values: who answered how often, and flows that are kept open.
//!
//! The other side of `bin/probe`; tests compare these values and never its text.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::process::{Background, Finished};

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

impl Kind {
    /// The word for it on the probe's command line.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// What came back of a number of questions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Who answered, by name.
    pub from: BTreeMap<String, u64>,
    /// The client's addresses as the servers saw them.
    pub seen_as: BTreeMap<String, u64>,
    /// The server's addresses as the client saw them.
    pub peers: BTreeMap<String, u64>,
    /// Errors by their names in the kernel's headers.
    pub errors: BTreeMap<String, u64>,
}

impl Answers {
    /// Reads the line that the probe printed.
    ///
    /// # Errors
    /// It is not such a line.
    pub fn parse(text: &str) -> Result<Self> {
        let value: Value =
            serde_json::from_str(text.trim()).with_context(|| format!("not JSON: {text:?}"))?;
        let counts = |key: &str| -> Result<BTreeMap<String, u64>> {
            let object = value[key].as_object().with_context(|| format!("no {key} in {text}"))?;
            Ok(object.iter().map(|(name, count)| (name.clone(), count.as_u64().unwrap_or(0))).collect())
        };
        Ok(Self {
            from: counts("answers")?,
            seen_as: counts("seen_as")?,
            peers: counts("peers")?,
            errors: counts("errors")?,
        })
    }

    /// Runs the program `probe` and reads what it prints.
    pub(crate) fn of(
        probe: &Path,
        kind: Kind,
        target: &str,
        more: &[&str],
        run: impl FnOnce(&[&str]) -> Result<Finished>,
    ) -> Result<Self> {
        let probe = probe.display().to_string();
        let words = [&[probe.as_str(), kind.word(), target], more].concat();
        Self::parse(&run(&words)?.success()?.stdout)
    }

    /// The names of those who answered.
    pub fn names(&self) -> Vec<&str> {
        self.from.keys().map(String::as_str).collect()
    }

    /// Errors if not exactly these answered, each at least once, and nothing went wrong.
    ///
    /// # Errors
    /// Who answered instead.
    pub fn only_from(&self, names: &[&str]) -> Result<()> {
        if self.names() == names && self.errors.is_empty() {
            return Ok(());
        }
        bail!("expected answers from {names:?}, got {:?} and errors {:?}", self.from, self.errors)
    }

    /// Errors if anything but this error came back.
    ///
    /// # Errors
    /// What came back.
    pub fn only_error(&self, error: &str) -> Result<()> {
        if self.from.is_empty() && self.errors.keys().map(String::as_str).eq([error]) {
            return Ok(());
        }
        bail!("expected only {error}, got answers {:?} and errors {:?}", self.from, self.errors)
    }

    /// How uneven the counts are: Pearson's chi-square against equal shares.
    #[expect(clippy::cast_precision_loss, reason = "counts of a test are far below 2^52")]
    pub fn chi_square(&self) -> f64 {
        let total: u64 = self.from.values().sum();
        let expected = total as f64 / self.from.len() as f64;
        self.from.values().map(|&count| (count as f64 - expected).powi(2) / expected).sum()
    }
}

/// One flow that is kept open by a probe.
#[derive(Debug)]
pub struct Flow {
    process: Background,
    /// What getpeername said, by the key that the probe prints it under.
    pub peers: BTreeMap<String, String>,
}

impl Flow {
    /// Takes over a probe that has just been started.
    ///
    /// # Errors
    /// It did not get its connection.
    pub(crate) fn new(mut process: Background) -> Result<Self> {
        let line = process.read_line().context("no flow")?;
        let value: Value = serde_json::from_str(&line)?;
        let peers = value.as_object().context("an object")?;
        let peers =
            peers.iter().map(|(key, peer)| (key.clone(), peer.as_str().unwrap_or_default().to_owned()));
        Ok(Self { peers: peers.collect(), process })
    }

    /// One exchange: who answered, or the error.
    ///
    /// # Errors
    /// The probe has ended.
    pub fn exchange(&mut self) -> Result<Result<String, String>> {
        self.process.write_line("")?;
        let value: Value = serde_json::from_str(&self.process.read_line()?)?;
        Ok(match (value["answer"].as_str(), value["error"].as_str()) {
            (Some(answer), _) => Ok(answer.to_owned()),
            (None, error) => Err(error.unwrap_or_default().to_owned()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_probe_prints_is_read() {
        let line =
            r#"{"answers":{"a":1490,"b":1510},"errors":{},"peers":{"10.96.0.1:80":3000},"seen_as":{}}"#;
        let answers = Answers::parse(line).unwrap();
        answers.only_from(&["a", "b"]).unwrap();
        assert!(answers.only_from(&["a"]).is_err());
        assert!(answers.only_error("ECONNREFUSED").is_err());
        assert!(answers.chi_square() < 0.2);
        assert!(Answers::parse("no JSON").is_err());
    }
}

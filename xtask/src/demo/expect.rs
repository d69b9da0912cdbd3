//! What the demo expects of an answer, and how an answer is shown in one short phrase. Pure.
//!
//! A web server of the demo answers `NAME CLIENT PORT`; dig's answers are lines of text.

use std::collections::{BTreeMap, BTreeSet};

/// What must come back.
pub(crate) enum Expect {
    /// Answers from exactly these servers.
    From(&'static [&'static str]),
    /// Answers from one of these servers alone.
    OneOf(&'static [&'static str]),
    /// Exactly these lines, in any order.
    Lines(Vec<String>),
    /// One line that begins so.
    Prefix(&'static str),
    /// The status of a DNS answer.
    Status(&'static str),
}

impl Expect {
    /// The phrase for a right answer, or what is wrong with it.
    pub(crate) fn judge(&self, text: &str) -> Result<String, String> {
        match self {
            Self::From(names) => {
                let counts = servers(text);
                let wanted: BTreeSet<&str> = names.iter().copied().collect();
                let right = counts.keys().copied().collect::<BTreeSet<_>>() == wanted;
                verdict(right, phrase(&counts, text), &format!("answers from {}", names.join(", ")))
            }
            Self::OneOf(names) => {
                let counts = servers(text);
                let right = counts.len() == 1 && counts.keys().all(|name| names.contains(name));
                verdict(right, phrase(&counts, text), &format!("one of {}", names.join(", ")))
            }
            Self::Lines(lines) => {
                let came: BTreeSet<&str> = text.lines().filter(|line| !line.is_empty()).collect();
                let wanted: BTreeSet<&str> = lines.iter().map(String::as_str).collect();
                let shown = if came.is_empty() { "(no record)".to_owned() } else { join(&came) };
                verdict(came == wanted, shown, &join(&wanted))
            }
            Self::Prefix(prefix) => {
                let line = text.trim();
                verdict(line.starts_with(prefix) && !line.contains('\n'), line.to_owned(), prefix)
            }
            Self::Status(status) => {
                let came = text
                    .split("status: ")
                    .nth(1)
                    .and_then(|rest| rest.split(',').next())
                    .unwrap_or("no answer");
                verdict(came == *status, came.to_owned(), status)
            }
        }
    }
}

fn verdict(right: bool, came: String, wanted: &str) -> Result<String, String> {
    if right { Ok(came) } else { Err(format!("{came}; expected {wanted}")) }
}

fn join(lines: &BTreeSet<&str>) -> String {
    lines.iter().copied().collect::<Vec<_>>().join(" ")
}

/// How often each server answered.
fn servers(text: &str) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for name in text.lines().filter_map(|line| line.split(' ').next()).filter(|name| !name.is_empty()) {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

fn phrase(counts: &BTreeMap<&str, usize>, text: &str) -> String {
    if counts.is_empty() {
        return "nothing".to_owned();
    }
    if text.lines().count() > 1 {
        return counts.iter().map(|(name, count)| format!("{name} x{count}")).collect::<Vec<_>>().join("  ");
    }
    let mut words = text.split_whitespace();
    let name = words.next().unwrap_or_default();
    words.next().map_or_else(|| name.to_owned(), |client| format!("{name} (sees {client})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_counted_and_the_wrong_ones_found() {
        let text = "web-1 10.0.0.1 4000\nweb-2 10.0.0.1 4001\nweb-1 10.0.0.1 4002\n";
        assert_eq!(Expect::From(&["web-1", "web-2"]).judge(text).unwrap(), "web-1 x2  web-2 x1");
        assert!(Expect::From(&["web-1"]).judge(text).is_err());
        assert!(Expect::From(&["web-1", "web-2", "web-3"]).judge(text).is_err());
        assert!(Expect::OneOf(&["web-1", "web-2"]).judge(text).is_err());
        assert_eq!(Expect::OneOf(&["web-1"]).judge("web-1 10.0.0.1 4000").unwrap(), "web-1 (sees 10.0.0.1)");
        assert!(Expect::OneOf(&["web-1"]).judge("").is_err());
    }

    #[test]
    fn records_are_compared_in_any_order() {
        let wanted = || Expect::Lines(vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()]);
        assert!(wanted().judge("10.0.0.2\n10.0.0.1\n").is_ok());
        assert!(wanted().judge("10.0.0.2\n").is_err());
        assert_eq!(Expect::Lines(Vec::new()).judge("").unwrap(), "(no record)");
        assert!(Expect::Lines(Vec::new()).judge("10.0.0.1").is_err());
        assert!(Expect::Prefix("10.96.").judge("10.96.3.4\n").is_ok());
        assert!(Expect::Prefix("10.96.").judge("10.96.3.4\n10.96.3.5\n").is_err());
        assert!(
            Expect::Status("NXDOMAIN")
                .judge(";; ->>HEADER<<- opcode: QUERY, status: NXDOMAIN, id: 5")
                .is_ok()
        );
        assert!(Expect::Status("NXDOMAIN").judge(";; connection timed out").is_err());
    }
}

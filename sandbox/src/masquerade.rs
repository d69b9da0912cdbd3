//! The one nftables table `fairway`: pods that leave the cluster get the node's address, and packets of the
//! cluster's DNS are not tracked. A rule per range, never per pod. Acts on the network namespace of the calling
//! thread. Until the packet engine masquerades, and where it is off.

use std::net::IpAddr;

use ipnet::IpNet;

use crate::netlink::NetlinkError;
use crate::netlink::netfilter::{Chain, Hook, Netfilter, Rule, Side, Table, Verdict};

const NAME: &str = "fairway";

/// Whose source is translated, and when not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Masquerade {
    /// The ranges of this node's pods; none where the packet engine translates them.
    pub pods: Vec<IpNet>,
    /// Where pods go with their own address, beside the ranges above: the pods of other nodes, the nodes
    /// (this one's addresses too), configured ranges.
    pub direct: Vec<IpNet>,
    /// The addresses of the cluster's DNS on this node.
    pub dns: Vec<IpAddr>,
}

impl Masquerade {
    /// Makes the table say this; true if it did not already.
    pub fn apply(&self) -> Result<bool, NetlinkError> {
        let table = self.table();
        let kernel = Netfilter::open()?;
        if kernel.rules(NAME)? == comments(&table) {
            return Ok(false);
        }
        kernel.replace(&table)?;
        Ok(true)
    }

    /// The table holds exactly this.
    pub fn is_applied(&self) -> Result<bool, NetlinkError> {
        Ok(Netfilter::open()?.rules(NAME)? == comments(&self.table()))
    }

    fn table(&self) -> Table {
        let mut direct: Vec<IpNet> = self.pods.iter().chain(&self.direct).map(IpNet::trunc).collect();
        // Overlapping ranges are fine; a repeated one is only longer to read.
        direct.sort();
        direct.dedup();
        let rule = |side, range, verdict| Rule { side, range, verdict };
        let stays = direct.into_iter().map(|range| rule(Side::Destination, range, Verdict::Return));
        let leaves = self.pods.iter().map(|range| rule(Side::Source, range.trunc(), Verdict::Masquerade));
        let untracked = |side| {
            let range = move |address: &IpAddr| rule(side, IpNet::from(*address), Verdict::Untracked);
            self.dns.iter().map(range)
        };
        let questions: Vec<Rule> = untracked(Side::Destination).collect();
        let both = questions.iter().copied().chain(untracked(Side::Source)).collect();
        let mut chains = vec![
            // Every packet of the node passes here, so there are no rules for answers: they are made on the node.
            Chain { name: "prerouting", hook: Hook::RawPrerouting, rules: questions },
            Chain { name: "output", hook: Hook::RawOutput, rules: both },
        ];
        // A chain of this kind makes the kernel track connections, even without a rule in it.
        if !self.pods.is_empty() {
            let rules = stays.chain(leaves).collect();
            chains.push(Chain { name: "postrouting", hook: Hook::SourceNat, rules });
        }
        Table { name: NAME, chains }
    }
}

/// Removes the table. Fine if it is not there.
pub fn remove_masquerade() -> Result<(), NetlinkError> {
    Netfilter::open()?.remove(NAME)
}

fn comments(table: &Table) -> Vec<(String, String)> {
    let rules = table.chains.iter().flat_map(|chain| chain.rules.iter().map(move |rule| (chain.name, rule)));
    rules.map(|(chain, rule)| (chain.to_owned(), rule.comment())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_masquerade_rule_a_range_behind_all_exceptions() {
        let table = Masquerade {
            pods: vec!["10.1.0.5/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
            direct: vec![
                "10.0.0.0/8".parse().unwrap(),
                "192.0.2.7/32".parse().unwrap(),
                "10.0.0.0/8".parse().unwrap(),
            ],
            dns: vec!["10.96.0.10".parse().unwrap()],
        };
        let lines: Vec<String> =
            comments(&table.table()).into_iter().map(|(chain, rule)| format!("{chain}: {rule}")).collect();
        let expected = [
            "prerouting: to 10.96.0.10/32 untracked",
            "output: to 10.96.0.10/32 untracked",
            "output: from 10.96.0.10/32 untracked",
            "postrouting: to 10.0.0.0/8 as it is",
            "postrouting: to 10.1.0.0/24 as it is",
            "postrouting: to 192.0.2.7/32 as it is",
            "postrouting: to fd00:1::/64 as it is",
            "postrouting: from 10.1.0.0/24 masqueraded",
            "postrouting: from fd00:1::/64 masqueraded",
        ];
        assert_eq!(lines, expected);
    }
}

//! What the stepper has reported of services, so that each problem is told once: in the log, and to whoever looks
//! at the service. It decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use model::{Kind, ObjectName};
use proxy::Conflict;

use crate::notice::{Notice, Notices, Subject};

/// The problems that stand, as they were told.
#[derive(Debug)]
pub struct Reported {
    notices: Notices,
    unprogrammed: BTreeMap<ObjectName, String>,
    conflicts: BTreeSet<Conflict>,
    sctp: BTreeSet<ObjectName>,
}

impl Reported {
    /// Nothing has been told.
    pub(crate) fn new(notices: &Notices) -> Self {
        Self {
            notices: notices.clone(),
            unprogrammed: BTreeMap::new(),
            conflicts: BTreeSet::new(),
            sctp: BTreeSet::new(),
        }
    }

    /// Tells what was not there before: services without room, claims that lost (R18), SCTP ports (R15).
    pub(crate) fn say<'a>(
        &mut self,
        unprogrammed: &BTreeMap<ObjectName, String>,
        conflicts: &[Conflict],
        sctp: impl Iterator<Item = &'a ObjectName>,
    ) {
        for (service, reason) in unprogrammed {
            if self.unprogrammed.get(service) != Some(reason) {
                tracing::warn!(%service, reason, "not programmed; its name answers SERVFAIL until there is room");
                let note = format!("not programmed on this node, so its name answers SERVFAIL: {reason}");
                self.tell(Subject::ObjectHere(Kind::Service, service.clone()), "NoRoom", note);
            }
        }
        for conflict in conflicts {
            if !self.conflicts.contains(conflict) {
                let Conflict { frontend, winner, loser } = conflict;
                tracing::warn!(%frontend, %winner, %loser, "claimed twice; the older service has it");
                let note = format!("{frontend} is taken by the older service {winner}");
                self.tell(Subject::Object(Kind::Service, loser.clone()), "ClaimLost", note);
            }
        }
        let sctp: BTreeSet<ObjectName> = sctp.cloned().collect();
        for service in sctp.difference(&self.sctp) {
            tracing::warn!(%service, "its SCTP ports are not programmed; their names are answered");
            let note = "SCTP ports are not programmed; their DNS records exist".to_owned();
            self.tell(Subject::Object(Kind::Service, service.clone()), "ProtocolNotSupported", note);
        }
        self.unprogrammed.clone_from(unprogrammed);
        self.conflicts = conflicts.iter().cloned().collect();
        self.sctp = sctp;
    }

    fn tell(&self, subject: Subject, reason: &'static str, note: String) {
        self.notices.tell(Notice { subject, reason, note });
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;
    use model::Protocol;
    use proxy::Frontend;

    use super::*;

    /// What was told since the last time.
    fn told(notices: &Notices) -> Vec<(&'static str, String)> {
        let next = || notices.next().now_or_never();
        std::iter::from_fn(next).map(|notice| (notice.reason, notice.note)).collect()
    }

    #[test]
    fn a_contradiction_is_told_once_for_as_long_as_it_stands() {
        let notices = Notices::default();
        let mut reported = Reported::new(&notices);
        let name = |name: &str| ObjectName::new("shop", name);
        let frontend = Frontend::new([192, 0, 2, 10].into(), 30_080, Protocol::Tcp);
        let conflict = Conflict { frontend, winner: name("old"), loser: name("young") };
        let full = BTreeMap::from([(name("large"), "the map backends is full".to_owned())]);
        let sctp = [name("phone")];
        for _ in 0..3 {
            reported.say(&full, std::slice::from_ref(&conflict), sctp.iter());
        }
        let once = told(&notices);
        let reasons: Vec<_> = once.iter().map(|(reason, _)| *reason).collect();
        assert_eq!(reasons, ["NoRoom", "ClaimLost", "ProtocolNotSupported"]);
        assert_eq!(once[1].1, "192.0.2.10:30080/TCP is taken by the older service shop/old");

        // Another reason is news, and so is what went and came back; what stands beside it is not.
        let other = BTreeMap::from([(name("large"), "the map slots is full".to_owned())]);
        reported.say(&other, &[], sctp.iter());
        reported.say(&other, &[conflict], sctp.iter());
        let reasons: Vec<_> = told(&notices).into_iter().map(|(reason, _)| reason).collect();
        assert_eq!(reasons, ["NoRoom", "ClaimLost"]);
    }
}

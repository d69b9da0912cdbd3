//! R18: two services that claim one frontend. The older wins, by creation time and then by name; the other is
//! remembered, reported, and takes over when the winner goes. Only contested frontends take room here.

use std::collections::BTreeMap;

use foldhash::HashMap;
use model::ObjectName;

use crate::tables::{Frontend, ServiceKey};

/// The order of claimants: creation time, then name.
pub(crate) type Rank = (i64, ObjectName);

/// Frontends that more than one service claims, with every claim.
#[derive(Clone, Debug, Default)]
pub(crate) struct Claims(HashMap<Frontend, BTreeMap<Rank, (ServiceKey, u16)>>);

/// A frontend that two services claim.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// What both claim.
    pub frontend: Frontend,
    /// The service that has it.
    pub winner: ObjectName,
    /// The service that does not.
    pub loser: ObjectName,
}

impl Claims {
    /// Adds a claim where there are others, or where `owner` has the frontend. The winner, if it was
    /// contested.
    pub(crate) fn add(
        &mut self,
        frontend: Frontend,
        rank: Rank,
        claim: (ServiceKey, u16),
        owner: Option<(Rank, (ServiceKey, u16))>,
    ) -> Option<(ServiceKey, u16)> {
        if owner.is_none() && !self.0.contains_key(&frontend) {
            return None;
        }
        let claims = self.0.entry(frontend).or_default();
        claims.extend(owner);
        claims.insert(rank, claim);
        claims.first_key_value().map(|(_, winner)| winner.clone())
    }

    /// Takes a claim back. The winner among the rest, if it was contested.
    pub(crate) fn remove(&mut self, frontend: Frontend, rank: &Rank) -> Option<(ServiceKey, u16)> {
        let claims = self.0.get_mut(&frontend)?;
        claims.remove(rank);
        let winner = claims.first_key_value().map(|(_, winner)| winner.clone());
        if claims.len() < 2 {
            self.0.remove(&frontend);
        }
        winner
    }

    /// Every claim that lost, in order.
    pub(crate) fn conflicts(&self) -> Vec<Conflict> {
        let mut conflicts: Vec<Conflict> = self
            .0
            .iter()
            .flat_map(|(&frontend, claims)| {
                let winner = claims.keys().next().map(|(_, name)| name.clone());
                let losers = claims.keys().skip(1);
                losers.filter_map(move |(_, loser)| {
                    Some(Conflict { frontend, winner: winner.clone()?, loser: loser.clone() })
                })
            })
            .collect();
        conflicts.sort_unstable();
        conflicts
    }
}

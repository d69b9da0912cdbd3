//! The plan: `(Snapshot, Facts) -> Tables`. The planner keeps the last plan and replans only the services
//! that differ; the result is the same as that of a fresh one. Pure: no clock, no I/O, no logging.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use foldhash::{HashMap, HashMapExt};
use ipnet::IpNet;
use model::{Member, Name, ObjectName, Snapshot};

use crate::claims::{Claims, Conflict, Rank};
use crate::contribution::{Contribution, Skip, contribute, skip};
use crate::health::HealthPorts;
use crate::tables::{Frontend, ServiceKey, Tables, Target};

/// What this node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its name.
    pub name: Name,
    /// Its zone.
    pub zone: Option<Name>,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Where node ports answer (R16), besides loopback.
    pub node_port_addresses: Vec<IpAddr>,
    /// The addresses on which the daemon answers names itself.
    pub cluster_dns: Vec<IpAddr>,
}

/// The planner and its last plan.
#[derive(Clone, Debug)]
pub struct Planner {
    facts: Facts,
    snapshot: Arc<Snapshot>,
    tables: Tables,
    claims: Claims,
    /// How many services own each address.
    owners: HashMap<IpAddr, u32>,
    health_ports: HealthPorts,
    /// Who may use guarded frontends, by service port.
    sources: BTreeMap<ServiceKey, Vec<IpNet>>,
    skipped: BTreeMap<Skip, u64>,
    /// Services with SCTP ports, which are reported once.
    sctp: BTreeSet<ObjectName>,
}

impl Planner {
    /// A planner that has planned nothing.
    pub fn new(facts: Facts) -> Self {
        Self {
            facts,
            snapshot: Arc::default(),
            tables: Tables::default(),
            claims: Claims::default(),
            owners: HashMap::new(),
            health_ports: HealthPorts::default(),
            sources: BTreeMap::new(),
            skipped: BTreeMap::new(),
            sctp: BTreeSet::new(),
        }
    }

    /// Plans `snapshot`; costs what changed since the last one, or everything if the facts did.
    pub fn update(&mut self, snapshot: &Arc<Snapshot>, facts: &Facts) -> &Tables {
        if self.facts != *facts {
            *self = Self::new(facts.clone());
        }
        let old = std::mem::replace(&mut self.snapshot, Arc::clone(snapshot));
        // All that goes is taken out before anything comes, so that a frontend may change hands.
        let mut changed = Vec::new();
        for (old, new) in snapshot.changed_since(&old).filter_map(|change| Some((change.old?, change.new))) {
            let after = new.map(|member| (member, contribute(member, &self.facts)));
            let kept = after.as_ref().filter(|(new, _)| new.service.created == old.service.created);
            self.withdraw(old, kept.map(|(_, contribution)| contribution));
            changed.extend(after);
        }
        for (member, contribution) in changed {
            self.add(member, contribution);
        }
        for new in
            snapshot.changed_since(&old).filter_map(|change| change.new.filter(|_| change.old.is_none()))
        {
            self.add(new, contribute(new, &self.facts));
        }
        &self.tables
    }

    /// The last plan.
    pub const fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The snapshot that was planned last.
    pub const fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// What this node is.
    pub const fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Every claim that lost (R18).
    pub fn conflicts(&self) -> Vec<Conflict> {
        self.claims.conflicts()
    }

    /// The health-check node ports to serve (R7).
    pub const fn health_ports(&self) -> &HealthPorts {
        &self.health_ports
    }

    /// Who may use the guarded frontends of each service port (R13).
    pub(crate) const fn sources(&self) -> &BTreeMap<ServiceKey, Vec<IpNet>> {
        &self.sources
    }

    /// How many services are left out, by reason (R15).
    pub const fn skipped(&self) -> &BTreeMap<Skip, u64> {
        &self.skipped
    }

    /// The services with SCTP ports, which are not programmed (R15).
    pub fn sctp(&self) -> impl Iterator<Item = &ObjectName> {
        self.sctp.iter()
    }

    /// Takes out what `member` had, but for what stays in `kept` as well.
    fn withdraw(&mut self, member: &Member, kept: Option<&Contribution>) {
        let had = contribute(member, &self.facts);
        let name = &member.service.name;
        let rank = (member.service.created, name.clone());
        for (frontend, claim) in &had.frontends {
            if kept.is_some_and(|kept| kept.frontends.get(frontend) == Some(claim)) {
                continue;
            }
            self.unclaim(*frontend, &rank);
        }
        for key in had.services.keys() {
            if !kept.is_some_and(|kept| kept.services.contains_key(key)) {
                self.tables.services.remove(key);
            }
        }
        for key in had.sources.keys() {
            self.sources.remove(key);
        }
        for &ip in &had.owned {
            self.disown(ip);
        }
        if let Some(reason) = had.skipped
            && let Some(count) = self.skipped.get_mut(&reason)
        {
            *count -= 1;
        }
        if had.sctp {
            self.sctp.remove(name);
        }
        if kept.is_none_or(|kept| kept.health != had.health) {
            self.health_ports.remove(name);
        }
    }

    fn add(&mut self, member: &Member, contribution: Contribution) {
        let name = &member.service.name;
        let rank = (member.service.created, name.clone());
        for (key, block) in contribution.services {
            if self.tables.services.get(&key) != Some(&block) {
                self.tables.services.insert(key, block);
            }
        }
        for (frontend, claim) in contribution.frontends {
            self.claim(frontend, &rank, claim);
        }
        self.sources.extend(contribution.sources);
        for ip in contribution.owned {
            self.own(ip);
        }
        if let Some(reason) = contribution.skipped {
            *self.skipped.entry(reason).or_default() += 1;
        }
        if contribution.sctp {
            self.sctp.insert(name.clone());
        }
        // What is as it was is not touched: whoever compares two of these sees that they are one.
        if let Some(port) = contribution.health
            && self.health_ports.get(name) != Some(&port)
        {
            self.health_ports.insert(name.clone(), port);
        }
    }

    fn claim(&mut self, frontend: Frontend, rank: &Rank, claim: (ServiceKey, u16)) {
        let owner = match self.tables.frontends.get(&frontend) {
            Some(Target::Service(key, flags)) if key.name == rank.1 => {
                if *key == claim.0 && *flags == claim.1 {
                    return;
                }
                None
            }
            Some(Target::Service(key, flags)) => Some((self.rank(&key.name), (key.clone(), *flags))),
            Some(Target::Refuse) | None => None,
        };
        let winner = self.claims.add(frontend, rank.clone(), claim.clone(), owner);
        let (key, flags) = winner.unwrap_or(claim);
        self.tables.frontends.insert(frontend, Target::Service(key, flags));
    }

    fn unclaim(&mut self, frontend: Frontend, rank: &Rank) {
        match self.claims.remove(frontend, rank) {
            Some((key, flags)) => {
                self.tables.frontends.insert(frontend, Target::Service(key, flags));
            }
            None => {
                self.tables.frontends.remove(&frontend);
            }
        }
    }

    /// The rank of a service that is in the snapshot being planned.
    fn rank(&self, name: &ObjectName) -> Rank {
        let created = self.snapshot.services.get(name).map_or(0, |member| member.service.created);
        (created, name.clone())
    }

    fn own(&mut self, ip: IpAddr) {
        let owners = self.owners.entry(ip).or_default();
        *owners += 1;
        if *owners == 1 {
            self.tables.frontends.insert(Frontend::any_port(ip), Target::Refuse);
        }
    }

    fn disown(&mut self, ip: IpAddr) {
        let Some(owners) = self.owners.get_mut(&ip) else { return };
        *owners -= 1;
        if *owners == 0 {
            self.owners.remove(&ip);
            self.tables.frontends.remove(&Frontend::any_port(ip));
        }
    }
}

/// Whether this node programs the cluster IPs of `service`: only such names wait for "grown".
pub fn is_programmed(service: &model::Service) -> bool {
    skip(service).is_none()
}

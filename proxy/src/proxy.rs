//! The proxy of a node: planner, current state and kernel, held together for the daemon. It grows and shrinks
//! when told; it has no task and no timer of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use ipnet::IpNet;
use model::{Name, ObjectName, Snapshot};

use crate::adopt::adopt;
use crate::claims::Conflict;
use crate::counted::Counted;
use crate::counts::Counts;
use crate::current::{Current, Sizes};
use crate::dataplane::{DataplaneError, Heartbeat, Kernel};
use crate::diff::{Growth, What, shrink};
use crate::explain::{Explanation, explain};
use crate::layouts::Overwrite;
use crate::op::OpCounts;
use crate::packets::{self, LinkPath, Packets, Surroundings, Sweeper};
use crate::plan::{Facts, Planner};
use crate::probe::{Probe, is_probe};
use crate::programs::{ProgramError, Programs};
use crate::sockets::{Connections, Ended, Terminator};
use crate::sys;
use crate::tables::{Frontend, Tables};

mod examine;
mod traffic;

pub use examine::Finding;
pub use traffic::{BackendState, Traffic};

use examine::Cursor;

/// The layout of the maps that this version makes.
pub const LAYOUT: u32 = ebpf::maps::LAYOUT_NUMBER;

/// What the proxy has to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cgroup v2 directory whose sockets are balanced.
    pub cgroup: PathBuf,
    /// Where maps and links are pinned.
    pub bpf_dir: PathBuf,
    /// The name of this node.
    pub node_name: Name,
    /// The addresses of this node; empty for the primary addresses of the Node.
    pub node_addresses: Vec<IpAddr>,
    /// Where node ports answer; None for the addresses of this node (R16).
    pub node_port_addresses: Option<Vec<IpAddr>>,
    /// The addresses on which the daemon answers names itself.
    pub cluster_dns: Vec<IpAddr>,
    /// The sizes of maps that are made anew.
    pub sizes: Sizes,
    /// The layout of the maps: [`LAYOUT`], unless a test plays another version.
    pub layout: u32,
    /// Whether TCP connections through a frontend to a pod that is gone are ended.
    pub end_tcp: bool,
    /// How the packet engine is attached to the uplinks; None where it is off.
    pub packets: Option<LinkPath>,
    /// Whether what arrives at an uplink and is translated goes on past the host's stack.
    pub redirect: bool,
}

/// Why the proxy cannot work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The programs.
    #[error(transparent)]
    Programs(#[from] ProgramError),
    /// The maps.
    #[error(transparent)]
    Maps(#[from] DataplaneError),
    /// The cookie of the network namespace.
    #[error("the cookie of this network namespace cannot be read: {0}; it needs Linux 5.14")]
    Cookie(std::io::Error),
    /// membarrier(2).
    #[error("membarrier is refused by this kernel: {0}; it needs CONFIG_MEMBARRIER")]
    Barrier(std::io::Error),
    /// The thread that ends sockets.
    #[error("the thread that ends sockets cannot be started: {0}")]
    Terminator(std::io::Error),
}

/// What one [`Proxy::grow`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Operations applied.
    pub ops: usize,
    /// Services that could not be programmed as they should be, with the reason.
    pub unprogrammed: BTreeMap<ObjectName, String>,
    /// Claims that lost (R18).
    pub conflicts: Vec<Conflict>,
    /// False if nothing was done because the first lists are not complete (R10).
    pub complete: bool,
}

/// The proxy of a node.
pub struct Proxy {
    config: Config,
    programs: Programs,
    /// None where the packet engine is off.
    packets: Option<Packets>,
    kernel: Kernel,
    planner: Planner,
    /// None until the first complete snapshot gives names to what is in the maps.
    current: Option<Current>,
    ops: OpCounts,
    counts: Counts,
    terminator: Terminator,
    probe: Probe,
    cursor: Cursor,
    /// What the self-check put right, by what it was.
    repairs: BTreeMap<&'static str, u64>,
}

impl Proxy {
    /// Loads and attaches the programs in the network namespace of this thread, which is the node's. What is
    /// pinned keeps working all the while.
    ///
    /// # Errors
    ///
    /// One sentence that says what to do; nothing is attached that was not before.
    pub fn open(config: Config) -> Result<Self, Error> {
        let node_netns = sys::netns_cookie().map_err(Error::Cookie)?;
        let mut programs = Programs::load(&config, node_netns)?;
        // The links of packets are in no layout's directory: a new layout takes them over without a gap.
        let packets = if let Some(path) = config.packets {
            Some(Packets::load(programs.maps(), config.bpf_dir.clone(), path)?)
        } else {
            let failed = |error| ProgramError::Pins { path: config.bpf_dir.clone(), error };
            packets::detach(&config.bpf_dir).map_err(failed)?;
            None
        };
        // Every program is loaded by now: some maps are closed once they have been looked at.
        let kernel = Kernel::open(programs.maps())?;
        if !programs.is_upgrade() {
            programs.attach()?;
        }
        // A hook may still hold what the process before this one freed last.
        sys::barrier().map_err(Error::Barrier)?;
        let maps = programs.socket_maps();
        let terminator = maps.and_then(|maps| Terminator::start(maps, config.end_tcp));
        let terminator = terminator.map_err(Error::Terminator)?;
        let probe = Probe::open(&config.cgroup);
        let planner = Planner::new(Facts {
            name: config.node_name.clone(),
            zone: None,
            addresses: config.node_addresses.clone(),
            node_port_addresses: config.node_port_addresses.clone().unwrap_or_default(),
            cluster_dns: config.cluster_dns.clone(),
        });
        Ok(Self {
            config,
            programs,
            packets,
            kernel,
            planner,
            current: None,
            ops: OpCounts::default(),
            counts: Counts::default(),
            terminator,
            probe,
            cursor: Cursor::default(),
            repairs: BTreeMap::new(),
        })
    }

    /// Makes the kernel serve everything that `snapshot` asks for. Takes nothing away.
    pub fn grow(&mut self, snapshot: &Arc<Snapshot>, now: Instant) -> Outcome {
        if !snapshot.is_complete() {
            return Outcome::default();
        }
        let facts = self.facts(snapshot);
        let before = Arc::clone(self.planner.snapshot());
        self.planner.update(snapshot, &facts);
        let desired = self.desired();
        let outcome = self.bring(&desired, now);
        self.programs.keep();
        if self.programs.is_upgrade() {
            match self.upgrade(&desired) {
                Ok(()) => self.leave_older(),
                Err(error) => {
                    tracing::error!(%error, "the upgrade is not complete; the next change goes on with it");
                }
            }
        }
        self.terminator.follow(&before, snapshot, &desired);
        outcome
    }

    /// What the last plan wants, and what this process wants for itself.
    fn desired(&self) -> Tables {
        let mut desired = self.planner.tables().clone();
        self.probe.add_to(&mut desired);
        desired
    }

    /// Lets the programs of this layout take over from those of an older one: its maps are filled now.
    fn upgrade(&mut self, desired: &Tables) -> Result<(), Error> {
        let Some(current) = &self.current else { return Ok(()) };
        self.programs.layouts().carry(desired, current, Overwrite::Yes)?;
        self.programs.attach()?;
        // What the older programs added since.
        Ok(self.programs.layouts().carry(desired, current, Overwrite::No)?)
    }

    /// What is left to do once the programs of this layout serve; whatever fails of it, they do.
    fn leave_older(&mut self) {
        if let Err(error) = self.programs.layouts().forget_older() {
            tracing::warn!(%error, "the maps of the older version cannot be removed and keep their memory");
        }
        if let Some(to) = self.packets.as_mut().and_then(Packets::take_postponed)
            && let Err(error) = self.surround(&to)
        {
            tracing::warn!(%error, "services are not served at every link");
        }
    }

    /// Writes what differs from `desired`.
    fn bring(&mut self, desired: &Tables, now: Instant) -> Outcome {
        let current = self.current.get_or_insert_with(|| adopt(&self.kernel, desired));
        let mut counted = Counted::new(&mut self.kernel, &mut self.counts, &mut self.ops);
        let mut growth = Growth::new(current, &mut counted);
        growth.place_services(desired);
        // Who may use a frontend is in the kernel before the frontend is.
        let sources = sources(&self.planner, growth.current());
        let put = self.packets.as_mut().map_or(Ok(()), |packets| packets.grow_sources(&sources));
        let unfit = growth.lead_frontends(desired, now);
        let mut outcome = Outcome {
            ops: counted.applied,
            conflicts: self.planner.conflicts(),
            complete: true,
            ..Outcome::default()
        };
        outcome.unprogrammed.extend(unfit.into_iter().map(|unfit| (blame(&unfit.what), unfit.why)));
        outcome.unprogrammed.retain(|name, _| !is_probe(name));
        self.counts.sweep(current);
        let put = put
            .and_then(|()| self.packets.as_mut().map_or(Ok(()), |packets| packets.shrink_sources(&sources)));
        if let Err(error) = put {
            tracing::warn!(%error, "source ranges are not in the kernel as they should be");
        }
        outcome
    }

    /// Takes away what has not been wanted for long enough. When to call again, if something is left.
    pub fn shrink(&mut self, now: Instant) -> Option<Instant> {
        let current = self.current.as_mut()?;
        let next = shrink(current, now, &mut Counted::new(&mut self.kernel, &mut self.counts, &mut self.ops));
        self.counts.sweep(current);
        next
    }

    /// The handle that tells the hooks that the daemon answers names.
    pub fn heartbeat(&self) -> Heartbeat {
        self.kernel.heartbeat()
    }

    /// What is in the kernel, by name.
    pub fn tables(&self) -> Tables {
        let mut tables = self.current.as_ref().map(|current| current.tables().clone()).unwrap_or_default();
        Probe::remove_from(&mut tables);
        tables
    }

    /// Explains a frontend by the last snapshot that was planned.
    pub fn explain(&self, frontend: &Frontend) -> Explanation {
        explain(self.planner.tables(), self.planner.snapshot(), self.planner.facts(), frontend)
    }

    /// The planner, for what it knows beside the tables.
    pub const fn planner(&self) -> &Planner {
        &self.planner
    }

    /// The kernel's maps.
    pub const fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// Operations applied so far, by kind.
    pub const fn ops(&self) -> &OpCounts {
        &self.ops
    }

    /// What was ended because its endpoint is gone (R9).
    pub fn ended(&self) -> Ended {
        self.terminator.ended()
    }

    /// Has the sockets looked at whose pod may be gone: a port of the node was given back. What is stale ends soon.
    pub fn look_at_sockets(&self) {
        self.terminator.look(self.planner.snapshot(), self.planner.tables());
    }

    /// The handle that lists the connections through frontends.
    pub fn connections(&self) -> Connections {
        self.terminator.connections()
    }

    /// What the self-check put right so far, by what it was.
    pub const fn repairs(&self) -> &BTreeMap<&'static str, u64> {
        &self.repairs
    }

    /// Brings the packet engine to the links that the node has now; during an upgrade once the maps are filled.
    /// Nothing happens where it is off.
    ///
    /// # Errors
    ///
    /// One sentence.
    pub fn surround(&mut self, to: &Surroundings) -> Result<(), Error> {
        let Some(packets) = &mut self.packets else { return Ok(()) };
        if self.programs.is_upgrade() {
            packets.postpone(to);
            return Ok(());
        }
        Ok(packets.surround(self.programs.maps(), to)?)
    }

    /// The handle that sweeps the flows of the packet engine, for a thread of its own. None where the engine is
    /// off. To be asked once.
    ///
    /// # Errors
    ///
    /// The map that is not as it should be.
    pub fn sweeper(&mut self) -> Result<Option<Sweeper>, Error> {
        if self.packets.is_none() {
            return Ok(None);
        }
        Ok(Some(packets::sweeper(self.programs.maps(), self.kernel.closing())?))
    }

    /// How the packet programs are attached; None where the engine is off.
    pub fn link_path(&self) -> Option<LinkPath> {
        self.packets.as_ref().map(Packets::path)
    }

    /// Ends this process' part. The kernel goes on with what it has; the heartbeat ends with who beats.
    pub fn close(self) {
        drop(self);
    }

    fn facts(&self, snapshot: &Snapshot) -> Facts {
        let node = snapshot.nodes.get(&self.config.node_name);
        let addresses = if self.config.node_addresses.is_empty() {
            node.map(|node| node.primary_addresses().collect()).unwrap_or_default()
        } else {
            self.config.node_addresses.clone()
        };
        Facts {
            name: self.config.node_name.clone(),
            zone: node.and_then(|node| node.zone.clone()),
            node_port_addresses: self.config.node_port_addresses.clone().unwrap_or_else(|| addresses.clone()),
            addresses,
            cluster_dns: self.config.cluster_dns.clone(),
        }
    }
}

/// Who may use guarded frontends, by service id.
fn sources(planner: &Planner, current: &Current) -> Vec<(u32, IpNet)> {
    let ids = planner.sources().iter().filter_map(|(key, nets)| Some((current.service_id(key)?, nets)));
    ids.flat_map(|(id, nets)| nets.iter().map(move |net| (id, *net))).collect()
}

fn blame(what: &What) -> ObjectName {
    match what {
        What::Service(key) => key.name.clone(),
        What::Frontend(_, Some(key)) => key.name.clone(),
        What::Frontend(frontend, None) => ObjectName::cluster_scoped(frontend.to_string()),
    }
}

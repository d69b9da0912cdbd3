//! The packet engine as user space has it: the programs at the uplinks, what they are told of the node's
//! surroundings, and the sweep of flows that ended. Told by the daemon, which knows links and nodes; it never
//! looks for itself.

mod flows;
mod links;
mod sources;
mod surroundings;
mod sys;
mod uplinks;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use aya::Ebpf;
use aya::maps::MapData;
use aya::maps::lpm_trie::{Key, LpmTrie};
use aya::programs::SchedClassifier;
use ebpf::address::Address;
use ebpf::maps;
use ebpf::packet::uplink::range;
use ipnet::IpNet;

pub use flows::{FlowCounts, Sweeper};
pub use links::Path as LinkPath;
pub use surroundings::{Surroundings, Uplink};

use self::links::Links;
use self::sources::Sources;
use self::uplinks::Uplinks;
use crate::dataplane::{Closing, DataplaneError};
use crate::programs::{ProgramError, sentence};

/// The programs, in the order of [`links::Side`].
const PROGRAMS: [&str; 2] = ["packet_arrive", "packet_leave"];
const BPF_ANY: u64 = 0;
/// Bits that an IPv4 prefix has more in the form of 16 bytes.
const MAPPED: u32 = 96;

/// The packet engine.
pub(crate) struct Packets {
    links: Links,
    uplinks: Uplinks,
    ranges: LpmTrie<MapData, [u8; 16], u32>,
    sources: Sources,
    /// Where to go once the maps are filled.
    postponed: Option<Surroundings>,
    /// What is in `ranges`: None before the first time, when an earlier process may have left something.
    told: Option<BTreeMap<(u32, [u8; 16]), u32>>,
}

impl Packets {
    /// Loads the programs; attaches nothing.
    pub(crate) fn load(ebpf: &mut Ebpf, folder: PathBuf, path: LinkPath) -> Result<Self, ProgramError> {
        for name in PROGRAMS {
            let loaded = program(ebpf, name)?.load();
            loaded.map_err(|error| ProgramError::Load(sentence(&error)))?;
        }
        let open = |error: DataplaneError| ProgramError::Load(error.to_string());
        let ranges = take(ebpf, maps::RANGES).map_err(open)?;
        Ok(Self {
            links: Links::new(folder, path),
            uplinks: Uplinks::open(ebpf).map_err(open)?,
            ranges: LpmTrie::try_from(ranges).map_err(|error| ProgramError::Load(sentence(&error)))?,
            sources: Sources::open(ebpf).map_err(open)?,
            postponed: None,
            told: None,
        })
    }

    /// How programs are attached here.
    pub(crate) const fn path(&self) -> LinkPath {
        self.links.path()
    }

    /// Tells the programs where they are, and attaches them to every uplink and to no other link.
    pub(crate) fn surround(&mut self, ebpf: &mut Ebpf, to: &Surroundings) -> Result<(), ProgramError> {
        let failed = |what| move |error: io::Error| ProgramError::Load(format!("{what}: {error}"));
        self.set_ranges(to).map_err(failed("the map ranges"))?;
        self.uplinks.tell(to).map_err(failed("the map uplinks"))?;
        self.links.attach(ebpf, &to.uplinks)
    }

    /// Keeps the surroundings for later: while an older layout serves, these programs have nothing to serve from.
    pub(crate) fn postpone(&mut self, to: &Surroundings) {
        self.postponed = Some(to.clone());
    }

    /// What was kept.
    pub(crate) const fn take_postponed(&mut self) -> Option<Surroundings> {
        self.postponed.take()
    }

    /// Before frontends change: whoever may use the service of an id.
    pub(crate) fn grow_sources(&mut self, wanted: &[(u32, IpNet)]) -> io::Result<()> {
        self.sources.grow(wanted)
    }

    /// After frontends changed: nobody else.
    pub(crate) fn shrink_sources(&mut self, wanted: &[(u32, IpNet)]) -> io::Result<()> {
        self.sources.shrink(wanted)
    }

    fn set_ranges(&mut self, to: &Surroundings) -> io::Result<()> {
        let wanted = ranges(to);
        let known = match self.told.take() {
            Some(told) => told,
            None => {
                self.ranges.iter().filter_map(Result::ok).map(|(key, flags)| (parts(&key), flags)).collect()
            }
        };
        for (key, flags) in wanted.iter().filter(|(key, flags)| known.get(*key) != Some(*flags)) {
            self.ranges.insert(&Key::new(key.0, key.1), flags, BPF_ANY).map_err(io::Error::other)?;
        }
        for key in known.keys().filter(|key| !wanted.contains_key(*key)) {
            self.ranges.remove(&Key::new(key.0, key.1)).map_err(io::Error::other)?;
        }
        self.told = Some(wanted);
        Ok(())
    }
}

/// Detaches the programs of an earlier process.
pub(crate) fn detach(folder: &Path) -> io::Result<()> {
    links::remove_filters(&BTreeSet::new());
    links::unpin(folder, &[])
}

/// The handle that sweeps the flows, for a thread of its own.
pub(crate) fn sweeper(ebpf: &mut Ebpf, closing: Closing) -> Result<Sweeper, DataplaneError> {
    Sweeper::open(ebpf, closing)
}

/// What the kernel holds of the ranges. A prefix inherits what a shorter one says, because only the longest is
/// found.
fn ranges(to: &Surroundings) -> BTreeMap<(u32, [u8; 16]), u32> {
    let pods = to.pods.iter().map(|net| (*net, range::POD));
    let direct = to.direct.iter().map(|net| (*net, range::DIRECT));
    let own = to.own.iter().map(|ip| (IpNet::from(*ip), range::NODE));
    let told: Vec<(IpNet, u32)> = pods.chain(direct).chain(own).collect();
    let mut all = BTreeMap::new();
    for (net, _) in &told {
        let covers = |(other, _): &&(IpNet, u32)| other.contains(net);
        let flags = told.iter().filter(covers).fold(0, |flags, (_, more)| flags | more);
        let bits = u32::from(net.prefix_len()) + if net.addr().is_ipv4() { MAPPED } else { 0 };
        all.insert((bits, Address::from(net.network()).bytes()), flags);
    }
    all
}

fn parts(key: &Key<[u8; 16]>) -> (u32, [u8; 16]) {
    (key.prefix_len(), key.data())
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier, ProgramError> {
    let program = ebpf.program_mut(name);
    let program = program.ok_or_else(|| ProgramError::Load(format!("the object has no {name}")))?;
    program.try_into().map_err(|error: aya::programs::ProgramError| ProgramError::Load(sentence(&error)))
}

fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<aya::maps::Map, DataplaneError> {
    ebpf.take_map(name).ok_or(DataplaneError::Absent(name))
}

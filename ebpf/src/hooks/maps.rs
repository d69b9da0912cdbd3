//! The maps as the programs declare them. The sizes are the loader's business: it makes the maps itself,
//! with the sizes of its configuration, and hands them to the programs by their pins.

use aya_ebpf::macros::map;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use ebpf::affinity::AffinityKey;
use ebpf::backend::Backend;
use ebpf::block::Line;
use ebpf::choice::ChoiceKey;
use ebpf::frontend::FrontendKey;
use ebpf::maps::{HOSTPORTS_ENTRIES, PODS_ENTRIES, REVERSE_ENTRIES};
use ebpf::pod::PodAddresses;
use ebpf::reverse::{Dialled, Record, ReverseKey};
use ebpf::stats;

const NO_PREALLOC: u32 = 1;
const MMAPABLE: u32 = 1 << 10;

#[map(name = "frontends")]
pub(super) static FRONTENDS: HashMap<FrontendKey, u64> = HashMap::pinned(1, NO_PREALLOC);
#[map(name = "services")]
pub(super) static SERVICES: Array<u64> = Array::pinned(1, MMAPABLE);
#[map(name = "slots")]
pub(super) static SLOTS: Array<Line> = Array::pinned(1, MMAPABLE);
#[map(name = "backends")]
pub(super) static BACKENDS: Array<Backend> = Array::pinned(1, MMAPABLE);
#[map(name = "node")]
pub(super) static NODE: Array<u64> = Array::pinned(1, MMAPABLE);
#[map(name = "affinity")]
pub(super) static AFFINITY: LruHashMap<AffinityKey, u64> = LruHashMap::pinned(1, 0);
#[map(name = "choice")]
pub(super) static CHOICE: LruHashMap<ChoiceKey, u64> = LruHashMap::pinned(1, 0);
#[map(name = "reverse_udp")]
pub(super) static REVERSE_UDP: LruHashMap<ReverseKey, Dialled> = LruHashMap::pinned(1, 0);
#[map(name = "pods")]
pub(super) static PODS: HashMap<u64, PodAddresses> = HashMap::pinned(PODS_ENTRIES, NO_PREALLOC);
#[map(name = "hostports")]
pub(super) static HOSTPORTS: HashMap<FrontendKey, u64> = HashMap::pinned(HOSTPORTS_ENTRIES, NO_PREALLOC);
#[map(name = "stats")]
pub(super) static STATS: PerCpuArray<u64> = PerCpuArray::pinned(stats::ELEMENTS, 0);
#[map(name = "closed")]
pub(super) static CLOSED: Array<u64> = Array::pinned(1, MMAPABLE);
#[map(name = "refused")]
pub(super) static REFUSED: Array<u64> = Array::pinned(1, MMAPABLE);
#[map(name = "reverse")]
pub(super) static REVERSE: HashMap<u64, Record> = HashMap::pinned(REVERSE_ENTRIES, NO_PREALLOC);

/// The cookie of the node's own network namespace, put in by the loader.
#[unsafe(no_mangle)]
pub(super) static NODE_NETNS: u64 = 0;

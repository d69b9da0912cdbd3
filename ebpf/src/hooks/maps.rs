//! The maps as the programs declare them. The sizes are the loader's business: it makes the maps itself,
//! with the sizes of its configuration, and hands them to the programs by their pins.

use aya_ebpf::macros::map;
use aya_ebpf::maps::lpm_trie::LpmTrie;
use aya_ebpf::maps::{Array, HashMap, LruHashMap, PerCpuArray};
use ebpf::address::Address;
use ebpf::affinity::AffinityKey;
use ebpf::backend::Backend;
use ebpf::block::Line;
use ebpf::choice::ChoiceKey;
use ebpf::frontend::FrontendKey;
use ebpf::maps::{
    FLEETING_ENTRIES, FLOWS_ENTRIES, FRAGMENTS_ENTRIES, HOSTPORTS_ENTRIES, PODS_ENTRIES, RANGES_ENTRIES,
    RECORDS_ENTRIES, REVERSE_ENTRIES, SOURCES_ENTRIES, UPLINKS_ENTRIES,
};
use ebpf::packet::flow::{Flow, FlowKey};
use ebpf::packet::fragment::{FragmentKey, Held, HeldKey};
use ebpf::packet::run::Run;
use ebpf::packet::uplink::Uplink;
use ebpf::pod::PodAddresses;
use ebpf::reverse::{Dialled, Record, ReverseKey};
use ebpf::seat::Seat;
use ebpf::stats;

/// Frames that are held, of all datagrams: half a mebibyte is what a flood of fragments may take.
const HELD_ENTRIES: u32 = 256;
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
#[map(name = "found")]
pub(super) static FOUND: HashMap<u64, PodAddresses> = HashMap::pinned(PODS_ENTRIES, NO_PREALLOC);
#[map(name = "hostports")]
pub(super) static HOSTPORTS: HashMap<FrontendKey, u64> = HashMap::pinned(HOSTPORTS_ENTRIES, NO_PREALLOC);
#[map(name = "stats")]
pub(super) static STATS: PerCpuArray<u64> = PerCpuArray::pinned(stats::ELEMENTS, 0);
#[map(name = "closed")]
pub(super) static CLOSED: Array<u64> = Array::pinned(1, MMAPABLE);
#[map(name = "refused")]
pub(super) static REFUSED: Array<u64> = Array::pinned(1, MMAPABLE);
#[map(name = "records")]
pub(super) static RECORDS: Array<Seat> = Array::pinned(RECORDS_ENTRIES, MMAPABLE);
#[map(name = "reverse")]
pub(super) static REVERSE: HashMap<u64, Record> = HashMap::pinned(REVERSE_ENTRIES, NO_PREALLOC);
#[map(name = "flows")]
pub(super) static FLOWS: HashMap<FlowKey, Flow> = HashMap::pinned(FLOWS_ENTRIES, NO_PREALLOC);
#[map(name = "fleeting")]
pub(super) static FLEETING: LruHashMap<FlowKey, Flow> = LruHashMap::pinned(FLEETING_ENTRIES, 0);
#[map(name = "crowd")]
pub(super) static CROWD: Array<u64> = Array::pinned(2, MMAPABLE);
#[map(name = "fragments")]
pub(super) static FRAGMENTS: LruHashMap<FragmentKey, u64> = LruHashMap::pinned(FRAGMENTS_ENTRIES, 0);
#[map(name = "uplinks")]
pub(super) static UPLINKS: Array<Uplink> = Array::pinned(UPLINKS_ENTRIES, 0);
#[map(name = "ranges")]
pub(super) static RANGES: LpmTrie<Address, u32> = LpmTrie::pinned(RANGES_ENTRIES, 0);
#[map(name = "sources")]
pub(super) static SOURCES: LpmTrie<Client, u32> = LpmTrie::pinned(SOURCES_ENTRIES, 0);
#[map(name = "held")]
pub(super) static HELD: LruHashMap<HeldKey, Held> = LruHashMap::with_max_entries(HELD_ENTRIES, 0);
#[map(name = "holding")]
pub(super) static HOLDING: PerCpuArray<Held> = PerCpuArray::with_max_entries(1, 0);
#[map(name = "runs")]
pub(super) static RUNS: PerCpuArray<Run> = PerCpuArray::with_max_entries(1, 0);

/// Whoever wants to use a guarded frontend: the key of `sources` behind the length of the prefix.
#[repr(C, packed)]
pub(super) struct Client {
    pub(super) service: u32,
    pub(super) address: Address,
}

/// The cookie of the node's own network namespace, put in by the loader.
#[unsafe(no_mangle)]
pub(super) static NODE_NETNS: u64 = 0;

/// Whether packets go on past the host's stack, put in by the loader.
#[unsafe(no_mangle)]
pub(super) static REDIRECT: u8 = 0;

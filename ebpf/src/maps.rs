//! The names under which the maps are pinned, in `<bpf-dir>/v1/`, and what makes each of them. A later
//! layout is other maps in another directory; only `records` and `reverse` are shared by all layouts.

/// The directory below the bpf directory: `v` and [`LAYOUT_NUMBER`].
pub const LAYOUT: &str = "v1";
/// Raised with every change of what a map holds.
pub const LAYOUT_NUMBER: u32 = 1;

/// HASH, [`crate::frontend::FrontendKey`] -> [`crate::frontend::FrontendWord`].
pub const FRONTENDS: &str = "frontends";
/// ARRAY, mmapable, service id -> [`crate::block::ServiceWord`].
pub const SERVICES: &str = "services";
/// ARRAY, mmapable, line -> [`crate::block::Line`].
pub const SLOTS: &str = "slots";
/// ARRAY, mmapable, backend id -> [`crate::backend::Backend`].
pub const BACKENDS: &str = "backends";
/// LRU_HASH, [`crate::affinity::AffinityKey`] -> [`crate::affinity::AffinityWord`].
pub const AFFINITY: &str = "affinity";
/// LRU_HASH, [`crate::choice::ChoiceKey`] -> [`crate::choice::ChoiceWord`].
pub const CHOICE: &str = "choice";
/// ARRAY, mmapable, seat -> [`crate::seat::Seat`]; [`RECORDS_ENTRIES`] entries.
pub const RECORDS: &str = "records";
/// HASH, socket cookie -> [`crate::reverse::Record`], of sockets whose seat was taken; [`REVERSE_ENTRIES`] entries,
/// NO_PREALLOC.
pub const REVERSE: &str = "reverse";
/// LRU_HASH, [`crate::reverse::ReverseKey`] -> [`crate::reverse::Dialled`].
pub const REVERSE_UDP: &str = "reverse_udp";
/// HASH, key size 8, value size 32, [`PODS_ENTRIES`] entries, flags BPF_F_NO_PREALLOC (1):
/// see [`crate::pod`]. Whoever comes first makes it with exactly these numbers.
pub const PODS: &str = "pods";
/// HASH, key size 20, value size 8, [`HOSTPORTS_ENTRIES`] entries, flags BPF_F_NO_PREALLOC (1): see
/// [`crate::hostport`]. Whoever comes first makes it with exactly these numbers.
pub const HOSTPORTS: &str = "hostports";
/// ARRAY, mmapable, backend id -> connections closed, u64. Beside `backends`, whose elements are full.
pub const CLOSED: &str = "closed";
/// ARRAY, mmapable, service id -> connections refused or unreachable, u64.
pub const REFUSED: &str = "refused";
/// HASH, [`crate::packet::flow::FlowKey`] -> [`crate::packet::flow::Flow`].
pub const FLOWS: &str = "flows";
/// LRU_HASH, the same: flows of which one end spoke, while too many of those are in [`FLOWS`].
pub const FLEETING: &str = "fleeting";
/// ARRAY, mmapable, [`HALF_OPEN`] and [`FLEETING_SEEN`] -> u64.
pub const CROWD: &str = "crowd";
/// The element of [`CROWD`] that has the number of flows of [`FLOWS`] of which one end spoke.
pub const HALF_OPEN: u32 = 0;
/// The element of [`CROWD`] that has the second of flows in which something of [`FLEETING`] was last made or seen.
pub const FLEETING_SEEN: u32 = 1;
/// LRU_HASH, [`crate::packet::fragment::FragmentKey`] -> [`crate::packet::fragment::FragmentWord`].
pub const FRAGMENTS: &str = "fragments";
/// ARRAY, [`crate::packet::uplink::place`] -> [`crate::packet::uplink::Uplink`].
pub const UPLINKS: &str = "uplinks";
/// LPM_TRIE, [`crate::packet::uplink::RangeKey`] -> flags of [`crate::packet::uplink::range`].
pub const RANGES: &str = "ranges";
/// LPM_TRIE, [`crate::packet::uplink::SourceKey`] -> 1.
pub const SOURCES: &str = "sources";
/// PERCPU_ARRAY, [`crate::stats::Reason`] -> u64.
pub const STATS: &str = "stats";
/// ARRAY, mmapable, one element: the heartbeat of the daemon, CLOCK_MONOTONIC in nanoseconds.
pub const NODE: &str = "node";

/// HASH of the same form: pods of other runtimes, which the daemon finds by their addresses. [`PODS_ENTRIES`].
pub const FOUND: &str = "found";

/// `max_entries` of [`PODS`]: sandboxes of one node, with room.
pub const PODS_ENTRIES: u32 = 4096;
/// `max_entries` of [`RECORDS`]: open connections through frontends of one node, with room, so that few find their
/// seat taken. All layouts share the map, so it does not follow the size of the cluster.
pub const RECORDS_ENTRIES: u32 = 1 << 17;
/// `max_entries` of [`REVERSE`].
pub const REVERSE_ENTRIES: u32 = 1 << 17;

/// `max_entries` of [`HOSTPORTS`]: a few for each sandbox of one node.
pub const HOSTPORTS_ENTRIES: u32 = 16384;
/// `max_entries` of [`FLOWS`]: two for each flow. Room is taken only for what is there.
pub const FLOWS_ENTRIES: u32 = 1 << 19;
/// `max_entries` of [`FLEETING`]: two for each flow; room is taken for all.
pub const FLEETING_ENTRIES: u32 = 1 << 16;
/// `max_entries` of [`FRAGMENTS`]: datagrams on their way.
pub const FRAGMENTS_ENTRIES: u32 = 1 << 12;
/// `max_entries` of [`UPLINKS`].
pub const UPLINKS_ENTRIES: u32 = 64;
/// `max_entries` of [`RANGES`]: the pod ranges and addresses of 5,000 nodes, with room.
pub const RANGES_ENTRIES: u32 = 1 << 15;
/// `max_entries` of [`SOURCES`].
pub const SOURCES_ENTRIES: u32 = 1 << 16;

/// How long after its last heartbeat the daemon still counts as answering. It beats five times as often.
pub const HEARTBEAT_VALID_NS: u64 = 500_000_000;
/// How far the hooks' clock, that of the last tick, may be behind: at 100 ticks a second, the fewest that there are.
pub const TICK_NS: u64 = 10_000_000;

/// The program constant with the cookie of the node's own network namespace.
pub const NODE_NETNS: &str = "NODE_NETNS";
/// The program constant that says whether packets from outside go on past the host's stack, as a u8.
pub const REDIRECT: &str = "REDIRECT";

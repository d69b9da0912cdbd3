//! Map `pods`: HASH, pinned. Key: the cookie of a pod's network namespace (SO_NETNS_COOKIE), a native u64.
//! Value: 32 bytes, the pod's IPv4 address as `::ffff:a.b.c.d`, then its IPv6 address, each 16 bytes in
//! network order and all zero where it has none. Whoever makes pods writes it with plain bpf(2); the hooks
//! read it to know the client of an affinity. See `maps::PODS` for how it is made.

use crate::address::Address;

/// Map value: the addresses of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct PodAddresses {
    /// IPv4, or `::`.
    pub ipv4: Address,
    /// IPv6, or `::`.
    pub ipv6: Address,
}

const _: () = assert!(size_of::<PodAddresses>() == 32);

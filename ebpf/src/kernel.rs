//! What a hook may ask of the kernel. The programs answer it with map lookups and helpers; the host tests
//! with a fake that keeps the same bytes. [`Maps`] is what every hook has, [`Kernel`] what a socket adds.

use crate::address::Address;
use crate::affinity::{AffinityKey, AffinityWord};
use crate::backend::Backend;
use crate::block::{Line, ServiceWord};
use crate::choice::{ChoiceKey, ChoiceWord};
use crate::frontend::{FrontendKey, FrontendWord};
use crate::hostport::HostPortWord;
use crate::pod::PodAddresses;
use crate::reverse::{Dialled, Record, ReverseKey};
use crate::stats::Reason;

/// The kernel as every hook run sees it: the maps and the clock.
pub trait Maps {
    /// Map `frontends`.
    fn frontend(&self, key: &FrontendKey) -> Option<FrontendWord>;
    /// Map `services`.
    fn service(&self, id: u32) -> Option<ServiceWord>;
    /// Map `slots`.
    fn line(&self, index: u32) -> Option<&Line>;
    /// Map `backends`.
    fn backend(&self, id: u32) -> Option<&Backend>;
    /// Counts a connection opened to a backend.
    fn opened(&self, id: u32);
    /// Counts a connection that a service has no backend for.
    fn refused(&self, service: u32);
    /// Counts a reason.
    fn count(&self, reason: Reason);

    /// Map `affinity`.
    fn affinity(&self, key: &AffinityKey) -> Option<AffinityWord>;
    /// Stores into `affinity`.
    fn set_affinity(&self, key: &AffinityKey, word: AffinityWord);
    /// Map `hostports`.
    fn host_port(&self, key: &FrontendKey) -> Option<HostPortWord>;
    /// Map `pods`, by namespace cookie or by [`crate::hostport::pod_behind`].
    fn pod(&self, key: u64) -> Option<&PodAddresses>;

    /// The daemon's last heartbeat, CLOCK_MONOTONIC in nanoseconds.
    fn heartbeat_ns(&self) -> u64;
    /// CLOCK_MONOTONIC in nanoseconds, as of the last tick.
    fn now_ns(&self) -> u64;
    /// A random number.
    fn random(&self) -> u32;
}

/// The record of the socket of a hook.
pub trait Recorded {
    /// The socket's record in `reverse`.
    fn record(&self) -> Option<&Record>;
    /// Removes the socket's record.
    fn remove_record(&self);
    /// Map `backends`.
    fn recorded_backend(&self, id: u32) -> Option<&Backend>;
    /// Counts a connection to a backend that is closed.
    fn closed(&self, id: u32);
}

/// The kernel as a hook of a socket sees it.
pub trait Kernel: Maps + Recorded {
    /// Map `choice`.
    fn choice(&self, key: &ChoiceKey) -> Option<ChoiceWord>;
    /// Stores into `choice`.
    fn set_choice(&self, key: &ChoiceKey, word: ChoiceWord);
    /// Map `reverse_udp`.
    fn dialled(&self, key: &ReverseKey) -> Option<Dialled>;
    /// Stores into `reverse_udp`.
    fn set_dialled(&self, key: &ReverseKey, dialled: &Dialled);

    /// Whether the address is one of the node's own, loopback's included.
    fn is_own(&self, address: &Address) -> bool;

    /// The socket's record will be stored: its line of the cache had better come meanwhile.
    fn foresee_record(&self);
    /// Stores the socket's record; false if it has one, or if there is no room.
    fn add_record(&self, record: &Record) -> bool;

    /// Map `found`, by namespace cookie.
    fn found_pod(&self, cookie: u64) -> Option<&PodAddresses>;

    /// The cookie of the socket.
    fn socket_cookie(&self) -> u64;
    /// The cookie of the socket's network namespace.
    fn netns_cookie(&self) -> u64;
    /// The cookie of the node's own network namespace.
    fn node_netns(&self) -> u64;
}

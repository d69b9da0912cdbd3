//! Raw bpf(2): the pins of the daemon, opened and read or written. The daemon makes them; whoever makes pods writes two
//! of its maps. Without a daemon there is no pin, and that is fine. Called by attach, detach, check and the daemon.

mod daemon;
mod host_ports;
mod map;
mod pods;

pub(crate) use daemon::{heartbeat, programs_run};
pub(crate) use host_ports::{HostPortEntry, HostPortKey, HostPorts};
pub use map::MapError;
pub(crate) use pods::{PodKey, Pods};
pub use pods::{PodValue, pod_value};

/// Below the daemon's directory: its layout.
const LAYOUT: &str = "v1";

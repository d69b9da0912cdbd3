//! From what the cluster says to what the kernel does: `Snapshot -> Tables -> Ops -> maps`.
//!
//! [`Planner`] and [`diff`] are pure; [`Kernel`] and [`Fake`] apply the operations; [`Proxy`] holds them
//! together for the daemon. The only crate that knows aya. It must never watch the cluster or answer names.

mod adopt;
mod allocate;
mod cgroup;
mod check;
mod claims;
mod contribution;
mod counted;
mod counts;
mod current;
mod dataplane;
mod decide;
mod diff;
mod dump;
mod explain;
mod fake;
mod health;
mod layouts;
mod metrics;
mod op;
mod packets;
mod plan;
mod probe;
mod programs;
mod proxy;
mod select;
mod sockets;
mod sys;
mod tables;

pub use adopt::{Contents, adopt, resolve};
pub use check::{Check, check};
pub use claims::Conflict;
pub use contribution::Skip;
pub use counts::Count;
pub use current::{Current, Sizes};
pub use dataplane::{DataplaneError, Heartbeat, Kernel};
pub use decide::{Client, Decision, Source, decide};
pub use diff::{GRACE, Unfit, What, diff, shrink};
pub use dump::ParseError;
pub use explain::{Explained, Explanation, endpoints, explain};
pub use fake::Fake;
pub use health::{HealthPort, HealthPorts};
pub use metrics::{FlowMetrics, Metrics};
pub use op::{Dataplane, Freed, Op, OpCounts, Refused};
pub use packets::{FlowCounts, LinkPath, Surroundings, Sweeper, Uplink};
pub use plan::{Facts, Planner, is_programmed};
pub use programs::{ProgramError, Programs, cleanup};
pub use proxy::{BackendState, Config, Error, Finding, LAYOUT, Outcome, Proxy, Traffic};
pub use select::{Selected, Standing, select};
pub use sockets::{Blindness, Connection, Connections, Ended, Unseen, blind_spots};
pub use sys::netns_cookie;
pub use tables::{Block, Family, Frontend, ServiceKey, ServiceKeyParts, Slot, Tables, Target};

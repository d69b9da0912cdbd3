//! The cluster's DNS: Snapshot -> Zone -> Answer, the server in front of it, and the way upstream.
//!
//! `names` turns snapshots into a zone and publishes it; `answer` alone knows what a name means; `respond`
//! and `wire` make messages of it, `fast` those of the common questions; `cache` keeps what upstreams say.
//! `server`, `worker`, `batch`, `tcp`, `forward`, `exchange` and `upstreams` are the shells with the sockets
//! and files; nothing else does I/O. Called by the daemon, which owns the `Names` and starts the server.

mod access;
mod answer;
mod batch;
mod bundle;
mod cache;
mod dump;
mod exchange;
mod fast;
mod forward;
mod histogram;
mod loops;
mod metrics;
mod name;
mod names;
mod record;
mod respond;
mod responder;
mod reverse;
mod server;
mod splice;
mod stored;
mod tcp;
mod upstream;
mod upstreams;
mod wire;
mod worker;
mod zone;

pub use access::{Access, Strangers};
pub use answer::{Answer, Found, answer, reverse_question};
pub use bundle::{Bundle, ClusterNames, HeadlessNames, HeadlessPort, Host, Port, Shape};
pub use dump::lookup;
pub use forward::Forwarder;
pub use metrics::Metrics;
pub use name::DomainName;
pub use names::{Names, Reader};
pub use record::{CLASS_IN, Data, Question, Record, RecordType, Soa};
pub use respond::{Reply, Wait, respond};
pub use server::{Bound, Config, Server, StartError, start};
pub use upstream::{UpstreamHealth, UpstreamState};
pub use upstreams::{Upstreams, choose};
pub use wire::{Edns, Head, Rcode, Request, Transport};
pub use zone::{PodNames, Zone, ZoneConfig};

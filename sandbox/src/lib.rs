//! The pause sandbox of a pod and its network.

mod record;

pub use record::{ContainerPort, PodId, Record};

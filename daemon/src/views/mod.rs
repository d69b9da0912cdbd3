//! What the admin endpoint shows, as rows: made by the daemon, sent as JSON, and drawn as a table by the
//! command line, so that both ends share one type. Pure.

pub mod backends;
pub mod connections;
pub mod explain;
pub mod findings;
pub mod names;
pub mod sandboxes;
pub mod services;
pub mod standing;
pub mod top;
pub mod upstreams;

//! The admin endpoint: HTTP/1.1 on a unix socket of mode 0600. It only reads; whoever can open the socket is
//! root on this node. `fairway get`, `explain` and `sandbox` are its clients, and so is a Prometheus agent.

pub mod client;
mod routes;
pub mod server;

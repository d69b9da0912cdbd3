//! The node daemon: configuration, sources, wiring, admin endpoint and command line.
pub mod source;

//! The packet path: what a hook at an uplink does with a packet. One rule carries it: what arrives gets its
//! destination rewritten, what leaves gets its source rewritten, and the host's stack routes in between, so
//! that no packet ever enters the stack with one of the node's own sources, and the host's firewall sees real
//! clients and real backends. Pure and generic over [`hook::Hook`]; the programs are in `hooks/packet.rs`.

pub mod checksum;
mod create;
pub mod engine;
mod error;
pub mod flow;
pub mod fragment;
pub mod headers;
pub mod hook;
mod known;
mod rewrite;
pub mod run;
pub mod uplink;

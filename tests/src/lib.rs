//! The bench of the privileged tests and of the demo: nodes on one machine, pods on them, and probes.
//!
//! A [`Node`] is a network namespace with a cgroup and directories of its own, and the real `fairway` binary in
//! it; everything goes with it when it is dropped. It may not know any crate of the workspace, so that it
//! builds before set-up; what it knows of Fairway is its command line and its admin socket.

mod client;
mod daemon;
mod image;
mod machine;
mod network;
mod node;
mod pod;
mod probe;
mod process;
mod servers;
mod until;

pub use client::{CLIENT4, CLIENT6, Client};
pub use daemon::Daemon;
pub use image::{Image, ImageFile};
pub use machine::{bound_concurrency, cgroup_root, program, root_or_skip};
pub use network::{OUTSIDE4, OUTSIDE6, Place, ROUTER4, ROUTER6};
pub use node::{NODE4, NODE6, Node, Options, Site};
pub use pod::Pod;
pub use probe::{Answers, Flow, Kind};
pub use process::{Background, Finished};
pub use until::until;

//! The scenarios of a service proxy, end to end: the real daemon in a network namespace, driven by a folder of
//! manifests, asked by real sockets. One test a scenario; its number is in its name.
//!
//! Backends are servers on addresses of the node's loopback where a pod around them would prove nothing more.

mod affinity;
mod balancing;
mod cluster;
mod coherence;
mod endpoints;
mod health;
mod host_ports;
mod leaving;
mod names;
mod nodes;
mod outside;
mod redirect;
mod restart;
mod server;
mod services;
mod sockets;
mod termination;
mod top;
mod uplinks;
mod yaml;

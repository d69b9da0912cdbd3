//! The contract with the kernel: what the maps hold, byte for byte, and how a hook decides.
//!
//! This library face is `no_std` and pure. The programs (`src/main.rs`) read a context, ask [`balance`],
//! and match the verdict; the `proxy` crate writes the maps with the same types. It must never depend on
//! either side's map bindings, so that host tests run the very code that the kernel runs.
#![cfg_attr(not(test), no_std)]
#![expect(clippy::cast_possible_truncation, reason = "map words are taken apart on purpose, everywhere here")]

pub mod address;
pub mod affinity;
pub mod backend;
pub mod balance;
pub mod block;
pub mod choice;
mod element;
pub mod frontend;
pub mod hostport;
pub mod kernel;
pub mod maps;
pub mod packet;
pub mod pod;
pub mod reverse;
pub mod seat;
pub mod stats;

//! The node daemon: configuration, sources, wiring, admin endpoint and command line. The binary is
//! `main.rs`; tests use the library for the pure parts.

pub mod admin;
pub mod app;
pub mod cli;
pub mod cluster;
pub mod commands;
pub mod config;
pub mod facts;
mod handover;
pub mod health;
mod http;
mod logging;
pub mod memory;
mod name_args;
pub mod names;
mod network;
pub mod notice;
pub mod processes;
mod reported;
pub mod sentence;
pub mod source;
pub mod state;
pub mod step;
mod sweep;
pub mod views;

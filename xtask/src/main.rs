//! `cargo xtask`: set-up, demo, tests, benches and the checks of this repository.
//!
//! It must build on a bare machine, before anything is set up, so it depends on nothing that needs the
//! kernel programs. People and `.ci/run` call it; nothing else does.

mod bench;
mod demo;
mod ebpf;
mod image;
mod say;
mod setup;
mod shell;
mod testing;
mod tidy;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Set-up, demo, tests, benches and the checks of this repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measure; a table for people, with --json lines for machines.
    Bench(bench::Arguments),
    /// Run a node on this machine: pods, curl through services, dig for names; show what came back.
    Demo,
    /// Build the kernel programs, list their sizes, and load them.
    Ebpf,
    /// Build the images of the DaemonSet and of the pause container, without a container engine.
    Image(image::Arguments),
    /// Find or install what this machine lacks; a second run does nothing.
    Setup,
    /// Set up, build, and run every test; the last line is `N passed, N failed, N skipped`.
    Test(testing::Arguments),
    /// Check the dependency arrows, the module heads and the limits of docs/style.md.
    Tidy,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Demo => demo::run(),
        Command::Ebpf => ebpf::run(),
        Command::Image(arguments) => image::run(&arguments),
        Command::Setup => setup::run(),
        Command::Test(arguments) => testing::run(&arguments),
        Command::Tidy => tidy::run(),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            say::error(&error);
            ExitCode::FAILURE
        }
    }
}

//! One file a command. A command prints to standard output what was asked for, and nothing else; logs and
//! errors go to standard error.

mod check;
mod cleanup;
mod explain;
mod get;
mod plan;
mod sandbox;
pub mod table;
mod top;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Result;

use crate::cli::{Cli, Command};
use crate::{app, logging};

/// Carries out what the command line says.
///
/// # Errors
/// One sentence for the person who typed it.
pub fn run(cli: Cli) -> Result<ExitCode> {
    match cli.command {
        Command::Run(args) => {
            logging::start();
            app::run(&args).map(|()| ExitCode::SUCCESS)
        }
        Command::Get(args) => print(&get::get(&args)?),
        Command::Top(args) => top::top(&args),
        Command::Explain(args) => print(&explain::explain(&args)?),
        Command::Plan(args) => plan::plan(&args),
        Command::Sandbox(command) => sandbox::sandbox(command),
        Command::Cni => Ok(::sandbox::run_cni()),
        Command::Check(args) => check::check(&args),
        Command::Cleanup(args) => print(&cleanup::cleanup(&args)?),
        Command::Version => print(concat!("fairway ", env!("CARGO_PKG_VERSION"), "\n")),
    }
}

/// Writes to standard output; a reader that went away (`| head`) is no error.
pub(crate) fn print(text: &str) -> Result<ExitCode> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(ExitCode::SUCCESS),
    }
}

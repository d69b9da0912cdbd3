//! The `fairway` binary: parses, dispatches, and turns an error into one sentence and an exit code.

use std::process::ExitCode;

use fairway::commands;

fn main() -> ExitCode {
    match fairway::config::parse(std::env::args_os()).and_then(commands::run) {
        Ok(code) => code,
        Err(error) => {
            // The chain reads as one sentence: what could not be done, then why.
            eprintln!("fairway: {error:#}");
            ExitCode::FAILURE
        }
    }
}

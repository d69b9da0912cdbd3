//! The `fairway` binary: parses, dispatches, and turns an error into one sentence and an exit code. Everything
//! else is in the library, so that tests can reach it.

use std::process::ExitCode;

use fairway::commands;
use fairway::sentence::sentence;

fn main() -> ExitCode {
    fairway::memory::be_frugal();
    match fairway::config::parse(std::env::args_os()).and_then(commands::run) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("fairway: {}", sentence(&error));
            ExitCode::FAILURE
        }
    }
}

//! The `fairway` binary: parses, dispatches, and turns an error into one sentence and an exit code. Everything
//! else is in the library, so that tests can reach it.

use std::process::ExitCode;

use fairway::commands;

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

/// What could not be done, then why; a cause that the text before it already says is not repeated.
fn sentence(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text.as_str() {
            "" => cause,
            said if said.contains(&cause) => text,
            said => format!("{said}: {cause}"),
        }
    })
}

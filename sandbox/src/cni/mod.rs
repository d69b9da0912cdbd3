//! The CNI plug-in: one request in the environment and on standard input, one answer on standard output, then it
//! ends. It asks no daemon and keeps no file: see attach, detach and check. Called by `bin/fairway-cni.rs`; the
//! daemon uses [`conflist`] alone.

mod answer;
mod commands;
pub(crate) mod conflist;
mod failure;
mod log;
mod loopback;
mod request;

use std::io::{self, Read, Write};
use std::process::ExitCode;

use serde_json::Value;

use failure::{Code, Failure};
use request::{Command, Config, Request, Version};

/// A configuration is some hundred bytes, and a list of valid attachments some hundred for each pod.
const INPUT_LIMIT: u64 = 4 << 20;

/// Does what the environment and standard input ask for.
pub fn run_cni() -> ExitCode {
    // Nobody else can have set one: this is the whole program.
    let _ = tracing::subscriber::set_global_default(log::StandardError);
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    if variable("CNI_COMMAND").is_empty() {
        eprintln!("{}", request::about());
        return ExitCode::SUCCESS;
    }
    let (answer, code) = match serve(variable) {
        Ok(None) => return ExitCode::SUCCESS,
        Ok(Some(answer)) => (answer, ExitCode::SUCCESS),
        Err((failure, version)) => (failure.to_json(version), ExitCode::FAILURE),
    };
    match writeln!(io::stdout(), "{answer}") {
        Ok(()) => code,
        Err(error) => {
            eprintln!("fairway-cni: writing the answer: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The answer, if any. A failure says which version of the specification it is to be told in.
fn serve(variable: impl Fn(&str) -> String) -> Result<Option<Value>, (Failure, Version)> {
    let latest = |failure| (failure, Version::LATEST);
    let request = Request::read(variable).map_err(latest)?;
    let config = read_input().and_then(|input| Config::read(&input, request.command)).map_err(latest)?;
    let version = config.version().map_err(latest)?;
    let is_loopback = config.kind() == loopback::TYPE && request.command != Command::Version;
    let answer = if is_loopback {
        loopback::run(&request, version)
    } else {
        commands::run(&request, &config, version)
    };
    answer.map_err(|failure| (failure, version))
}

fn read_input() -> Result<Vec<u8>, Failure> {
    let mut input = Vec::new();
    let count = io::stdin().take(INPUT_LIMIT).read_to_end(&mut input);
    let count = count.map_err(|error| Failure::new(Code::Io, format!("reading standard input: {error}")))?;
    if count as u64 == INPUT_LIMIT {
        return Err(Failure::new(Code::Io, format!("standard input is longer than {INPUT_LIMIT} bytes")));
    }
    Ok(input)
}

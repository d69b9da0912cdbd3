//! `cargo xtask test`: set-up, build, every test of the workspace, and one line of totals at the end.
//!
//! The tests are run by plain `cargo test`; this reads along, so a skip that libtest does not know
//! (a printed `SKIP:`) is counted, and a test program that dies without a result is a failure.

mod libtest;

use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::{say, setup, workspace};
use libtest::Reader;

/// What to run.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Print the name of every test and run none.
    #[arg(long)]
    list: bool,
    /// Run only tests whose name contains this.
    filter: Option<String>,
}

/// Runs what the arguments ask for.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure()?;
    let started = Instant::now();
    say::line("building the workspace and its tests (the first time takes minutes)");
    build()?;
    if arguments.list {
        return list(arguments.filter.as_deref());
    }
    say::line(format!("built in {} s", started.elapsed().as_secs()));
    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--no-fail-fast", "--", "--show-output"]);
    command.args(&arguments.filter);
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() == 1) {
        // With one thread libtest prints a name before its test runs, and what the test prints gets in between.
        command.env("RUST_TEST_THREADS", "2");
    }
    let (reader, success) = follow(command)?;
    Ok(report(reader, success))
}

/// Builds everything first, with cargo's own progress. A package with integration tests gets its programs built
/// too, with the same features as its tests, so nothing is built twice.
fn build() -> Result<()> {
    let arguments = ["test", "--workspace", "--no-run", "--quiet"];
    let status = workspace::cargo()
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("`cargo {}` failed", arguments.join(" "));
    }
    Ok(())
}

fn list(filter: Option<&str>) -> Result<ExitCode> {
    let mut command = workspace::cargo();
    command.args(["test", "--workspace", "--quiet", "--", "--list", "--format=terse"]).args(filter);
    let output =
        command.stdin(Stdio::null()).stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    if !output.status.success() {
        bail!("`cargo test -- --list` failed");
    }
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        if let Some(name) = line.strip_suffix(": test") {
            say::line(name);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows the output as it comes and reads the results out of it. Both streams go through one pipe: cargo names a
/// program on one and the program prints its results on the other, and only together they are in order.
fn follow(mut command: Command) -> Result<(Reader, bool)> {
    let (output, writer) = std::io::pipe().context("cannot make a pipe")?;
    let second = writer.try_clone().context("cannot make a pipe")?;
    let mut child =
        command.stdin(Stdio::null()).stdout(writer).stderr(second).spawn().context("cannot start cargo")?;
    // The command holds the ends that are written to; the output ends when the last of them is closed.
    drop(command);
    let mut reader = Reader::default();
    for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line);
        if reader.read(&line) {
            say::line(&line);
        }
    }
    Ok((reader, child.wait()?.success()))
}

fn report(mut reader: Reader, success: bool) -> ExitCode {
    reader.finish(success);
    say::line("");
    for name in &reader.failures {
        say::line(format!("failed: {name}"));
    }
    for name in &reader.skips {
        say::line(format!("skipped: {name}"));
    }
    say::line(format!(
        "{} passed, {} failed, {} skipped",
        reader.passed(),
        reader.failures.len(),
        reader.skips.len()
    ));
    if reader.failures.is_empty() && reader.passed() > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

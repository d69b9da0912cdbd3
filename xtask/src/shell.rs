//! Long commands with a sign of life: their last line with the seconds so far, and the tail of their output
//! when they fail.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, IsTerminal, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::say;

/// Lines of output shown when the command fails.
const TAIL: usize = 30;
/// How often a log that is no terminal gets a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Runs `command` to its end, showing that it lives; its output is shown only if it fails.
pub(crate) fn run_quietly(mut command: Command) -> Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let (lines, output) = channel();
    let stdout = child.stdout.take().context("stdout is piped")?;
    let stderr = child.stderr.take().context("stderr is piped")?;
    let readers = [forward(stdout, lines.clone()), forward(stderr, lines)];
    let tail = watch(&output);
    for reader in readers {
        let _ = reader.join();
    }
    let status = child.wait()?;
    say::clear_transient();
    if status.success() {
        return Ok(());
    }
    for line in tail {
        say::line(format!("    | {line}"));
    }
    bail!("{name} failed ({status}); the end of its output is above")
}

fn forward(from: impl Read + Send + 'static, to: Sender<String>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send(line).is_err() {
                return;
            }
        }
    })
}

/// Follows the output until it closes; returns its end.
fn watch(output: &std::sync::mpsc::Receiver<String>) -> VecDeque<String> {
    let started = Instant::now();
    let terminal = std::io::stdout().is_terminal();
    let mut spoken = started;
    let mut tail = VecDeque::new();
    loop {
        match output.recv_timeout(Duration::from_millis(500)) {
            Ok(line) => {
                if tail.len() == TAIL {
                    tail.pop_front();
                }
                tail.push_back(line);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return tail,
        }
        let last = tail.back().map_or("", |line: &String| line.trim());
        let seconds = started.elapsed().as_secs();
        say::transient(&format!("    {seconds:>3} s  {last}"));
        if !terminal && spoken.elapsed() > SIGN_OF_LIFE {
            spoken = Instant::now();
            say::line(format!("    {seconds:>3} s  {last}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_an_error_that_names_it() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo before the end; exit 3"]);
        let error = run_quietly(command).expect_err("exit 3 is a failure");
        assert!(format!("{error:#}").contains("sh failed"), "{error:#}");
    }

    #[test]
    fn a_command_that_does_not_exist_is_named() {
        let error = run_quietly(Command::new("no-such-program")).expect_err("it does not exist");
        assert!(format!("{error:#}").contains("cannot start no-such-program"), "{error:#}");
    }
}

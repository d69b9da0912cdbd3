//! `fairway top`: draws what happens on the node, once a second, until Ctrl-C. It changes nothing of the terminal but
//! the screen it draws on, and gives that back however it ends.

use std::io::{IsTerminal, Write, stdout};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::client::fetch;
use crate::cli::{Output, TopArgs};
use crate::views::top::{LiveService, ServiceSample, fit, live, text};

/// Between two samples.
const INTERVAL: Duration = Duration::from_secs(1);
/// The other screen of a terminal, without a cursor; and back.
const ENTER: &str = "\x1b[?1049h\x1b[?25l";
const LEAVE: &str = "\x1b[?25h\x1b[?1049l";
/// To the first place; the rest of the line; the rest of the screen.
const HOME: &str = "\x1b[H";
const CLEAR_LINE: &str = "\x1b[K";
const CLEAR_REST: &str = "\x1b[J";

/// Draws until it is interrupted; what is not a terminal gets one table, or one JSON, of one second.
///
/// # Errors
/// One sentence: the daemon does not answer.
pub(super) fn top(args: &TopArgs) -> Result<ExitCode> {
    match args.output {
        Output::Table if stdout().is_terminal() => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let drawn = runtime.block_on(draw(args));
            // A question that is still open is not waited for.
            runtime.shutdown_background();
            drawn.map(|()| ExitCode::SUCCESS)
        }
        Output::Table | Output::Json => {
            let before = Sample::take(args)?;
            std::thread::sleep(INTERVAL);
            let rows = Sample::take(args)?.since(&before);
            super::print(&match args.output {
                Output::Table => text(&rows),
                Output::Json => serde_json::to_string(&rows)? + "\n",
            })
        }
    }
}

async fn draw(args: &TopArgs) -> Result<()> {
    let mut before = Sample::take(args)?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let screen = Screen::enter()?;
    let mut pause = Duration::ZERO;
    loop {
        let args = args.clone();
        let next = async move {
            tokio::time::sleep(pause).await;
            tokio::task::spawn_blocking(move || Sample::take(&args)).await?
        };
        // A daemon that hangs must not keep the terminal.
        let now = tokio::select! {
            _ = interrupted.recv() => return Ok(()),
            _ = terminated.recv() => return Ok(()),
            sample = next => sample?,
        };
        screen.draw(&text(&now.since(&before)))?;
        (before, pause) = (now, INTERVAL);
    }
}

/// The counters at one moment.
struct Sample {
    taken: Instant,
    services: Vec<ServiceSample>,
}

impl Sample {
    fn take(args: &TopArgs) -> Result<Self> {
        let body = fetch(&args.place.run_dir, "/traffic")?;
        let services = serde_json::from_str(&body).context("the daemon is of another version")?;
        Ok(Self { taken: Instant::now(), services })
    }

    fn since(&self, before: &Self) -> Vec<LiveService> {
        // The very first two follow each other at once.
        let seconds = self.taken.duration_since(before.taken).max(INTERVAL).as_secs_f64();
        live(&before.services, &self.services, seconds)
    }
}

/// The terminal's other screen, for as long as this lives.
struct Screen;

impl Screen {
    fn enter() -> Result<Self> {
        show(ENTER)?;
        Ok(Self)
    }

    fn draw(&self, text: &str) -> Result<()> {
        let size = rustix::termios::tcgetwinsize(stdout()).context("the terminal does not say its size")?;
        // One that does not know its size says 0.
        let known = |size: u16, usual: usize| if size == 0 { usual } else { size.into() };
        let lines = fit(text, (known(size.ws_col, 80), known(size.ws_row, 24)));
        let lines: Vec<String> = lines.into_iter().map(|line| line + CLEAR_LINE).collect();
        show(&format!("{HOME}{}{CLEAR_REST}", lines.join("\r\n")))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        let _ = show(LEAVE);
    }
}

fn show(text: &str) -> Result<()> {
    let mut out = stdout();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

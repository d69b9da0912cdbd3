//! Logs to standard error: `FAIRWAY_LOG` chooses what (as `RUST_LOG` does elsewhere), `FAIRWAY_LOG_FORMAT=json`
//! makes them one JSON object a line.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

const DEFAULT_FILTER: &str = "info";

/// Starts logging; called once, by `fairway run`.
pub(crate) fn start() {
    let filter = EnvFilter::try_from_env("FAIRWAY_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let lines = lines.with_ansi(std::io::stderr().is_terminal()).with_target(false);
    if std::env::var("FAIRWAY_LOG_FORMAT").is_ok_and(|format| format == "json") {
        lines.json().finish().init();
    } else {
        lines.finish().init();
    }
}

//! `fairway explain`: asks the daemon where a target leads, and why. It judges nothing itself: what it prints is
//! made by `views::explain` inside the daemon.

use anyhow::{Context, Result};

use crate::admin::client::{escape, fetch};
use crate::cli::{ExplainArgs, Output};
use crate::views::explain::{Explanation, text};

/// The explanation as text.
///
/// # Errors
/// One sentence: the daemon does not answer, or what is wrong with the target.
pub(super) fn explain(args: &ExplainArgs) -> Result<String> {
    let from = args.from.as_deref().map(|from| format!("&from={}", escape(from))).unwrap_or_default();
    let body = fetch(&args.place.run_dir, &format!("/explain?target={}{from}", escape(&args.target)))?;
    match args.output {
        Output::Json => Ok(body + "\n"),
        Output::Table => {
            let explanation: Explanation =
                serde_json::from_str(&body).context("the daemon is of another version")?;
            Ok(text(&explanation))
        }
    }
}

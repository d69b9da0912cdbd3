//! `fairway get`: asks the daemon, and draws a table or passes its JSON on. It knows the rows only as types that
//! it shares with the daemon, in `views`.

use anyhow::{Context, Result};
use serde::de::DeserializeOwned;

use crate::admin::client::fetch;
use crate::cli::{GetArgs, Listing, Output};
use crate::views::{backends, connections, names, sandboxes, services, upstreams};

/// The listing as text.
///
/// # Errors
/// One sentence: the daemon does not answer.
pub(super) fn get(args: &GetArgs) -> Result<String> {
    match args.what {
        Listing::Services => show(args, "/services", services::text),
        Listing::Backends => show(args, "/backends", backends::text),
        Listing::Connections => show(args, "/connections", connections::text),
        Listing::Dns => show(args, "/dns", names::text),
        Listing::Upstreams => show(args, "/upstreams", upstreams::text),
        Listing::Sandboxes => show(args, "/sandboxes", sandboxes::text),
    }
}

fn show<T: DeserializeOwned>(args: &GetArgs, path: &str, text: fn(&[T]) -> String) -> Result<String> {
    let body = fetch(&args.place.run_dir, path)?;
    match args.output {
        Output::Json => Ok(body + "\n"),
        Output::Table => {
            let rows: Vec<T> = serde_json::from_str(&body).context("the daemon is of another version")?;
            Ok(text(&rows))
        }
    }
}

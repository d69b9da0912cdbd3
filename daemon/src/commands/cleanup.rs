//! `fairway cleanup`: removes what the daemon leaves in the kernel on purpose when it ends. Refused while a
//! daemon runs, and while sandboxes do: they need it.

use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};

use crate::admin::server::SOCKET;
use crate::cli::PlaceArgs;
use crate::network;

/// Says what was removed.
///
/// # Errors
/// One sentence that says what to do first, or what cannot be removed.
pub(super) fn cleanup(args: &PlaceArgs) -> Result<String> {
    if UnixStream::connect(args.run_dir.join(SOCKET)).is_ok() {
        bail!("a daemon runs on {}: stop it first", args.run_dir.display());
    }
    let running = sandbox::records(&args.run_dir);
    if let Some(record) = running.first() {
        bail!("{} sandboxes still run: end each with `fairway sandbox delete {}`", running.len(), record.pod);
    }
    let pins = args.bpf_dir.display();
    proxy::cleanup(&args.bpf_dir).with_context(|| format!("cannot remove the pins in {pins}"))?;
    network::close(&args.run_dir)?;
    for folder in [args.run_dir.join("pods"), args.run_dir.clone()] {
        // Not ours to take if something else is in it, or if it is a mount of the node's.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(format!(
        "removed programs and maps below {pins}\nremoved links, nftables rules and DNS addresses of this node\n"
    ))
}

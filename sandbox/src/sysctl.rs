//! Settings of the network namespace of the calling thread, by /proc/sys: the kernel shows each thread those of
//! its own namespace. A setting that has its value already is not written, so a read-only /proc/sys is enough
//! where somebody prepared the node.

use std::fs;
use std::io;
use std::path::PathBuf;

/// A setting could not be made.
#[derive(Debug, thiserror::Error)]
#[error("setting {path} to {value}: {source}")]
pub struct SysctlError {
    path: PathBuf,
    value: &'static str,
    source: io::Error,
}

/// Lets the namespace use IPv6 on loopback and on a link, whatever the default of the machine is.
pub(crate) fn enable_ipv6(link: &str) -> Result<(), SysctlError> {
    set("net/ipv6/conf/lo/disable_ipv6", "0")?;
    set(&format!("net/ipv6/conf/{link}/disable_ipv6"), "0")
}

/// Lets the namespace forward packets of a family.
pub(crate) fn enable_forwarding(ipv6: bool) -> Result<(), SysctlError> {
    if ipv6 {
        keep_router_advertisements()?;
    }
    set(forwarding(ipv6), "1")
}

/// Whether the namespace forwards packets of a family.
pub(crate) fn forwards(ipv6: bool) -> bool {
    read(forwarding(ipv6)).is_ok_and(|value| value == "1")
}

const fn forwarding(ipv6: bool) -> &'static str {
    if ipv6 { "net/ipv6/conf/all/forwarding" } else { "net/ipv4/ip_forward" }
}

/// A host that forwards stops listening to router advertisements (accept_ra = 1) and loses its own default
/// route; 2 keeps listening.
fn keep_router_advertisements() -> Result<(), SysctlError> {
    let Ok(links) = fs::read_dir("/proc/sys/net/ipv6/conf") else { return Ok(()) };
    for link in links.flatten() {
        let name = format!("net/ipv6/conf/{}/accept_ra", link.file_name().to_string_lossy());
        if read(&name).is_ok_and(|value| value == "1") {
            set(&name, "2")?;
        }
    }
    Ok(())
}

fn read(name: &str) -> io::Result<String> {
    Ok(fs::read_to_string(path(name))?.trim_end().to_owned())
}

fn set(name: &str, value: &'static str) -> Result<(), SysctlError> {
    if read(name).is_ok_and(|now| now == value) {
        return Ok(());
    }
    fs::write(path(name), value).map_err(|source| SysctlError { path: path(name), value, source })
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/proc/sys").join(name)
}

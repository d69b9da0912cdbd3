//! The plug-in `loopback`, which every runtime runs beside the configured one: it raises `lo` of the pod. For nodes that
//! have no other program of that name; attach raises `lo` anyway.

use std::path::Path;

use serde_json::{Value, json};

use super::failure::{Code, Failure};
use super::request::{Command, Request, Version};
use crate::attach::LOOPBACK;
use crate::namespace::NetworkNamespace;
use crate::netlink::Netlink;

/// The type that a configuration asks for it by.
pub(super) const TYPE: &str = "loopback";

/// Does what is asked, and gives what is to be told. What VERSION tells is the same for both plug-ins.
pub(super) fn run(request: &Request, version: Version) -> Result<Option<Value>, Failure> {
    match request.command {
        Command::Add => {
            let namespace = NetworkNamespace::open(Path::new(&request.netns))?;
            Netlink::open_in(&namespace)?.set_up(LOOPBACK)?;
            Ok(Some(answer(&request.netns, version)))
        }
        Command::Check => {
            let namespace = NetworkNamespace::open(Path::new(&request.netns))?;
            match Netlink::open_in(&namespace)?.link("lo")?.is_up {
                true => Ok(None),
                false => Err(Failure::new(Code::Missing, "link lo in the pod is down")),
            }
        }
        // It goes with the namespace.
        Command::Delete | Command::Collect | Command::Status | Command::Version => Ok(None),
    }
}

fn answer(netns: &str, version: Version) -> Value {
    let ip = |address: &str, family: &str| match version < Version::V1_0_0 {
        true => json!({"address": address, "interface": 0, "version": family}),
        false => json!({"address": address, "interface": 0}),
    };
    json!({
        "cniVersion": version.as_str(),
        "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": netns}],
        "ips": [ip("127.0.0.1/8", "4"), ip("::1/128", "6")],
        "dns": {},
    })
}

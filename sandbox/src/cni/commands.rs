//! What each command of the specification does, in terms of attach, detach and check. It parses nothing and
//! prints nothing: `request` came before, `answer` and `failure` come after.

use std::path::Path;

use serde_json::{Value, json};

use super::answer::answer;
use super::failure::{Code, Failure};
use super::request::{Command, Config, Request, Version};
use crate::attach::{AttachOptions, attach};
use crate::check::{check, status};
use crate::detach::{collect, detach};
use crate::namespace::NetworkNamespace;
use crate::node::{ensure_forwarding, node_mtu};

/// Does it, and gives what is to be told: nothing, for most.
pub(super) fn run(request: &Request, config: &Config, version: Version) -> Result<Option<Value>, Failure> {
    let since = match request.command {
        Command::Add | Command::Delete | Command::Version => Version::V0_3_1,
        Command::Check => Version::V0_4_0,
        Command::Collect | Command::Status => Version::V1_1_0,
    };
    if version < since {
        let (asked, since) = (version.as_str(), since.as_str());
        return Err(Failure::new(
            Code::IncompatibleVersion,
            format!("version {asked} of the specification has no {}: {since} does", request.command.as_str()),
        ));
    }
    match request.command {
        Command::Add => return add(request, config, version).map(Some),
        Command::Version => {
            let supported: Vec<_> = Version::ALL.iter().map(|version| version.as_str()).collect();
            return Ok(Some(json!({"cniVersion": version.as_str(), "supportedVersions": supported})));
        }
        Command::Delete => {
            detach(&request.container_id, &request.ifname, config.bpf_dir()?.as_deref())?;
        }
        Command::Check => compare(request, config)?,
        Command::Collect => collect(&config.valid_attachments()?, config.bpf_dir()?.as_deref())?,
        Command::Status => status(&config.pod_cidrs()?, config.bpf_dir()?.as_deref())?,
    }
    Ok(None)
}

fn add(request: &Request, config: &Config, version: Version) -> Result<Value, Failure> {
    let host_ports = config.host_ports()?;
    let ranges = config.pod_cidrs()?;
    let mtu = match config.mtu()? {
        Some(mtu) => mtu,
        None => node_mtu()?,
    };
    let namespace = NetworkNamespace::open(Path::new(&request.netns))?;
    if namespace.is_current()? {
        let message = format!("CNI_NETNS {} is the network namespace of the node", request.netns);
        return Err(Failure::new(Code::InvalidEnvironment, message));
    }
    ensure_forwarding(&ranges).map_err(|error| Failure::new(Code::Kernel, error.to_string()))?;
    let attachment = attach(&AttachOptions {
        namespace: &namespace,
        container_id: &request.container_id,
        ifname: &request.ifname,
        pod: request.pod.as_ref(),
        ranges: &ranges,
        mtu,
        bpf_dir: config.bpf_dir()?.as_deref(),
        host_ports: &host_ports,
    })?;
    Ok(answer(&attachment, &request.netns, mtu, version))
}

/// CHECK: what ADD made, and what it said that it made, is all there.
fn compare(request: &Request, config: &Config) -> Result<(), Failure> {
    let told = config.previous_addresses()?;
    let namespace = NetworkNamespace::open(Path::new(&request.netns))?;
    let bpf_dir = config.bpf_dir()?;
    let mut found = check(&namespace, &request.container_id, &request.ifname, bpf_dir.as_deref())?;
    if let Some(attachment) = &found.attachment {
        let untold = attachment.addresses.iter().filter(|ip| !told.contains(ip));
        found.missing.extend(untold.map(|ip| format!("address {ip} in prevResult")));
    }
    if found.missing.is_empty() {
        return Ok(());
    }
    let message = format!("missing of {} of container {}", request.ifname, request.container_id);
    let missing = found.missing.join(", ");
    Err(Failure::new(Code::Missing, format!("{message}: {missing}")).with_details(missing))
}

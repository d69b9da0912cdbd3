//! What types cannot say of a Pod: names, references, and what belongs together. The first mistake is told, by
//! the path of its field. Pure; called once a Pod has been read.

use std::collections::BTreeSet;

use super::pod::{Container, Naming, Pod, Work};
use crate::files::{DnsConfig, DnsPolicy, NAMESERVER_LIMIT, SEARCH_CHARACTERS, SEARCH_LIMIT};
use crate::names::{label, search, subdomain};

/// The fields of a pod that a variable may take its value from; two more take a key.
const FIELDS: [&str; 8] = [
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

pub(super) fn pod(pod: &Pod) -> Result<(), String> {
    subdomain("metadata.name", &pod.metadata.name)?;
    label("metadata.namespace", &pod.metadata.namespace)?;
    work(&pod.work)?;
    naming(&pod.naming)
}

fn work(work: &Work) -> Result<(), String> {
    if work.containers.is_empty() {
        return Err("spec.containers: is empty; a Pod has at least one".to_owned());
    }
    let volumes: BTreeSet<&str> = work.volumes.iter().map(|volume| volume.name.as_str()).collect();
    let mut names = BTreeSet::new();
    for (list, containers) in [("initContainers", &work.init_containers), ("containers", &work.containers)] {
        for (index, found) in containers.iter().enumerate() {
            let path = format!("spec.{list}[{index}]");
            container(&path, found, &volumes)?;
            if !names.insert(&found.name) {
                return Err(format!("{path}.name: {:?} is the name of another container too", found.name));
            }
        }
    }
    Ok(())
}

fn container(path: &str, container: &Container, volumes: &BTreeSet<&str>) -> Result<(), String> {
    if container.name.is_empty() {
        return Err(format!("{path}.name: is missing"));
    }
    label(&format!("{path}.name"), &container.name)?;
    for (index, variable) in container.env.iter().enumerate() {
        if variable.name.is_empty() || variable.name.contains(['=', '\0']) {
            return Err(format!(
                "{path}.env[{index}].name: {:?} is not the name of a variable",
                variable.name
            ));
        }
        if variable.value.is_some() && variable.value_from.is_some() {
            return Err(format!("{path}.env[{index}]: value and valueFrom exclude each other"));
        }
        if let Some(from) = variable.value_from.as_ref().and_then(|from| from.field_ref.as_ref()) {
            field_path(&format!("{path}.env[{index}].valueFrom.fieldRef.fieldPath"), &from.field_path)?;
        }
    }
    for (index, mount) in container.volume_mounts.iter().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        if !volumes.contains(mount.name.as_str()) {
            return Err(format!("{path}.name: there is no volume {:?}", mount.name));
        }
        if !mount.mount_path.starts_with('/') {
            return Err(format!("{path}.mountPath: {:?} does not begin with /", mount.mount_path));
        }
        if mount.sub_path.starts_with('/') || mount.sub_path.split('/').any(|part| part == "..") {
            return Err(format!("{path}.subPath: {:?} leaves the volume", mount.sub_path));
        }
    }
    Ok(())
}

fn field_path(path: &str, field: &str) -> Result<(), String> {
    let keyed = |prefix: &str| {
        field.strip_prefix(prefix).is_some_and(|key| key.starts_with("['") && key.ends_with("']"))
    };
    if FIELDS.contains(&field) || keyed("metadata.labels") || keyed("metadata.annotations") {
        return Ok(());
    }
    let known = FIELDS.join(", ");
    Err(format!(
        "{path}: {field:?} is not known here; {known}, metadata.labels['KEY'] and metadata.annotations['KEY'] are"
    ))
}

fn naming(naming: &Naming) -> Result<(), String> {
    for (path, name) in [("spec.hostname", &naming.hostname), ("spec.subdomain", &naming.subdomain)] {
        if let Some(name) = name.as_deref().filter(|name| !name.is_empty()) {
            label(path, name)?;
        }
    }
    for (index, alias) in naming.host_aliases.iter().enumerate() {
        for (number, name) in alias.hostnames.iter().enumerate() {
            subdomain(&format!("spec.hostAliases[{index}].hostnames[{number}]"), name)?;
        }
    }
    let nameservers = naming.dns_config.as_ref().map_or(0, |config| config.nameservers.len());
    if naming.dns_policy == DnsPolicy::None && nameservers == 0 {
        return Err("spec.dnsConfig.nameservers: is wanted with dnsPolicy None".to_owned());
    }
    naming.dns_config.as_ref().map_or(Ok(()), dns_config)
}

/// What the API server takes; what the cluster and the node add may go over the limits, and is cut.
fn dns_config(config: &DnsConfig) -> Result<(), String> {
    let characters = config.searches.join(" ").len();
    for (field, count, limit, what) in [
        ("nameservers", config.nameservers.len(), NAMESERVER_LIMIT, "entries"),
        ("searches", config.searches.len(), SEARCH_LIMIT, "entries"),
        ("searches", characters, SEARCH_CHARACTERS, "characters"),
    ] {
        if count > limit {
            return Err(format!("spec.dnsConfig.{field}: {count} {what}, and {limit} are the most"));
        }
    }
    for (index, domain) in config.searches.iter().enumerate() {
        search(&format!("spec.dnsConfig.searches[{index}]"), domain)?;
    }
    for (index, option) in config.options.iter().enumerate() {
        let words = [Some(&option.name), option.value.as_ref()];
        if option.name.is_empty()
            || words.into_iter().flatten().any(|word| word.contains(char::is_whitespace))
        {
            let path = format!("spec.dnsConfig.options[{index}]");
            return Err(format!("{path}: a name is wanted, and no blank in it or in the value"));
        }
    }
    Ok(())
}

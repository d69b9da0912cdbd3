//! `deploy/fairway.yaml` is what an API server takes: no field that it does not know, parts that fit each other, and
//! options that `fairway run` has.

#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests too")]

use std::collections::BTreeSet;

use clap::CommandFactory;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The object of a kind, which must have no field that the API does not know.
#[track_caller]
fn object<T: DeserializeOwned + Serialize>(kind: &str) -> T {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(include_str!("../../deploy/fairway.yaml")).unwrap();
    let found: Vec<_> = documents.into_iter().filter(|document| document["kind"] == kind).collect();
    let [written] = found.try_into().unwrap();
    let object: T = serde_json::from_value(written.clone()).unwrap();
    assert_eq!(serde_json::to_value(&object).unwrap(), written, "a field is unknown");
    object
}

#[test]
fn the_parts_fit_each_other() {
    let (account, role): (ServiceAccount, ClusterRole) = (object("ServiceAccount"), object("ClusterRole"));
    let binding: ClusterRoleBinding = object("ClusterRoleBinding");
    assert_eq!(Some(binding.role_ref.name), role.metadata.name);
    let subject = &binding.subjects.unwrap()[0];
    assert_eq!(Some(&subject.name), account.metadata.name.as_ref());
    assert_eq!(subject.namespace, account.metadata.namespace);

    let spec = object::<DaemonSet>("DaemonSet").spec.unwrap();
    let labels = spec.template.metadata.unwrap().labels.unwrap();
    let selected = spec.selector.match_labels.unwrap();
    assert!(selected.iter().all(|(key, value)| labels.get(key) == Some(value)));
    let pod = spec.template.spec.unwrap();
    assert_eq!(pod.service_account_name, account.metadata.name);
    let volumes: BTreeSet<String> = pod.volumes.unwrap().into_iter().map(|volume| volume.name).collect();
    let mounts = pod.containers[0].volume_mounts.clone().unwrap();
    assert_eq!(mounts.into_iter().map(|mount| mount.name).collect::<BTreeSet<_>>(), volumes);
    let config: ConfigMap = object("ConfigMap");
    let from = pod.containers[0].env_from.as_ref().unwrap()[0].config_map_ref.as_ref().unwrap();
    assert_eq!(Some(&from.name), config.metadata.name.as_ref());
}

#[test]
fn what_it_sets_are_options() {
    let command = fairway::cli::Cli::command();
    let run = command.find_subcommand("run").unwrap();
    let known: BTreeSet<_> =
        run.get_arguments().filter_map(|argument| argument.get_env()?.to_str()).collect();
    let config: ConfigMap = object("ConfigMap");
    let pod = object::<DaemonSet>("DaemonSet").spec.unwrap().template.spec.unwrap();
    let set = pod.containers[0].env.clone().unwrap().into_iter().map(|variable| variable.name);
    for name in set.chain(config.data.unwrap().into_keys()) {
        assert!(known.contains(name.as_str()), "{name}");
    }
}

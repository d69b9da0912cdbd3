//! Reads a Pod from a manifest as people write them, YAML or JSON. Every mistake is one sentence that names the
//! file, the object and the field; every field that has no effect is named. Pure: text in, Pod out.

mod check;
mod fields;
mod pod;

use serde::de::DeserializeOwned;
use serde_json::Value;

pub use pod::{
    Container, EmptyDir, EnvVar, FieldRef, HostPath, Metadata, Naming, Pod, PodPort, PortProtocol, ValueFrom,
    Volume, VolumeMount, Work,
};

/// What is wrong with a manifest.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {object}{problem}")]
pub struct ManifestError {
    file: String,
    /// `Pod ns/name: `, as far as it is known.
    object: String,
    problem: String,
}

/// A Pod with the paths of those of its fields that have no effect.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The Pod.
    pub pod: Pod,
    /// For example `spec.containers[0].resources`.
    pub without_effect: Vec<String>,
}

/// Reads the first Pod of a manifest. `file` is its name for messages.
pub fn read_pod(file: &str, text: &str) -> Result<Manifest, ManifestError> {
    let error = |problem: String| ManifestError { file: file.to_owned(), object: String::new(), problem };
    let documents = documents(text).map_err(error)?;
    let mut value = first_pod(documents).map_err(error)?;
    remove_nulls(&mut value);
    let object = name_of(&value);
    to_manifest(&value).map_err(|problem| ManifestError { file: file.to_owned(), object, problem })
}

fn documents(text: &str) -> Result<Vec<Value>, String> {
    if text.trim_start().starts_with('{') {
        // Several JSON objects in a row are several documents too.
        return serde_json::Deserializer::from_str(text)
            .into_iter()
            .collect::<Result<_, _>>()
            .map_err(|error| format!("not JSON: {error}"));
    }
    serde_saphyr::from_multiple(text).map_err(|error| {
        let message = error.to_string();
        format!("not YAML: {}", message.lines().next().unwrap_or_default())
    })
}

fn first_pod(documents: Vec<Value>) -> Result<Value, String> {
    let mut others = Vec::new();
    for document in documents {
        let kind = document.get("kind").and_then(Value::as_str).unwrap_or_default().to_owned();
        match (kind.as_str(), document) {
            ("Pod", pod) => return Ok(pod),
            ("List" | "PodList", list) => {
                let items = list.get("items").and_then(Value::as_array).into_iter().flatten();
                if let Some(pod) =
                    items.into_iter().find(|item| item.get("kind") == Some(&Value::from("Pod")))
                {
                    return Ok(pod.clone());
                }
                others.push(format!("{kind:?}"));
            }
            ("", Value::Null) => {}
            ("", Value::Object(_)) => others.push("an object without kind".to_owned()),
            ("", _) => others.push("something that is no object".to_owned()),
            (kind, _) => others.push(format!("{kind:?}")),
        }
    }
    if others.is_empty() {
        return Err("nothing in it; a Pod is wanted".to_owned());
    }
    Err(format!("kind: no Pod in it, but {}", others.join(", ")))
}

/// The API takes a field without a value as one that is not there.
fn remove_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(remove_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(remove_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn name_of(value: &Value) -> String {
    let text =
        |field: &str| value.get("metadata").and_then(|metadata| metadata.get(field)).and_then(Value::as_str);
    match text("name") {
        Some(name) => format!("Pod {}/{name}: ", text("namespace").unwrap_or("default")),
        None => "Pod: ".to_owned(),
    }
}

fn to_manifest(value: &Value) -> Result<Manifest, String> {
    let without_effect = fields::without_effect(value).map_err(|unknown| match unknown.meant {
        Some(meant) => format!("{}: there is no such field; did you mean {meant}?", unknown.path),
        None => format!("{}: there is no such field", unknown.path),
    })?;
    match value.get("apiVersion").map(|version| version.as_str().unwrap_or_default()) {
        Some("v1") => {}
        Some(other) => {
            return Err(format!("apiVersion: {other:?} is not that of a Pod; did you mean \"v1\"?"));
        }
        None => return Err("apiVersion: is missing; that of a Pod is \"v1\"".to_owned()),
    }
    let pod =
        Pod { metadata: part(value, "metadata")?, work: part(value, "spec")?, naming: part(value, "spec")? };
    check::pod(&pod)?;
    Ok(Manifest { pod, without_effect })
}

/// Reads one field of the Pod as a type. `spec` is read more than once, each time for some of its fields.
fn part<T: DeserializeOwned>(value: &Value, field: &str) -> Result<T, String> {
    let value = value.get(field).ok_or_else(|| format!("{field}: is missing"))?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { field.to_owned() } else { format!("{field}.{path}") };
        format!("{path}: {}", error.inner())
    })
}

#[cfg(test)]
mod tests;

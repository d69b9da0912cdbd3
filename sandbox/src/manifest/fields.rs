//! Every field of a Pod that the API knows, and what becomes of it here: used, or without effect. A field that
//! is in neither list is a mistake. Data and the walk over it; no decisions.

use serde_json::Value;

/// What is known of a field.
#[derive(Clone, Copy)]
enum Shape {
    /// Used; what is below it is checked where it is read.
    Used,
    /// The API knows it; it has no effect here.
    NoEffect,
    /// An object with these fields.
    Object(&'static [(&'static str, Shape)]),
    /// A list of objects with these fields.
    List(&'static [(&'static str, Shape)]),
}

use Shape::{List, NoEffect, Object, Used};

type Fields = &'static [(&'static str, Shape)];

const POD: Fields = &[
    ("apiVersion", Used),
    ("kind", Used),
    ("metadata", Object(METADATA)),
    ("spec", Object(SPEC)),
    ("status", NoEffect),
];

const METADATA: Fields = &[
    ("name", Used),
    ("namespace", Used),
    ("labels", Used),
    ("annotations", Used),
    ("creationTimestamp", NoEffect),
    ("deletionGracePeriodSeconds", NoEffect),
    ("deletionTimestamp", NoEffect),
    ("finalizers", NoEffect),
    ("generateName", NoEffect),
    ("generation", NoEffect),
    ("managedFields", NoEffect),
    ("ownerReferences", NoEffect),
    ("resourceVersion", NoEffect),
    ("selfLink", NoEffect),
    ("uid", NoEffect),
];

const SPEC: Fields = &[
    ("containers", List(CONTAINER)),
    ("initContainers", List(INIT_CONTAINER)),
    ("volumes", List(VOLUME)),
    ("hostAliases", List(&[("ip", Used), ("hostnames", Used)])),
    ("hostname", Used),
    ("subdomain", Used),
    ("setHostnameAsFQDN", Used),
    ("dnsPolicy", Used),
    ("dnsConfig", Object(DNS_CONFIG)),
    ("hostNetwork", Used),
    ("shareProcessNamespace", Used),
    ("enableServiceLinks", Used),
    ("terminationGracePeriodSeconds", Used),
    ("activeDeadlineSeconds", NoEffect),
    ("affinity", NoEffect),
    ("automountServiceAccountToken", NoEffect),
    ("ephemeralContainers", NoEffect),
    ("hostIPC", NoEffect),
    ("hostPID", NoEffect),
    ("hostUsers", NoEffect),
    ("hostnameOverride", NoEffect),
    ("imagePullSecrets", NoEffect),
    ("nodeName", NoEffect),
    ("nodeSelector", NoEffect),
    ("os", NoEffect),
    ("overhead", NoEffect),
    ("preemptionPolicy", NoEffect),
    ("priority", NoEffect),
    ("priorityClassName", NoEffect),
    ("readinessGates", NoEffect),
    ("resourceClaims", NoEffect),
    ("resources", NoEffect),
    ("restartPolicy", NoEffect),
    ("runtimeClassName", NoEffect),
    ("schedulerName", NoEffect),
    ("schedulingGates", NoEffect),
    ("securityContext", NoEffect),
    ("serviceAccount", NoEffect),
    ("serviceAccountName", NoEffect),
    ("tolerations", NoEffect),
    ("topologySpreadConstraints", NoEffect),
];

/// The fields of a container, and `restartPolicy`, which init containers use.
macro_rules! container {
    ($restart_policy:expr) => {
        &[
            ("name", Used),
            ("image", Used),
            ("command", Used),
            ("args", Used),
            ("env", List(ENV)),
            ("workingDir", Used),
            ("ports", List(PORT)),
            ("volumeMounts", List(VOLUME_MOUNT)),
            ("restartPolicy", $restart_policy),
            ("envFrom", NoEffect),
            ("imagePullPolicy", NoEffect),
            ("lifecycle", NoEffect),
            ("livenessProbe", NoEffect),
            ("readinessProbe", NoEffect),
            ("resizePolicy", NoEffect),
            ("resources", NoEffect),
            ("restartPolicyRules", NoEffect),
            ("securityContext", NoEffect),
            ("startupProbe", NoEffect),
            ("stdin", NoEffect),
            ("stdinOnce", NoEffect),
            ("terminationMessagePath", NoEffect),
            ("terminationMessagePolicy", NoEffect),
            ("tty", NoEffect),
            ("volumeDevices", NoEffect),
        ]
    };
}

const CONTAINER: Fields = container!(NoEffect);
const INIT_CONTAINER: Fields = container!(Used);

const ENV: Fields = &[
    ("name", Used),
    ("value", Used),
    (
        "valueFrom",
        Object(&[
            ("fieldRef", Object(&[("apiVersion", Used), ("fieldPath", Used)])),
            ("configMapKeyRef", NoEffect),
            ("fileKeyRef", NoEffect),
            ("resourceFieldRef", NoEffect),
            ("secretKeyRef", NoEffect),
        ]),
    ),
];

const PORT: Fields =
    &[("name", Used), ("containerPort", Used), ("protocol", Used), ("hostPort", Used), ("hostIP", Used)];

const VOLUME_MOUNT: Fields = &[
    ("name", Used),
    ("mountPath", Used),
    ("readOnly", Used),
    ("subPath", Used),
    ("mountPropagation", NoEffect),
    ("recursiveReadOnly", NoEffect),
    ("subPathExpr", NoEffect),
];

const VOLUME: Fields = &[
    ("name", Used),
    ("emptyDir", Object(&[("medium", NoEffect), ("sizeLimit", NoEffect)])),
    ("hostPath", Object(&[("path", Used), ("type", Used)])),
    ("awsElasticBlockStore", NoEffect),
    ("azureDisk", NoEffect),
    ("azureFile", NoEffect),
    ("cephfs", NoEffect),
    ("cinder", NoEffect),
    ("configMap", NoEffect),
    ("csi", NoEffect),
    ("downwardAPI", NoEffect),
    ("ephemeral", NoEffect),
    ("fc", NoEffect),
    ("flexVolume", NoEffect),
    ("flocker", NoEffect),
    ("gcePersistentDisk", NoEffect),
    ("gitRepo", NoEffect),
    ("glusterfs", NoEffect),
    ("image", NoEffect),
    ("iscsi", NoEffect),
    ("nfs", NoEffect),
    ("persistentVolumeClaim", NoEffect),
    ("photonPersistentDisk", NoEffect),
    ("portworxVolume", NoEffect),
    ("projected", NoEffect),
    ("quobyte", NoEffect),
    ("rbd", NoEffect),
    ("scaleIO", NoEffect),
    ("secret", NoEffect),
    ("storageos", NoEffect),
    ("vsphereVolume", NoEffect),
];

const DNS_CONFIG: Fields =
    &[("nameservers", Used), ("searches", Used), ("options", List(&[("name", Used), ("value", Used)]))];

/// A field that the API does not have, with the one that was probably meant.
pub(super) struct Unknown {
    pub(super) path: String,
    pub(super) meant: Option<&'static str>,
}

/// The paths of all fields of a Pod that have no effect, in the order of their lists above; or the first field
/// that does not exist.
pub(super) fn without_effect(pod: &Value) -> Result<Vec<String>, Unknown> {
    let mut found = Vec::new();
    walk(pod, POD, "", &mut found)?;
    Ok(found)
}

fn walk(value: &Value, fields: Fields, path: &str, found: &mut Vec<String>) -> Result<(), Unknown> {
    // What is not an object here is reported, with its place, where it is read.
    let Value::Object(object) = value else { return Ok(()) };
    for (name, value) in object {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        match fields.iter().find(|(known, _)| known == name).map(|(_, shape)| shape) {
            None => return Err(Unknown { path, meant: nearest(name, fields) }),
            Some(Used) => {}
            Some(NoEffect) => found.push(path),
            Some(Object(fields)) => walk(value, fields, &path, found)?,
            Some(List(fields)) => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    walk(item, fields, &format!("{path}[{index}]"), found)?;
                }
            }
        }
    }
    Ok(())
}

/// The known field that differs in at most a third of its letters.
fn nearest(name: &str, fields: Fields) -> Option<&'static str> {
    let candidates = fields.iter().map(|(known, _)| (distance(name, known), *known));
    candidates.filter(|(distance, known)| *distance * 3 <= known.len()).min().map(|(_, known)| known)
}

/// Levenshtein's distance, without regard to case.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.to_lowercase().chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

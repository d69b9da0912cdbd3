//! Notices as Events of the API server (`events.k8s.io/v1`), so that `kubectl describe` shows them. An Event that
//! every node would write has the same name on each, so the first one counts; the rate is bounded.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

use ::kube::api::{Api, PostParams};
use ::kube::{Client, Resource};
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use k8s_openapi::api::events::v1 as events;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use model::{Kind, ObjectName};
use serde::de::DeserializeOwned;

use super::{PROBE, wait};
use crate::notice::{Notice, Notices, Subject};

/// Who says so.
const CONTROLLER: &str = "fairway";
/// What was attempted when it happened: the API wants a word.
const ACTION: &str = "Program";
/// The API server forgets an Event after an hour; what still stands then may be said again.
const REMEMBERED: Duration = Duration::from_secs(3600);
/// What is remembered at most; one Event costs a few hundred bytes in every etcd.
const REMEMBERED_MAX: usize = 1024;
/// Events written at once, and after those one in so many seconds: what client-go allows a component.
const BURST: u32 = 25;
const REFILL: Duration = Duration::from_secs(10);
/// Limits of the API: of a note and of a name.
const NOTE_MAX: usize = 1024;
const NAME_MAX: usize = 253;
/// Cluster-scoped objects have their Events in the namespace `default`.
const DEFAULT_NAMESPACE: &str = "default";

/// Writes notices until it is dropped.
pub(super) async fn write(client: Client, node: String, notices: Notices) {
    let mut said: HashMap<u64, Instant> = HashMap::new();
    let mut pace = Pace { paid_until: Instant::now() };
    loop {
        let notice = notices.next().await;
        let key = key(&notice, &node);
        said.retain(|_, at| at.elapsed() < REMEMBERED);
        if said.contains_key(&key) || said.len() >= REMEMBERED_MAX {
            continue;
        }
        pace.take().await;
        said.insert(key, Instant::now());
        create(&client, &node, &notice, key).await;
    }
}

/// Tries until the server has said something; one that is away is told about when it is back.
async fn create(client: &Client, node: &str, notice: &Notice, key: u64) {
    let mut pause = PROBE.0;
    loop {
        let regarding = regarding(client, node, &notice.subject).await;
        let event = event(notice, regarding, node, key);
        let namespace = event.metadata.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        let api: Api<events::Event> = Api::namespaced(client.clone(), namespace);
        match api.create(&PostParams::default(), &event).await {
            Ok(_) => return,
            // Another node, or this one before it was started anew, has said it.
            Err(::kube::Error::Api(status)) if status.code == 409 => return,
            Err(::kube::Error::Api(status)) => {
                return tracing::warn!(reason = notice.reason, refused = %status.message, "no Event was written");
            }
            Err(error) => tracing::debug!(%error, "an Event waits for the API server"),
        }
        pause = wait(pause).await;
    }
}

fn event(notice: &Notice, regarding: core::ObjectReference, node: &str, key: u64) -> events::Event {
    let subject = regarding.name.as_deref().unwrap_or_default();
    let suffix = format!(".{key:016x}");
    let namespace = regarding.namespace.clone().unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned());
    events::Event {
        metadata: ObjectMeta {
            name: Some(
                cut(subject, NAME_MAX - suffix.len()).trim_end_matches(['.', '-']).to_owned() + &suffix,
            ),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        type_: Some("Warning".to_owned()),
        reason: Some(notice.reason.to_owned()),
        note: Some(cut(&notice.note, NOTE_MAX).to_owned()),
        action: Some(ACTION.to_owned()),
        event_time: Some(MicroTime(Timestamp::now())),
        regarding: Some(regarding),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(cut(&format!("{CONTROLLER}-{node}"), 128).to_owned()),
        ..events::Event::default()
    }
}

/// Equal for what is the same to a reader; the node counts only where the notice is about it.
fn key(notice: &Notice, node: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    notice.hash(&mut hasher);
    match notice.subject {
        Subject::Object(..) => {}
        Subject::ObjectHere(..) | Subject::Node => node.hash(&mut hasher),
    }
    hasher.finish()
}

/// The object as `kubectl describe` looks for it: with its uid, if it is still there.
async fn regarding(client: &Client, node: &str, subject: &Subject) -> core::ObjectReference {
    let (kind, name) = match subject {
        Subject::Object(kind, name) | Subject::ObjectHere(kind, name) => (*kind, name.clone()),
        Subject::Node => (Kind::Node, ObjectName::cluster_scoped(node)),
    };
    match kind {
        Kind::Service => {
            reference(Api::<core::Service>::namespaced(client.clone(), &name.namespace), &name).await
        }
        Kind::EndpointSlice => {
            reference(Api::<discovery::EndpointSlice>::namespaced(client.clone(), &name.namespace), &name)
                .await
        }
        Kind::Endpoints => {
            reference(Api::<core::Endpoints>::namespaced(client.clone(), &name.namespace), &name).await
        }
        Kind::Pod => reference(Api::<core::Pod>::namespaced(client.clone(), &name.namespace), &name).await,
        Kind::Namespace => reference(Api::<core::Namespace>::all(client.clone()), &name).await,
        Kind::Node => reference(Api::<core::Node>::all(client.clone()), &name).await,
    }
}

async fn reference<K>(api: Api<K>, name: &ObjectName) -> core::ObjectReference
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    // Without the uid the Event is still there for `kubectl get events`.
    let uid = api.get_metadata(&name.name).await.ok().and_then(|object| object.metadata.uid);
    core::ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        namespace: (!name.namespace.is_empty()).then(|| name.namespace.to_string()),
        name: Some(name.name.to_string()),
        uid,
        ..core::ObjectReference::default()
    }
}

/// The longest beginning of at most `most` octets.
fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

/// How far ahead of its allowance the writer is (the generic cell rate algorithm).
struct Pace {
    paid_until: Instant,
}

impl Pace {
    /// Waits until one more may be written.
    async fn take(&mut self) {
        let now = Instant::now();
        self.paid_until = self.paid_until.max(now) + REFILL;
        tokio::time::sleep(self.paid_until.saturating_duration_since(now + REFILL * BURST)).await;
    }
}

//! The cluster from the Kubernetes API: one watch for each kind, as events. The only module that knows the
//! crate `kube`; no type of it leaves this folder.
//!
//! An object is converted as it arrives and dropped: there is no store behind the watches, and a list never
//! holds more of the API's objects than one page. Called by `source::run`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::kube::api::Api;
use ::kube::runtime::watcher;
use ::kube::{Client, Resource};
use futures::StreamExt;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1 as discovery;
use model::{Event, Interner, Kind, Object, ObjectName};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

mod access;
mod events;
mod pulse;
mod token;

use self::pulse::Pulse;
use super::Error;
use super::convert::{self, BadObject};
use super::report::{Part, Problem, Reason, Reports};

/// Servers from this minor version on stream their lists by default (KEP-3157).
const STREAMING_SINCE: u32 = 34;
/// How long to wait before an absent server, or one that refuses, is asked again: at first, and at most.
const PROBE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));
/// How long one such question may take.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a server may usually say nothing: 5,000 nodes then ask 170 times a second, which is nothing beside
/// the leases that their kubelets renew.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// How many bad objects of one kind are remembered.
const BAD_OBJECTS_MAX: usize = 1_000;

/// How to reach the API server, and what of it to watch.
#[derive(Clone, Debug)]
pub struct Config {
    /// A kubeconfig; without one the service account of the pod, or else `$KUBECONFIG` and `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// The URL of the API server, in place of the one that the kubeconfig or the service account has: a
    /// node that balances services itself cannot reach the server by its ClusterIP before it has watched it.
    pub api_server: Option<String>,
    /// The name of this node.
    pub node_name: String,
    /// Watch all Nodes, not only this one: for routes to them.
    pub all_nodes: bool,
    /// Watch all Pods, not only those of this node: for verified pod names.
    pub all_pods: bool,
    /// How long a server may say nothing before it is asked whether it is there.
    pub patience: Duration,
}

/// Watches until `cancel` or until nobody listens.
pub(super) async fn run(
    config: Config,
    events: Sender<Event>,
    reports: Reports,
    cancel: CancellationToken,
) -> Result<(), Error> {
    let client = access::client(&config).await?;
    let link = Link { client, events, reports, doubt: Arc::default(), patience: config.patience };
    let mut tasks = JoinSet::new();
    tokio::select! {
        () = cancel.cancelled() => return Ok(()),
        server = link.first_contact() => link.start(&config, &server, &mut tasks),
    }
    // A watch ends only when nobody listens any more; the others have no reason to go on then.
    tokio::select! {
        () = cancel.cancelled() => Ok(()),
        ended = tasks.join_next() => match ended {
            Some(Err(error)) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Some(_) | None => Ok(()),
        },
    }
}

/// What the first answer of the server says.
#[derive(Clone, Copy, Debug)]
struct Server {
    streams_lists: bool,
    has_slices: bool,
}

/// The way from the server to whoever listens.
#[derive(Clone)]
struct Link {
    client: Client,
    events: Sender<Event>,
    reports: Reports,
    /// A watch has failed: is the server there?
    doubt: Arc<Notify>,
    patience: Duration,
}

impl Link {
    /// Asks until the server answers.
    async fn first_contact(&self) -> Server {
        let mut pause = PROBE.0;
        loop {
            match self.ask().await {
                Ok(server) => {
                    self.reports.heard();
                    return server;
                }
                Err(error) => self.reports.failed(SystemTime::now(), &error),
            }
            pause = wait(pause).await;
        }
    }

    async fn ask(&self) -> Result<Server, String> {
        let answers = async {
            let streams_lists = match self.client.apiserver_version().await {
                Ok(version) => is_streaming(&version.major, &version.minor),
                // The version is not for everybody; whoever refuses it is there.
                Err(::kube::Error::Api(_)) => false,
                Err(error) => return Err(error.to_string()),
            };
            let has_slices = match self.client.list_api_group_resources("discovery.k8s.io/v1").await {
                Err(::kube::Error::Api(status)) => status.code != 404,
                Err(error) => return Err(error.to_string()),
                Ok(_) => true,
            };
            Ok(Server { streams_lists, has_slices })
        };
        tokio::time::timeout(PROBE_TIMEOUT.min(self.patience), answers)
            .await
            .unwrap_or_else(|_| Err("no answer".to_owned()))
    }

    fn start(&self, config: &Config, server: &Server, tasks: &mut JoinSet<()>) {
        let all = watcher::Config::default();
        let named = |field: &str| all.clone().fields(&format!("{field}={}", config.node_name));
        let nodes = if config.all_nodes { all.clone() } else { named("metadata.name") };
        let pods = if config.all_pods { all.clone() } else { named("spec.nodeName") };
        let streaming = server.streams_lists;
        self.watch(tasks, Watch::new(Kind::Service, &self.client, all.clone(), service), streaming);
        self.watch(tasks, Watch::new(Kind::Namespace, &self.client, all.clone(), namespace), streaming);
        self.watch(tasks, Watch::new(Kind::Node, &self.client, nodes, node), streaming);
        self.watch(tasks, Watch::new(Kind::Pod, &self.client, pods, pod), streaming);
        // R17: one of the two kinds of endpoints; the list of the other is complete and empty.
        let other = if server.has_slices {
            self.watch(tasks, Watch::new(Kind::EndpointSlice, &self.client, all, slice), streaming);
            Kind::Endpoints
        } else {
            self.watch(tasks, Watch::new(Kind::Endpoints, &self.client, all, endpoints), streaming);
            Kind::EndpointSlice
        };
        tasks.spawn(self.clone().attend(other));
        let notices = self.reports.notices().clone();
        tasks.spawn(events::write(self.client.clone(), config.node_name.clone(), notices));
    }

    fn watch<K: Watchable>(&self, tasks: &mut JoinSet<()>, watch: Watch<K>, streaming: bool) {
        let sink = Sink {
            link: self.clone(),
            kind: watch.kind,
            list: Vec::new(),
            bad: BTreeMap::new(),
            names: Interner::default(),
        };
        tasks.spawn(watch.run(sink, streaming));
    }

    /// Completes the list of the kind that is not watched, and asks the server how it is whenever a watch
    /// has failed, and now and then. Ends when nobody listens.
    async fn attend(self, unwatched: Kind) {
        if self.events.send(Event::Replace(unwatched, Vec::new())).await.is_err() {
            return;
        }
        loop {
            tokio::select! {
                () = self.events.closed() => return,
                () = self.doubt.notified() => {}
                () = tokio::time::sleep(self.patience.mul_f64(rand::random_range(0.5..1.5))) => {}
            }
            let mut pause = PROBE.0;
            while let Err(error) = self.ask().await {
                self.reports.failed(SystemTime::now(), &error);
                pause = wait(pause).await;
            }
            self.reports.heard();
        }
    }
}

/// Waits for about `pause`, and says how long to wait the next time.
async fn wait(pause: Duration) -> Duration {
    // 5,000 nodes must not ask in step.
    tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
    (pause * 2).min(PROBE.1)
}

/// A version is two texts, the minor one with a `+` at some providers.
fn is_streaming(major: &str, minor: &str) -> bool {
    let digits: String = minor.chars().take_while(char::is_ascii_digit).collect();
    major == "1" && digits.parse().is_ok_and(|minor: u32| minor >= STREAMING_SINCE)
}

/// A type of the API that can be watched.
trait Watchable: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static {}
impl<K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static> Watchable
    for K
{
}

/// The watch of one kind.
struct Watch<K> {
    kind: Kind,
    api: Api<K>,
    config: watcher::Config,
    convert: fn(&K) -> Result<Option<Object>, BadObject>,
}

impl<K: Watchable> Watch<K> {
    fn new(
        kind: Kind,
        client: &Client,
        config: watcher::Config,
        convert: fn(&K) -> Result<Option<Object>, BadObject>,
    ) -> Self {
        Self { kind, api: Api::all(client.clone()), config, convert }
    }

    /// Lists and watches, again and again, until nobody listens.
    ///
    /// The pauses between failures are not the watcher's own: it takes the attempt of a list for a success, and
    /// so would ask a server that refuses the list once a second for ever.
    async fn run(self, mut sink: Sink, mut streaming: bool) {
        let mut pause = PROBE.0;
        loop {
            let config = if streaming { self.config.clone().streaming_lists() } else { self.config.clone() };
            let mut stream = std::pin::pin!(watcher(self.api.clone(), config));
            let mut pulse = Pulse::new(sink.link.reports.connection(), sink.link.patience);
            loop {
                let next = tokio::select! {
                    () = sink.link.events.closed() => return,
                    next = stream.next() => next,
                    () = pulse.lost() => None,
                };
                let again = match next {
                    Some(Ok(event)) => {
                        if !matches!(event, watcher::Event::Init) {
                            pause = PROBE.0;
                        }
                        pulse.heard(is_list(&event));
                        sink.take(event, self.convert).await;
                        continue;
                    }
                    Some(Err(error)) => {
                        pulse.failed();
                        sink.fail(&error)
                    }
                    None => {
                        sink.link.doubt.notify_one();
                        Again::List
                    }
                };
                tokio::select! {
                    () = sink.link.events.closed() => return,
                    longer = wait(pause) => pause = longer,
                }
                match again {
                    Again::Watch => {}
                    Again::List => break,
                    Again::ListInPages => {
                        streaming = false;
                        break;
                    }
                }
            }
        }
    }
}

/// Whether more of a list is to come.
const fn is_list<K>(event: &watcher::Event<K>) -> bool {
    match event {
        watcher::Event::Init | watcher::Event::InitApply(_) => true,
        watcher::Event::InitDone | watcher::Event::Apply(_) | watcher::Event::Delete(_) => false,
    }
}

/// What to do after a failure.
enum Again {
    /// The watcher goes on from where it is.
    Watch,
    /// Everything is to be listed anew.
    List,
    /// The same, and the server cannot stream lists.
    ListInPages,
}

/// Where the objects of one kind go.
struct Sink {
    link: Link,
    kind: Kind,
    /// The list that is being read.
    list: Vec<Object>,
    /// The objects that could not be taken.
    bad: BTreeMap<ObjectName, Problem>,
    names: Interner,
}

impl Sink {
    async fn take<K: Watchable>(
        &mut self,
        event: watcher::Event<K>,
        convert: fn(&K) -> Result<Option<Object>, BadObject>,
    ) {
        let event = match event {
            watcher::Event::Init => {
                self.list.clear();
                self.bad.clear();
                return;
            }
            watcher::Event::InitApply(object) => {
                match self.convert(&object, convert) {
                    Ok(object) => self.list.extend(object),
                    Err(bad) => self.note(bad),
                }
                return;
            }
            watcher::Event::InitDone => {
                self.report();
                Event::Replace(self.kind, std::mem::take(&mut self.list))
            }
            watcher::Event::Apply(object) => {
                let converted = self.convert(&object, convert);
                self.applied(&object, converted)
            }
            watcher::Event::Delete(object) => {
                let name = name(self.kind, &object);
                self.good(&name);
                Event::Delete(self.kind, name)
            }
        };
        // Whether anybody listens is looked at where the next event is awaited.
        let _closed = self.link.events.send(event).await;
    }

    fn convert<K: Watchable>(
        &mut self,
        object: &K,
        convert: fn(&K) -> Result<Option<Object>, BadObject>,
    ) -> Result<Option<Object>, BadObject> {
        let mut converted = convert(object)?;
        converted.iter_mut().for_each(|object| self.names.share(object));
        Ok(converted)
    }

    /// An object that cannot be taken, or that says nothing to a node, is as good as gone: a list that came
    /// now would not have it either.
    fn applied<K: Watchable>(&mut self, object: &K, converted: Result<Option<Object>, BadObject>) -> Event {
        let name = name(self.kind, object);
        match converted {
            Ok(converted) => {
                self.good(&name);
                converted.map_or(Event::Delete(self.kind, name), Event::Apply)
            }
            Err(bad) => {
                self.note(bad);
                self.report();
                Event::Delete(self.kind, name)
            }
        }
    }

    fn note(&mut self, bad: BadObject) {
        if self.bad.len() < BAD_OBJECTS_MAX {
            let text = bad.to_string();
            let problem = Problem::new(Reason::BadObject, text).about(bad.kind, bad.name.clone());
            self.bad.insert(bad.name, problem);
        }
    }

    fn good(&mut self, name: &ObjectName) {
        if self.bad.remove(name).is_some() {
            self.report();
        }
    }

    fn report(&self) {
        self.link.reports.replace(Part::Watch(self.kind), self.bad.values().cloned().collect());
    }

    fn fail(&self, error: &watcher::Error) -> Again {
        let status = match error {
            watcher::Error::InitialListFailed(::kube::Error::Api(status))
            | watcher::Error::WatchStartFailed(::kube::Error::Api(status)) => Some(status),
            watcher::Error::InitialListFailed(_)
            | watcher::Error::WatchStartFailed(_)
            | watcher::Error::WatchError(_)
            | watcher::Error::WatchFailed(_)
            | watcher::Error::NoResourceVersion => None,
        };
        let Some(status) = status else {
            tracing::debug!(kind = self.kind.as_str(), %error, "watch interrupted");
            self.link.doubt.notify_one();
            return Again::Watch;
        };
        match status.code {
            // The version to go on from is forgotten.
            410 => Again::List,
            // What a server says to `sendInitialEvents` that does not know it, or does not allow it.
            400 | 422 => Again::ListInPages,
            _ => {
                let text = format!("{}: the API server refuses: {}", self.kind.as_str(), status.message);
                let problem = Problem::new(Reason::Unreadable, text);
                self.link.reports.replace(Part::Watch(self.kind), vec![problem]);
                Again::Watch
            }
        }
    }
}

fn name<K: Watchable>(kind: Kind, object: &K) -> ObjectName {
    let metadata = object.meta();
    let name = metadata.name.as_deref().unwrap_or_default();
    if convert::is_namespaced(kind) {
        ObjectName::new(metadata.namespace.as_deref().unwrap_or("default"), name)
    } else {
        ObjectName::cluster_scoped(name)
    }
}

fn service(object: &core::Service) -> Result<Option<Object>, BadObject> {
    convert::service(object).map(|service| Some(Object::Service(service)))
}

fn namespace(object: &core::Namespace) -> Result<Option<Object>, BadObject> {
    convert::namespace(object).map(|name| Some(Object::Namespace(name)))
}

fn node(object: &core::Node) -> Result<Option<Object>, BadObject> {
    convert::node(object).map(|node| Some(Object::Node(node)))
}

fn pod(object: &core::Pod) -> Result<Option<Object>, BadObject> {
    convert::pod(object).map(|pod| Some(Object::Pod(pod)))
}

fn slice(object: &discovery::EndpointSlice) -> Result<Option<Object>, BadObject> {
    convert::endpoint_slice(object).map(|slice| slice.map(Object::EndpointSlice))
}

fn endpoints(object: &core::Endpoints) -> Result<Option<Object>, BadObject> {
    convert::endpoints(object).map(|endpoints| Some(Object::Endpoints(endpoints)))
}

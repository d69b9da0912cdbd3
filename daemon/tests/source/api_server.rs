//! As much of an API server as a watcher can tell: lists in pages, watches with and without initial events,
//! versions, and the ways in which a real one fails. Objects in memory, HTTP/1.1 on the loopback.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use futures::StreamExt;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Bytes, Frame, Incoming};
use hyper::header::{AUTHORIZATION, HeaderMap};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

type Body = BoxBody<Bytes, Infallible>;

pub(crate) struct ApiServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
}

struct State {
    minor: String,
    version: u64,
    /// By path, then by namespace and name.
    objects: BTreeMap<String, BTreeMap<(String, String), Value>>,
    /// Version, path, kind of the change, object.
    history: Vec<(u64, String, &'static str, Value)>,
    /// Versions before this one are forgotten.
    oldest: u64,
    forbidden: BTreeSet<String>,
    streams: bool,
    slices: bool,
    /// Some: the next resumed watch of services is refused, as HTTP status or as an event.
    expire: Option<bool>,
    requests: Vec<String>,
    /// When each came.
    asked: Vec<Instant>,
    network: Network,
}

/// How the server is reached.
#[derive(Default)]
struct Network {
    /// Requests are taken and never answered.
    silent: bool,
    /// What every request must say in its header `Authorization`.
    authorization: Option<String>,
    /// Watches of an earlier life say nothing any more, and stay open.
    life: u64,
    /// Cancelled to cut all connections.
    connections: CancellationToken,
    /// Cancelled to stop listening.
    listening: CancellationToken,
}

impl ApiServer {
    pub(crate) async fn start(minor: &str) -> Self {
        let state = State {
            minor: minor.to_owned(),
            version: 10,
            objects: BTreeMap::new(),
            history: Vec::new(),
            oldest: 0,
            forbidden: BTreeSet::new(),
            streams: true,
            slices: true,
            expire: None,
            requests: Vec::new(),
            asked: Vec::new(),
            network: Network::default(),
        };
        let mut server = Self {
            address: "127.0.0.1:0".parse().unwrap(),
            state: Arc::new(Mutex::new(state)),
            changed: Arc::new(watch::Sender::new(0)),
        };
        server.address = server.listen().await;
        server
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: 'http://{}'}}}}]\n\
             users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n",
            self.address
        )
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        let version = self.store(path, object, true);
        self.changed.send_replace(version);
    }

    /// Without telling the watches.
    pub(crate) fn put_silently(&self, path: &str, object: Value) {
        self.store(path, object, false);
    }

    fn store(&self, path: &str, mut object: Value, told: bool) -> u64 {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version;
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
        let key = (text("namespace"), text("name"));
        let known = state.objects.entry(path.to_owned()).or_default().insert(key, object.clone());
        if told {
            let change = if known.is_some() { "MODIFIED" } else { "ADDED" };
            state.history.push((version, path.to_owned(), change, object));
        }
        version
    }

    pub(crate) fn delete(&self, path: &str, namespace: &str, name: &str) {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        let version = state.version;
        let objects = state.objects.get_mut(path).unwrap();
        let mut object = objects.remove(&(namespace.to_owned(), name.to_owned())).unwrap();
        object["metadata"]["resourceVersion"] = json!(version.to_string());
        state.history.push((version, path.to_owned(), "DELETED", object));
        drop(state);
        self.changed.send_replace(version);
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }

    /// The objects of a path.
    pub(crate) fn objects(&self, path: &str) -> Vec<Value> {
        let state = self.state.lock().unwrap();
        state.objects.get(path).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    pub(crate) fn refuse_streaming(&self) {
        self.state.lock().unwrap().streams = false;
    }

    pub(crate) fn forget_slices(&self) {
        self.state.lock().unwrap().slices = false;
    }

    pub(crate) fn forbid(&self, path: &str) {
        self.state.lock().unwrap().forbidden.insert(path.to_owned());
    }

    pub(crate) fn expire_once(&self, at_start: bool) {
        self.state.lock().unwrap().expire = Some(at_start);
    }

    pub(crate) fn forget_history(&self) {
        let mut state = self.state.lock().unwrap();
        state.oldest = state.version;
    }

    /// Who does not bring this token is refused.
    pub(crate) fn demand_token(&self, token: &str) {
        self.state.lock().unwrap().network.authorization = Some(format!("Bearer {token}"));
    }

    /// Like a machine that has lost its power: nothing is answered, and nothing is closed.
    pub(crate) fn fall_silent(&self) {
        let mut state = self.state.lock().unwrap();
        state.network.silent = true;
        state.network.life += 1;
    }

    /// New requests are answered again; what was open stays silent.
    pub(crate) fn speak(&self) {
        self.state.lock().unwrap().network.silent = false;
    }

    /// When requests came whose target begins so.
    pub(crate) fn times(&self, path: &str) -> Vec<Instant> {
        let state = self.state.lock().unwrap();
        let all = std::iter::zip(&state.requests, &state.asked);
        all.filter(|(request, _)| request.starts_with(path)).map(|(_, at)| *at).collect()
    }

    pub(crate) fn drop_connections(&self) {
        let mut state = self.state.lock().unwrap();
        std::mem::take(&mut state.network.connections).cancel();
    }

    pub(crate) fn go_away(&self) {
        let mut state = self.state.lock().unwrap();
        std::mem::take(&mut state.network.listening).cancel();
        std::mem::take(&mut state.network.connections).cancel();
    }

    pub(crate) async fn come_back(&self) {
        self.listen().await;
    }

    async fn listen(&self) -> SocketAddr {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        // The listener of before may be a moment from its end.
        while socket.bind(self.address).is_err() {
            tokio::task::yield_now().await;
        }
        let listener = socket.listen(64).unwrap();
        let address = listener.local_addr().unwrap();
        let listening = self.state.lock().unwrap().network.listening.clone();
        tokio::spawn(accept(listener, listening, self.state.clone(), self.changed.clone()));
        address
    }
}

async fn accept(
    listener: TcpListener,
    listening: CancellationToken,
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
) {
    loop {
        let (stream, _) = tokio::select! {
            () = listening.cancelled() => return,
            accepted = listener.accept() => accepted.unwrap(),
        };
        let (state, changed) = (state.clone(), changed.clone());
        let cut = state.lock().unwrap().network.connections.clone();
        tokio::spawn(async move {
            let service =
                hyper::service::service_fn(|request| answer(request, state.clone(), changed.clone()));
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                () = cut.cancelled() => {}
                _ended = connection => {}
            }
        });
    }
}

async fn answer(
    request: Request<Incoming>,
    state: Arc<Mutex<State>>,
    changed: Arc<watch::Sender<u64>>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let query: BTreeMap<String, String> = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        })
        .collect();
    if request.method() == Method::POST {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        return Ok(create(&mut state.lock().unwrap(), &path, serde_json::from_slice(&body).unwrap()));
    }
    let is_silent = state.lock().unwrap().network.silent;
    if is_silent {
        return std::future::pending().await;
    }
    let mut locked = state.lock().unwrap();
    locked.requests.push(request.uri().to_string());
    locked.asked.push(Instant::now());
    if let Some(answer) = refusal(&locked, &path, request.headers()) {
        return Ok(answer);
    }
    if let Some(object) = one(&locked, &path) {
        return Ok(full(StatusCode::OK, object));
    }
    if let Some(answer) = discovery(&locked, &path) {
        return Ok(answer);
    }
    if !query.contains_key("watch") {
        return Ok(list(&locked, &path, &query));
    }
    let initial = query.contains_key("sendInitialEvents");
    if initial && !locked.streams {
        return Ok(refuse(
            422,
            "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
        ));
    }
    let since: u64 = query.get("resourceVersion").and_then(|text| text.parse().ok()).unwrap_or(0);
    let expired = !initial && since < locked.oldest;
    let expire = if path.ends_with("/services") && !initial { locked.expire.take() } else { None };
    match expire {
        Some(true) => return Ok(refuse(410, "too old resource version")),
        Some(false) => return Ok(watch_from(Vec::from([gone()]), None)),
        None if expired => return Ok(watch_from(Vec::from([gone()]), None)),
        None => {}
    }
    let mut first = Vec::new();
    let mut from = since;
    if initial {
        for object in locked.objects.get(&path).into_iter().flat_map(BTreeMap::values) {
            first.push(json!({"type": "ADDED", "object": object}));
        }
        from = locked.version;
        first.push(
            json!({"type": "BOOKMARK", "object": {"kind": "Bookmark", "apiVersion": "v1", "metadata": {
            "resourceVersion": from.to_string(), "annotations": {"k8s.io/initial-events-end": "true"}}}}),
        );
    }
    drop(locked);
    Ok(watch_from(first, Some((from, path, state, changed))))
}

/// For whoever may ask nothing, or not for this.
fn refusal(state: &State, path: &str, headers: &HeaderMap) -> Option<Response<Body>> {
    let demanded = state.network.authorization.as_ref();
    if demanded.is_some_and(|text| headers.get(AUTHORIZATION).is_none_or(|said| said != text)) {
        return Some(refuse(401, "Unauthorized"));
    }
    let is_forbidden = state.forbidden.contains(path);
    is_forbidden.then(|| refuse(403, &format!("{} is forbidden", path.rsplit('/').next().unwrap())))
}

/// What a client asks before it asks for objects.
fn discovery(state: &State, path: &str) -> Option<Response<Body>> {
    match path {
        "/version" => Some(full(
            StatusCode::OK,
            &json!({"major": "1", "minor": state.minor, "gitVersion": "", "gitCommit": "",
                "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
        )),
        "/apis/discovery.k8s.io/v1" if !state.slices => {
            Some(refuse(404, "the server could not find the requested resource"))
        }
        "/apis/discovery.k8s.io/v1" => Some(full(
            StatusCode::OK,
            &json!({"kind": "APIResourceList", "groupVersion": "discovery.k8s.io/v1", "resources": []}),
        )),
        _ => None,
    }
}

fn gone() -> Value {
    json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": 410, "reason": "Expired", "message": "too old resource version"}})
}

/// `/api/v1/namespaces/NAMESPACE/KIND/NAME`, as objects are kept: by the path of all of their kind.
fn one<'a>(state: &'a State, path: &str) -> Option<&'a Value> {
    let (start, rest) = path.split_once("/namespaces/")?;
    let [namespace, kind, name] = rest.split('/').collect::<Vec<_>>().try_into().ok()?;
    state.objects.get(&format!("{start}/{kind}"))?.get(&(namespace.to_owned(), name.to_owned()))
}

fn create(state: &mut State, path: &str, object: Value) -> Response<Body> {
    let key = |field: &str| object["metadata"][field].as_str().unwrap().to_owned();
    let (start, rest) = path.split_once("/namespaces/").unwrap();
    let (namespace, kind) = rest.split_once('/').unwrap();
    assert_eq!(key("namespace"), namespace, "as a real server would ask for");
    let objects = state.objects.entry(format!("{start}/{kind}")).or_default();
    match objects.entry((key("namespace"), key("name"))) {
        Entry::Occupied(_) => refuse(409, "already exists"),
        Entry::Vacant(free) => full(StatusCode::CREATED, free.insert(object)),
    }
}

fn list(state: &State, path: &str, query: &BTreeMap<String, String>) -> Response<Body> {
    let all: Vec<&Value> = state.objects.get(path).into_iter().flat_map(BTreeMap::values).collect();
    let limit = query.get("limit").and_then(|text| text.parse().ok()).unwrap_or(usize::MAX);
    let start: usize = query.get("continue").and_then(|text| text.parse().ok()).unwrap_or(0);
    let end = start.saturating_add(limit).min(all.len());
    let mut metadata = json!({"resourceVersion": state.version.to_string()});
    if end < all.len() {
        metadata["continue"] = json!(end.to_string());
    }
    full(
        StatusCode::OK,
        &json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": all[start..end]}),
    )
}

type Rest = (u64, String, Arc<Mutex<State>>, Arc<watch::Sender<u64>>);

/// A stream of lines: these first, then the changes of a path as they come.
fn watch_from(first: Vec<Value>, rest: Option<Rest>) -> Response<Body> {
    let (lines, stream) = mpsc::unbounded_channel::<Value>();
    for line in first {
        lines.send(line).unwrap();
    }
    if let Some((mut from, path, state, changed)) = rest {
        let mut changes = changed.subscribe();
        let life = state.lock().unwrap().network.life;
        tokio::spawn(async move {
            loop {
                changes.mark_unchanged();
                let news: Vec<_> = {
                    let state = state.lock().unwrap();
                    if state.network.life != life {
                        break;
                    }
                    let of = |entry: &&(u64, String, &str, Value)| entry.0 > from && entry.1 == path;
                    state.history.iter().filter(of).cloned().collect()
                };
                for (version, _, change, object) in news {
                    from = version;
                    if lines.send(json!({"type": change, "object": object})).is_err() {
                        return;
                    }
                }
                tokio::select! {
                    () = lines.closed() => return,
                    changed = changes.changed() => if changed.is_err() { return },
                }
            }
            lines.closed().await;
        });
    }
    let stream = futures::stream::unfold(stream, |mut stream| async { Some((stream.recv().await?, stream)) });
    let frames = stream.map(|line| Ok(Frame::data(Bytes::from(format!("{line}\n")))));
    Response::builder()
        .header("content-type", "application/json")
        .body(BodyExt::boxed(StreamBody::new(SyncStream(Mutex::new(frames.boxed())))))
        .unwrap()
}

/// A boxed body must be Sync; only one task ever polls it.
struct SyncStream(Mutex<futures::stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>>);

impl futures::Stream for SyncStream {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.0.get_mut().unwrap().poll_next_unpin(context)
    }
}

fn refuse(code: u16, message: &str) -> Response<Body> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message,
        "reason": "", "code": code});
    full(StatusCode::from_u16(code).unwrap(), &status)
}

fn full(code: StatusCode, value: &Value) -> Response<Body> {
    let body = Full::new(Bytes::from(value.to_string()));
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(BodyExt::boxed(body))
        .unwrap()
}

//! The Kubernetes source against a small API server in this process: lists, watches, lost connections,
//! forgotten versions, refusals.
#![expect(clippy::unwrap_used, reason = "everything here is a test")]

mod api_server;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use api_server::ApiServer;
use fairway::health::Health;
use fairway::notice::{Notice, Subject};
use fairway::source::{Connection, Error, Reports, SourceConfig, kube, run};
use model::{Cluster, Event, Kind, ObjectName, Snapshot};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Far longer than anything here takes; only a failure waits for it.
const PATIENCE: Duration = Duration::from_secs(60);

const SERVICES: &str = "/api/v1/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/endpointslices";
const ENDPOINTS: &str = "/api/v1/endpoints";
const NODES: &str = "/api/v1/nodes";
const EVENTS: &str = "/apis/events.k8s.io/v1/events";
const PODS: &str = "/api/v1/pods";

struct Bench {
    server: ApiServer,
    _kubeconfig: tempfile::TempDir,
    events: mpsc::Receiver<Event>,
    cluster: Cluster,
    reports: Reports,
    cancel: CancellationToken,
    log: Vec<String>,
}

impl Bench {
    async fn start(server: ApiServer) -> Self {
        let kubeconfig = server.kubeconfig();
        Self::reach(server, &kubeconfig, None)
    }

    fn reach(server: ApiServer, kubeconfig: &str, api_server: Option<String>) -> Self {
        Self::reach_within(server, kubeconfig, api_server, kube::PATIENCE)
    }

    /// With little patience for a server that says nothing.
    fn impatient(server: ApiServer) -> Self {
        let kubeconfig = server.kubeconfig();
        Self::reach_within(server, &kubeconfig, None, Duration::from_millis(300))
    }

    fn reach_within(
        server: ApiServer,
        kubeconfig: &str,
        api_server: Option<String>,
        patience: Duration,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, kubeconfig).unwrap();
        let config = kube::Config {
            kubeconfig: Some(path),
            api_server,
            node_name: "a".to_owned(),
            all_nodes: false,
            all_pods: false,
            patience,
        };
        let (sender, events) = mpsc::channel(1024);
        let (reports, cancel) = (Reports::new(), CancellationToken::new());
        tokio::spawn(run(SourceConfig::Kube(config), sender, reports.clone(), cancel.clone()));
        let cluster = Cluster::new();
        Self { server, _kubeconfig: folder, events, cluster, reports, cancel, log: Vec::new() }
    }

    async fn until(&mut self, what: &str, condition: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let snapshot = self.cluster.snapshot();
                if condition(&snapshot) {
                    return snapshot;
                }
                let event = self.events.recv().await.expect("the source goes on");
                self.log.push(format!("{event:?}"));
                self.cluster.apply(event);
            }
        });
        let result = waited.await;
        result.unwrap_or_else(|_| panic!("{what} never came; seen:\n{}", self.log.join("\n")))
    }

    async fn until_connection(&self, condition: impl Fn(&Connection) -> bool) {
        let mut connection = self.reports.connection();
        let changed = tokio::time::timeout(PATIENCE, connection.wait_for(condition)).await;
        changed.expect("the connection changes").unwrap();
    }

    /// The Events, once there are so many.
    async fn events_until(&self, count: usize) -> Vec<Value> {
        let waited = tokio::time::timeout(PATIENCE, async {
            loop {
                let events = self.server.objects(EVENTS);
                if events.len() >= count {
                    return events;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("the Events are written")
    }

    fn problems(&self) -> Vec<String> {
        self.reports.list().iter().map(ToString::to_string).collect()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn service(name: &str, port: i64) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop"},
           "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": port}]}})
}

fn slice(name: &str, address: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
           "addressType": "IPv4", "endpoints": [{"addresses": [address]}], "ports": [{"port": 80}]})
}

fn node(name: &str) -> Value {
    json!({"metadata": {"name": name}, "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.1"}]}})
}

fn ports(snapshot: &Snapshot) -> Vec<(String, u16)> {
    let port = |(name, member): (&ObjectName, &Arc<model::Member>)| {
        (name.name.to_string(), member.service.ports[0].port)
    };
    snapshot.services.iter().map(port).collect()
}

fn web(snapshot: &Snapshot, port: u16) -> bool {
    ports(snapshot).contains(&("web".to_owned(), port))
}

fn endpoints(snapshot: &Snapshot) -> Vec<String> {
    let member = snapshot.services.get(&ObjectName::new("shop", "web"));
    member
        .iter()
        .flat_map(|member| member.all_endpoints())
        .map(|endpoint| endpoint.address.to_string())
        .collect()
}

async fn small_server() -> ApiServer {
    let server = ApiServer::start("30").await;
    server.put(SERVICES, service("web", 80));
    server.put(SLICES, slice("web-1", "10.1.0.2"));
    server.put(NODES, node("a"));
    server
}

#[tokio::test]
async fn lists_then_changes() {
    let mut bench = Bench::start(small_server().await).await;
    let all = |snapshot: &Snapshot| Kind::ALL.iter().all(|kind| snapshot.listed.contains(*kind));
    let snapshot = bench.until("all lists", all).await;
    assert_eq!(endpoints(&snapshot), ["10.1.0.2"]);
    assert_eq!(snapshot.nodes.len(), 1);
    assert!(bench.log.iter().all(|event| event.starts_with("Replace")), "{:?}", bench.log);
    bench.server.put(SERVICES, service("web", 81));
    bench.until("the change", |snapshot| web(snapshot, 81)).await;
    bench.server.put(SLICES, slice("web-2", "10.1.0.3"));
    bench.until("the second slice", |snapshot| endpoints(snapshot) == ["10.1.0.2", "10.1.0.3"]).await;
    bench.server.delete(SLICES, "shop", "web-1");
    bench.until("the first slice's end", |snapshot| endpoints(snapshot) == ["10.1.0.3"]).await;
    // The own node and its pods are all that is asked for.
    let asked = bench.server.requests();
    let filtered = |path: &str, field: &str| {
        let mut of = asked.iter().filter(|request| request.starts_with(path));
        of.all(|request| request.contains(field))
    };
    assert!(filtered(NODES, "fieldSelector=metadata.name%3Da"), "{asked:?}");
    assert!(filtered(PODS, "fieldSelector=spec.nodeName%3Da"), "{asked:?}");
    assert!(!asked.iter().any(|request| request.starts_with(ENDPOINTS)), "{asked:?}");
    assert_eq!(*bench.reports.connection().borrow(), Connection::Connected);
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let server = ApiServer::start("30").await;
    for n in 0..1200 {
        server.put(SERVICES, service(&format!("s{n}"), 80));
    }
    let mut bench = Bench::start(server).await;
    bench.until("all services", |snapshot| snapshot.services.len() == 1200).await;
    let pages = bench
        .server
        .requests()
        .iter()
        .filter(|request| request.starts_with(SERVICES) && request.contains("limit=500"))
        .count();
    assert_eq!(pages, 3);
    let replaced = bench.log.iter().filter(|event| event.starts_with("Replace(Service")).count();
    assert_eq!(replaced, 1);
}

#[tokio::test]
async fn servers_that_stream_lists_are_let_to() {
    let server = ApiServer::start("34+").await;
    server.put(SERVICES, service("web", 80));
    let mut bench = Bench::start(server).await;
    bench.until("the service", |snapshot| web(snapshot, 80)).await;
    let streamed =
        |request: &String| request.starts_with(SERVICES) && request.contains("sendInitialEvents=true");
    assert!(bench.server.requests().iter().any(streamed), "{:?}", bench.server.requests());
    bench.server.put(SERVICES, service("web", 81));
    bench.until("the change", |snapshot| web(snapshot, 81)).await;
}

#[tokio::test]
async fn servers_that_refuse_to_stream_lists_are_asked_for_pages() {
    let server = ApiServer::start("34").await;
    server.refuse_streaming();
    server.put(SERVICES, service("web", 80));
    let mut bench = Bench::start(server).await;
    bench.until("the service", |snapshot| web(snapshot, 80)).await;
    assert_eq!(bench.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn scenario_36_what_was_deleted_while_the_server_was_away_is_gone_after_the_relist() {
    let mut bench = Bench::start(small_server().await).await;
    bench.until("the endpoint", |snapshot| endpoints(snapshot) == ["10.1.0.2"]).await;
    bench.server.put(SLICES, slice("web-2", "10.1.0.3"));
    bench.until("both", |snapshot| endpoints(snapshot).len() == 2).await;
    bench.server.go_away();
    bench.until_connection(|connection| matches!(connection, Connection::Away { .. })).await;
    // What is known stays meanwhile.
    assert_eq!(endpoints(&bench.cluster.snapshot()).len(), 2);
    bench.server.delete(SLICES, "shop", "web-1");
    bench.server.forget_history();
    bench.server.come_back().await;
    bench.until("the relist", |snapshot| endpoints(snapshot) == ["10.1.0.3"]).await;
    bench.until_connection(|connection| *connection == Connection::Connected).await;
    let relists = bench.log.iter().filter(|event| event.starts_with("Replace(EndpointSlice")).count();
    assert_eq!(relists, 2);
    assert!(!bench.log.iter().any(|event| event.starts_with("Delete(EndpointSlice")), "{:?}", bench.log);
}

#[tokio::test]
async fn a_dropped_connection_is_taken_up_where_it_ended() {
    let mut bench = Bench::start(small_server().await).await;
    bench.until("the service", |snapshot| web(snapshot, 80)).await;
    bench.server.drop_connections();
    bench.server.put(SERVICES, service("web", 81));
    bench.until("the change", |snapshot| web(snapshot, 81)).await;
    let lists = bench.log.iter().filter(|event| event.starts_with("Replace(Service")).count();
    assert_eq!(lists, 1, "a watch is resumed, not listed anew");
}

#[tokio::test]
async fn a_server_that_falls_silent_is_noticed_and_what_was_missed_is_listed() {
    let mut bench = Bench::impatient(small_server().await);
    bench.until("the service", |snapshot| web(snapshot, 80)).await;
    bench.server.fall_silent();
    bench.server.put(SERVICES, service("web", 81));
    // Nothing is closed, and no watch fails: only that questions are not answered tells.
    bench.until_connection(|connection| matches!(connection, Connection::Away { .. })).await;
    assert!(web(&bench.cluster.snapshot(), 80), "what is known stays");
    bench.server.speak();
    bench.until("what was missed", |snapshot| web(snapshot, 81)).await;
    bench.until_connection(|connection| *connection == Connection::Connected).await;
}

#[tokio::test]
async fn a_list_that_never_ends_is_given_up_and_asked_for_anew() {
    let server = small_server().await;
    server.fall_silent();
    let mut bench = Bench::impatient(server);
    bench.until_connection(|connection| matches!(connection, Connection::Away { .. })).await;
    bench.server.speak();
    bench.until("the service", |snapshot| web(snapshot, 80) && snapshot.is_complete()).await;
}

#[tokio::test]
async fn an_absent_server_is_asked_less_and_less_often_and_out_of_step() {
    let server = small_server().await;
    server.forbid(PODS);
    let mut bench = Bench::start(server).await;
    bench.until("the service", |snapshot| web(snapshot, 80)).await;
    let asked = tokio::time::timeout(PATIENCE, async {
        loop {
            let times = bench.server.times(PODS);
            if times.len() >= 4 {
                return times;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let times = asked.await.expect("it is asked again");
    let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    // Half a second, doubled each time, and the half of that at least: a busy machine makes gaps only longer.
    let least = [250, 500, 1000].map(Duration::from_millis);
    assert!(gaps.iter().zip(least).all(|(gap, least)| *gap >= least), "it does not back off: {gaps:?}");
    let whole = |gap: &Duration| gap.as_millis().is_multiple_of(100);
    assert!(!gaps.iter().all(whole), "every node would ask in step: {gaps:?}");
}

#[tokio::test]
async fn scenario_36_an_absent_server_is_told_with_since_when() {
    let mut bench = Bench::start(small_server().await).await;
    bench.until("the service", |snapshot| web(snapshot, 80)).await;
    let health = Health::new(bench.reports.connection(), bench.reports.notices().clone());
    health.applied(1, false, SystemTime::now());
    let mut registry = Registry::default();
    bench.reports.register(&mut registry);
    let metric = |name: &str| {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
        line.parse::<i64>().unwrap()
    };
    assert_eq!((metric("source_connected"), metric("source_away_since_timestamp_seconds")), (1, 0));
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    bench.server.go_away();
    bench.until_connection(|connection| matches!(connection, Connection::Away { .. })).await;
    let since = metric("source_away_since_timestamp_seconds");
    assert!(metric("source_connected") == 0 && since >= i64::try_from(before).unwrap(), "{since}");
    let status = health.status(SystemTime::now());
    assert!(status.is_eligible() && status.api_server_away.is_some(), "{status:?}");
    bench.server.come_back().await;
    bench.until_connection(|connection| *connection == Connection::Connected).await;
    assert_eq!((metric("source_connected"), metric("source_away_since_timestamp_seconds")), (1, 0));
    assert_eq!(health.status(SystemTime::now()).api_server_away, None);
}

#[tokio::test]
async fn slices_that_come_before_their_service_wait_for_it() {
    let server = ApiServer::start("30").await;
    server.put(SLICES, slice("web-1", "10.1.0.2"));
    let mut bench = Bench::start(server).await;
    bench.until("the lists", |snapshot| snapshot.listed.contains(Kind::EndpointSlice)).await;
    bench.server.put(SLICES, slice("web-2", "10.1.0.3"));
    bench.server.put(SERVICES, service("web", 80));
    bench.until("both endpoints", |snapshot| endpoints(snapshot) == ["10.1.0.2", "10.1.0.3"]).await;
}

#[tokio::test]
async fn a_service_made_anew_under_its_old_name_is_the_new_one() {
    let mut bench = Bench::start(small_server().await).await;
    bench.until("the service", |snapshot| web(snapshot, 80)).await;
    // Its creation time goes back, as on a server whose clock was put right: the order is that of versions.
    for (port, created) in [(81, "2030-01-01T00:00:00Z"), (82, "1990-01-01T00:00:00Z")] {
        let mut anew = service("web", port);
        anew["metadata"]["creationTimestamp"] = json!(created);
        bench.server.delete(SERVICES, "shop", "web");
        bench.server.put(SERVICES, anew);
        let number = u16::try_from(port).unwrap();
        bench.until("the new service", |snapshot| web(snapshot, number)).await;
        assert_eq!(endpoints(&bench.cluster.snapshot()), ["10.1.0.2"], "its slices stay");
    }
    // The same while nobody looks: deleted and made anew between two connections.
    bench.server.drop_connections();
    bench.server.delete(SERVICES, "shop", "web");
    bench.server.put(SERVICES, service("web", 83));
    bench.until("the newest service", |snapshot| web(snapshot, 83)).await;
}

#[tokio::test]
async fn a_forgotten_version_is_answered_by_a_new_list() {
    for at_start in [false, true] {
        let mut bench = Bench::start(small_server().await).await;
        bench.until("the service", |snapshot| web(snapshot, 80)).await;
        bench.server.expire_once(at_start);
        bench.server.put_silently(SERVICES, service("web", 81));
        bench.server.drop_connections();
        bench.until("the relist", |snapshot| web(snapshot, 81)).await;
        let lists = bench.log.iter().filter(|event| event.starts_with("Replace(Service")).count();
        assert_eq!(lists, 2);
    }
}

#[tokio::test]
async fn a_bad_object_is_reported_and_the_others_are_served() {
    let server = small_server().await;
    server.put(SERVICES, service("bad", 70_000));
    let mut bench = Bench::start(server).await;
    bench.until("the service", |snapshot| web(snapshot, 80)).await;
    assert_eq!(bench.problems(), ["Service shop/bad: spec.ports[0].port: 70000 is not a port (1 to 65535)"]);
    bench.server.put(SERVICES, service("bad", 7000));
    bench.until("the repaired one", |snapshot| ports(snapshot).contains(&("bad".to_owned(), 7000))).await;
    assert_eq!(bench.problems(), Vec::<String>::new());
    bench.server.put(SERVICES, service("bad", -1));
    bench.until("the broken one's end", |snapshot| ports(snapshot).len() == 1).await;
    assert_eq!(bench.problems(), ["Service shop/bad: spec.ports[0].port: -1 is not a port (1 to 65535)"]);
    bench.server.delete(SERVICES, "shop", "bad");
    bench.server.put(SERVICES, service("web", 82));
    bench.until("the next change", |snapshot| web(snapshot, 82)).await;
    assert_eq!(bench.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn what_a_person_must_know_is_an_event_once() {
    let server = small_server().await;
    let mut bad = service("bad", 70_000);
    bad["metadata"]["uid"] = json!("u-1");
    server.put(SERVICES, bad.clone());
    let mut bench = Bench::start(server).await;
    bench.until("the service", |snapshot| web(snapshot, 80)).await;
    let told = bench.events_until(1).await;
    let event = &told[0];
    let regarding =
        json!({"apiVersion": "v1", "kind": "Service", "namespace": "shop", "name": "bad", "uid": "u-1"});
    assert_eq!(event["regarding"], regarding, "{event}");
    assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("Invalid")));
    assert_eq!(event["note"], "Service shop/bad: spec.ports[0].port: 70000 is not a port (1 to 65535)");
    assert_eq!(event["reportingController"], "fairway");

    // The same fault of the same object, said again by a list, by a change and by another node, is no news.
    bench.server.put(SERVICES, bad);
    bench.server.forget_history();
    bench.server.drop_connections();
    let notices = bench.reports.notices().clone();
    let again = Notice {
        subject: Subject::Object(Kind::Service, ObjectName::new("shop", "bad")),
        reason: "Invalid",
        note: event["note"].as_str().unwrap().to_owned(),
    };
    notices.tell(again);
    // Whatever was told before this one has been looked at when this one is there.
    notices.tell(Notice { subject: Subject::Node, reason: "Unwell", note: "x".repeat(2000) });
    let told = bench.events_until(2).await;
    assert_eq!(told.len(), 2, "{told:?}");
    let of_node = told.iter().find(|event| event["regarding"]["kind"] == "Node").unwrap();
    assert_eq!(of_node["metadata"]["namespace"], "default");
    assert_eq!(of_node["note"].as_str().unwrap().len(), 1024);
}

#[tokio::test]
async fn a_flood_of_notices_is_bounded() {
    let mut bench = Bench::start(small_server().await).await;
    bench.until("the service", |snapshot| web(snapshot, 80)).await;
    for n in 0..1000 {
        let subject = Subject::ObjectHere(Kind::Service, ObjectName::new("shop", format!("s{n}")));
        bench.reports.notices().tell(Notice { subject, reason: "NoRoom", note: "full".to_owned() });
    }
    let told = bench.events_until(25).await;
    assert!(told.len() < 30, "{} at once", told.len());
}

#[tokio::test]
async fn endpoints_count_only_where_there_are_no_slices() {
    let server = small_server().await;
    server.forget_slices();
    server.put(
        ENDPOINTS,
        json!({"metadata": {"name": "web", "namespace": "shop"},
        "subsets": [{"addresses": [{"ip": "10.1.0.7"}], "ports": [{"port": 80}]}]}),
    );
    let mut bench = Bench::start(server).await;
    let snapshot = bench.until("the endpoint", |snapshot| endpoints(snapshot) == ["10.1.0.7"]).await;
    assert!(snapshot.listed.contains(Kind::EndpointSlice));
}

#[tokio::test]
async fn a_refusal_is_reported_and_the_other_kinds_go_on() {
    let server = small_server().await;
    server.forbid(PODS);
    let mut bench = Bench::start(server).await;
    bench.until("the service", |snapshot| web(snapshot, 80) && snapshot.is_complete()).await;
    let reports = bench.reports.clone();
    bench.server.put(SERVICES, service("web", 81));
    bench.until("the change", |snapshot| web(snapshot, 81)).await;
    let refused = || {
        reports.list().iter().any(|problem| problem.text == "Pod: the API server refuses: pods is forbidden")
    };
    let waited = tokio::time::timeout(PATIENCE, async {
        while !refused() {
            tokio::task::yield_now().await;
        }
    });
    waited.await.expect("the refusal is reported");
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let server = small_server().await;
    server.go_away();
    let mut bench = Bench::start(server).await;
    bench.until_connection(|connection| matches!(connection, Connection::Away { .. })).await;
    bench.server.come_back().await;
    bench.until("the service", |snapshot| web(snapshot, 80)).await;
}

#[tokio::test]
async fn the_option_says_better_than_the_kubeconfig_where_the_server_is() {
    let server = small_server().await;
    let url = format!("http://{}", server.address());
    let nowhere = server.kubeconfig().replace(&url, "http://127.0.0.1:1");
    let mut bench = Bench::reach(server, &nowhere, Some(url));
    bench.until("the service", |snapshot| web(snapshot, 80)).await;
}

#[tokio::test]
async fn a_url_that_is_none_is_one_sentence() {
    for url in ["192.0.2.1:6443", "https://[::"] {
        let server = small_server().await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, server.kubeconfig()).unwrap();
        let config = kube::Config {
            kubeconfig: Some(path),
            api_server: Some(url.to_owned()),
            node_name: "a".to_owned(),
            all_nodes: false,
            all_pods: false,
            patience: kube::PATIENCE,
        };
        let (sender, _events) = mpsc::channel(1);
        let result = run(SourceConfig::Kube(config), sender, Reports::new(), CancellationToken::new()).await;
        let sentence = format!("--api-server {url:?} is not a URL such as https://192.0.2.1:6443");
        assert_eq!(result.unwrap_err().to_string(), sentence);
    }
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken");
    std::fs::write(&broken, "clusters: 5\n").unwrap();
    for (path, end) in [(folder.path().join("none"), "No such file or directory (os error 2)"), (broken, "")]
    {
        let config = kube::Config {
            kubeconfig: Some(path.clone()),
            api_server: None,
            node_name: "a".to_owned(),
            all_nodes: false,
            all_pods: false,
            patience: kube::PATIENCE,
        };
        let (sender, _events) = mpsc::channel(1);
        let result: Result<(), Error> =
            run(SourceConfig::Kube(config), sender, Reports::new(), CancellationToken::new()).await;
        let text = result.unwrap_err().to_string();
        assert!(text.starts_with(&format!("cannot use the kubeconfig {}: ", path.display())), "{text}");
        assert!(text.ends_with(end) && !text.contains('\n'), "{text}");
    }
}

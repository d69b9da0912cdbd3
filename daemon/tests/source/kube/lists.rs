//! What the API server lists, in pages or as a stream, and the changes that follow: in whatever order they come, the
//! snapshot is what the server has.

use fairway::source::Connection;
use model::{Kind, Snapshot};
use serde_json::json;

use super::{
    Bench, ENDPOINTS, NODES, PODS, SERVICES, SLICES, endpoints, ports, service, slice, small_server, web,
};
use crate::api_server::ApiServer;

#[tokio::test]
async fn lists_then_changes() {
    let mut bench = Bench::start(small_server().await).await;
    let all = |snapshot: &Snapshot| Kind::ALL.iter().all(|kind| snapshot.listed.contains(*kind));
    let snapshot = bench.source.until("all lists", all).await;
    assert_eq!(endpoints(&snapshot), ["10.1.0.2"]);
    assert_eq!(snapshot.nodes.len(), 1);
    assert!(bench.source.log.iter().all(|event| event.starts_with("Replace")), "{:?}", bench.source.log);
    bench.server.put(SERVICES, service("web", 81));
    bench.source.until("the change", |snapshot| web(snapshot, 81)).await;
    bench.server.put(SLICES, slice("web-2", "10.1.0.3"));
    bench.source.until("the second slice", |snapshot| endpoints(snapshot) == ["10.1.0.2", "10.1.0.3"]).await;
    bench.server.delete(SLICES, "shop", "web-1");
    bench.source.until("the first slice's end", |snapshot| endpoints(snapshot) == ["10.1.0.3"]).await;
    // The own node and its pods are all that is asked for.
    let asked = bench.server.requests();
    let filtered = |path: &str, field: &str| {
        let mut of = asked.iter().filter(|request| request.starts_with(path));
        of.all(|request| request.contains(field))
    };
    assert!(filtered(NODES, "fieldSelector=metadata.name%3Da"), "{asked:?}");
    assert!(filtered(PODS, "fieldSelector=spec.nodeName%3Da"), "{asked:?}");
    assert!(!asked.iter().any(|request| request.starts_with(ENDPOINTS)), "{asked:?}");
    assert_eq!(*bench.source.reports.connection().borrow(), Connection::Connected);
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let server = ApiServer::start("30").await;
    for n in 0..1200 {
        server.put(SERVICES, service(&format!("s{n}"), 80));
    }
    let mut bench = Bench::start(server).await;
    bench.source.until("all services", |snapshot| snapshot.services.len() == 1200).await;
    let pages = bench
        .server
        .requests()
        .iter()
        .filter(|request| request.starts_with(SERVICES) && request.contains("limit=500"))
        .count();
    assert_eq!(pages, 3);
    let replaced = bench.source.log.iter().filter(|event| event.starts_with("Replace(Service")).count();
    assert_eq!(replaced, 1);
}

#[tokio::test]
async fn servers_that_stream_lists_are_let_to() {
    let server = ApiServer::start("34+").await;
    server.put(SERVICES, service("web", 80));
    let mut bench = Bench::start(server).await;
    bench.source.until("the service", |snapshot| web(snapshot, 80)).await;
    let streamed =
        |request: &String| request.starts_with(SERVICES) && request.contains("sendInitialEvents=true");
    assert!(bench.server.requests().iter().any(streamed), "{:?}", bench.server.requests());
    bench.server.put(SERVICES, service("web", 81));
    bench.source.until("the change", |snapshot| web(snapshot, 81)).await;
}

#[tokio::test]
async fn servers_that_refuse_to_stream_lists_are_asked_for_pages() {
    let server = ApiServer::start("34").await;
    server.refuse_streaming();
    server.put(SERVICES, service("web", 80));
    let mut bench = Bench::start(server).await;
    bench.source.until("the service", |snapshot| web(snapshot, 80)).await;
    assert_eq!(bench.source.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn slices_that_come_before_their_service_wait_for_it() {
    let server = ApiServer::start("30").await;
    server.put(SLICES, slice("web-1", "10.1.0.2"));
    let mut bench = Bench::start(server).await;
    bench.source.until("the lists", |snapshot| snapshot.listed.contains(Kind::EndpointSlice)).await;
    bench.server.put(SLICES, slice("web-2", "10.1.0.3"));
    bench.server.put(SERVICES, service("web", 80));
    bench.source.until("both endpoints", |snapshot| endpoints(snapshot) == ["10.1.0.2", "10.1.0.3"]).await;
}

#[tokio::test]
async fn a_service_made_anew_under_its_old_name_is_the_new_one() {
    let mut bench = Bench::start(small_server().await).await;
    bench.source.until("the service", |snapshot| web(snapshot, 80)).await;
    // Its creation time goes back, as on a server whose clock was put right: the order is that of versions.
    for (port, created) in [(81, "2030-01-01T00:00:00Z"), (82, "1990-01-01T00:00:00Z")] {
        let mut anew = service("web", port);
        anew["metadata"]["creationTimestamp"] = json!(created);
        bench.server.delete(SERVICES, "shop", "web");
        bench.server.put(SERVICES, anew);
        let number = u16::try_from(port).unwrap();
        bench.source.until("the new service", |snapshot| web(snapshot, number)).await;
        assert_eq!(endpoints(&bench.source.cluster.snapshot()), ["10.1.0.2"], "its slices stay");
    }
    // The same while nobody looks: deleted and made anew between two connections.
    bench.server.drop_connections();
    bench.server.delete(SERVICES, "shop", "web");
    bench.server.put(SERVICES, service("web", 83));
    bench.source.until("the newest service", |snapshot| web(snapshot, 83)).await;
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
    let snapshot = bench.source.until("the endpoint", |snapshot| endpoints(snapshot) == ["10.1.0.7"]).await;
    assert!(snapshot.listed.contains(Kind::EndpointSlice));
}

#[tokio::test]
async fn a_bad_object_is_reported_and_the_others_are_served() {
    let server = small_server().await;
    server.put(SERVICES, service("bad", 70_000));
    let mut bench = Bench::start(server).await;
    bench.source.until("the service", |snapshot| web(snapshot, 80)).await;
    assert_eq!(
        bench.source.problems(),
        ["Service shop/bad: spec.ports[0].port: 70000 is not a port (1 to 65535)"]
    );
    bench.server.put(SERVICES, service("bad", 7000));
    bench
        .source
        .until("the repaired one", |snapshot| ports(snapshot).contains(&("bad".to_owned(), 7000)))
        .await;
    assert_eq!(bench.source.problems(), Vec::<String>::new());
    bench.server.put(SERVICES, service("bad", -1));
    bench.source.until("the broken one's end", |snapshot| ports(snapshot).len() == 1).await;
    assert_eq!(
        bench.source.problems(),
        ["Service shop/bad: spec.ports[0].port: -1 is not a port (1 to 65535)"]
    );
    bench.server.delete(SERVICES, "shop", "bad");
    bench.server.put(SERVICES, service("web", 82));
    bench.source.until("the next change", |snapshot| web(snapshot, 82)).await;
    assert_eq!(bench.source.problems(), Vec::<String>::new());
}

//! A server that is away, silent, forgetful or unwilling: what is known stays, and the source finds back by itself.
//! Nothing is lost meanwhile, and nobody is hammered.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fairway::health::Health;
use fairway::source::Connection;
use prometheus_client::registry::Registry;

use super::{Bench, PODS, SERVICES, SLICES, endpoints, service, slice, small_server, web};
use crate::listener::PATIENCE;

#[tokio::test]
async fn scenario_36_what_was_deleted_while_the_server_was_away_is_gone_after_the_relist() {
    let mut bench = Bench::start(small_server().await).await;
    bench.source.until("the endpoint", |snapshot| endpoints(snapshot) == ["10.1.0.2"]).await;
    bench.server.put(SLICES, slice("web-2", "10.1.0.3"));
    bench.source.until("both", |snapshot| endpoints(snapshot).len() == 2).await;
    bench.server.go_away();
    bench.source.until_connection(|connection| matches!(connection, Connection::Away { .. })).await;
    // What is known stays meanwhile.
    assert_eq!(endpoints(&bench.source.cluster.snapshot()).len(), 2);
    bench.server.delete(SLICES, "shop", "web-1");
    bench.server.forget_history();
    bench.server.come_back().await;
    bench.source.until("the relist", |snapshot| endpoints(snapshot) == ["10.1.0.3"]).await;
    bench.source.until_connection(|connection| *connection == Connection::Connected).await;
    let relists = bench.source.log.iter().filter(|event| event.starts_with("Replace(EndpointSlice")).count();
    assert_eq!(relists, 2);
    assert!(
        !bench.source.log.iter().any(|event| event.starts_with("Delete(EndpointSlice")),
        "{:?}",
        bench.source.log
    );
}

#[tokio::test]
async fn scenario_36_an_absent_server_is_told_with_since_when() {
    let mut bench = Bench::start(small_server().await).await;
    bench.source.until("the service", |snapshot| web(snapshot, 80)).await;
    let health = Health::new(bench.source.reports.connection(), bench.source.reports.notices().clone());
    health.applied(1, false, SystemTime::now());
    let mut registry = Registry::default();
    bench.source.reports.register(&mut registry);
    let metric = |name: &str| {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).unwrap();
        line.parse::<i64>().unwrap()
    };
    assert_eq!((metric("source_connected"), metric("source_away_since_timestamp_seconds")), (1, 0));
    let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    bench.server.go_away();
    bench.source.until_connection(|connection| matches!(connection, Connection::Away { .. })).await;
    let since = metric("source_away_since_timestamp_seconds");
    assert!(metric("source_connected") == 0 && since >= i64::try_from(before).unwrap(), "{since}");
    let status = health.status(SystemTime::now());
    assert!(status.is_eligible() && status.api_server_away.is_some(), "{status:?}");
    bench.server.come_back().await;
    bench.source.until_connection(|connection| *connection == Connection::Connected).await;
    assert_eq!((metric("source_connected"), metric("source_away_since_timestamp_seconds")), (1, 0));
    assert_eq!(health.status(SystemTime::now()).api_server_away, None);
}

#[tokio::test]
async fn a_dropped_connection_is_taken_up_where_it_ended() {
    let mut bench = Bench::start(small_server().await).await;
    bench.source.until("the service", |snapshot| web(snapshot, 80)).await;
    bench.server.drop_connections();
    bench.server.put(SERVICES, service("web", 81));
    bench.source.until("the change", |snapshot| web(snapshot, 81)).await;
    let lists = bench.source.log.iter().filter(|event| event.starts_with("Replace(Service")).count();
    assert_eq!(lists, 1, "a watch is resumed, not listed anew");
}

#[tokio::test]
async fn a_server_that_falls_silent_is_noticed_and_what_was_missed_is_listed() {
    let mut bench = Bench::impatient(small_server().await);
    bench.source.until("the service", |snapshot| web(snapshot, 80)).await;
    bench.server.fall_silent();
    bench.server.put(SERVICES, service("web", 81));
    // Nothing is closed, and no watch fails: only that questions are not answered tells.
    bench.source.until_connection(|connection| matches!(connection, Connection::Away { .. })).await;
    assert!(web(&bench.source.cluster.snapshot(), 80), "what is known stays");
    bench.server.speak();
    bench.source.until("what was missed", |snapshot| web(snapshot, 81)).await;
    bench.source.until_connection(|connection| *connection == Connection::Connected).await;
}

#[tokio::test]
async fn a_list_that_never_ends_is_given_up_and_asked_for_anew() {
    let server = small_server().await;
    server.fall_silent();
    let mut bench = Bench::impatient(server);
    bench.source.until_connection(|connection| matches!(connection, Connection::Away { .. })).await;
    bench.server.speak();
    bench.source.until("the service", |snapshot| web(snapshot, 80) && snapshot.is_complete()).await;
}

#[tokio::test]
async fn a_server_that_refuses_is_asked_less_and_less_often_and_out_of_step() {
    let server = small_server().await;
    server.forbid(PODS);
    let mut bench = Bench::start(server).await;
    bench.source.until("the service", |snapshot| web(snapshot, 80)).await;
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
async fn a_forgotten_version_is_answered_by_a_new_list() {
    for at_start in [false, true] {
        let mut bench = Bench::start(small_server().await).await;
        bench.source.until("the service", |snapshot| web(snapshot, 80)).await;
        bench.server.expire_once(at_start);
        bench.server.put_silently(SERVICES, service("web", 81));
        bench.server.drop_connections();
        bench.source.until("the relist", |snapshot| web(snapshot, 81)).await;
        let lists = bench.source.log.iter().filter(|event| event.starts_with("Replace(Service")).count();
        assert_eq!(lists, 2);
    }
}

#[tokio::test]
async fn a_refusal_is_reported_and_the_other_kinds_go_on() {
    let server = small_server().await;
    server.forbid(PODS);
    let mut bench = Bench::start(server).await;
    bench.source.until("the service", |snapshot| web(snapshot, 80) && snapshot.is_complete()).await;
    let reports = bench.source.reports.clone();
    bench.server.put(SERVICES, service("web", 81));
    bench.source.until("the change", |snapshot| web(snapshot, 81)).await;
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
    bench.source.until_connection(|connection| matches!(connection, Connection::Away { .. })).await;
    bench.server.come_back().await;
    bench.source.until("the service", |snapshot| web(snapshot, 80)).await;
}

//! What a person must know is written as Events to the API server: each once, whoever says it again, and never in a
//! flood.

use std::time::Duration;

use fairway::notice::{Notice, Subject};
use model::{Kind, ObjectName};
use serde_json::{Value, json};

use super::{Bench, SERVICES, service, small_server, web};
use crate::api_server::ApiServer;
use crate::listener::PATIENCE;

const EVENTS: &str = "/apis/events.k8s.io/v1/events";

/// The Events, once there are so many.
async fn events_until(server: &ApiServer, count: usize) -> Vec<Value> {
    let waited = tokio::time::timeout(PATIENCE, async {
        loop {
            let events = server.objects(EVENTS);
            if events.len() >= count {
                return events;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    waited.await.expect("the Events are written")
}

#[tokio::test]
async fn what_a_person_must_know_is_an_event_once() {
    let server = small_server().await;
    let mut bad = service("bad", 70_000);
    bad["metadata"]["uid"] = json!("u-1");
    server.put(SERVICES, bad.clone());
    let mut bench = Bench::start(server).await;
    bench.source.until("the service", |snapshot| web(snapshot, 80)).await;
    let told = events_until(&bench.server, 1).await;
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
    let notices = bench.source.reports.notices().clone();
    let again = Notice {
        subject: Subject::Object(Kind::Service, ObjectName::new("shop", "bad")),
        reason: "Invalid",
        note: event["note"].as_str().unwrap().to_owned(),
    };
    notices.tell(again);
    // Whatever was told before this one has been looked at when this one is there.
    notices.tell(Notice { subject: Subject::Node, reason: "Unwell", note: "x".repeat(2000) });
    let told = events_until(&bench.server, 2).await;
    assert_eq!(told.len(), 2, "{told:?}");
    let of_node = told.iter().find(|event| event["regarding"]["kind"] == "Node").unwrap();
    assert_eq!(of_node["metadata"]["namespace"], "default");
    assert_eq!(of_node["note"].as_str().unwrap().len(), 1024);
}

#[tokio::test]
async fn a_flood_of_notices_is_bounded() {
    let mut bench = Bench::start(small_server().await).await;
    bench.source.until("the service", |snapshot| web(snapshot, 80)).await;
    for n in 0..1000 {
        let subject = Subject::ObjectHere(Kind::Service, ObjectName::new("shop", format!("s{n}")));
        bench.source.reports.notices().tell(Notice { subject, reason: "NoRoom", note: "full".to_owned() });
    }
    let told = events_until(&bench.server, 25).await;
    assert!(told.len() < 30, "{} at once", told.len());
}

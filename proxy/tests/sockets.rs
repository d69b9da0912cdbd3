//! Real sockets through the real programs: what a client of a service sees.

mod support;

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::net::SocketAddr;

use model::testing::{endpoint, ip, name, service, slice};
use model::{Event, Kind, Object};

use support::*;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// One service `shop/web` with TCP and UDP ports 80 on 10.96.0.5 and these backends on 8080.
fn web(backends: &[&str]) -> Vec<Object> {
    let service = service("shop/web", &["10.96.0.5"]).port("http:80/TCP").port("dns:80/UDP");
    let slice = slice("web-1", "shop/web").port("http:8080/TCP").port("dns:8080/UDP").ready(backends);
    vec![service.into(), slice.into()]
}

#[test]
fn scenario_01_a_connection_reaches_an_endpoint_and_shows_the_service() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let _world = node.serve(web(&["10.244.0.2"]));
        let mut stream = dial("10.96.0.5:80").unwrap();
        assert_eq!(ask(&mut stream), "10.244.0.2:8080");
        assert_eq!(stream.peer_addr().unwrap(), address("10.96.0.5:80"));
    });
}

#[test]
fn scenario_02_connections_are_spread_evenly() {
    on_a_node(|node| {
        let backends = ["10.244.0.2", "10.244.0.3", "10.244.0.4"];
        backends.iter().for_each(|ip| backend(ip, 8080));
        let world = node.serve(web(&backends));
        let mut counts: BTreeMap<String, f64> = BTreeMap::new();
        for _ in 0..3000 {
            *counts.entry(reach("10.96.0.5:80")).or_default() += 1.0;
        }
        let chi_square: f64 = counts.values().map(|count| (count - 1000.0).powi(2) / 1000.0).sum();
        assert!(counts.len() == 3 && chi_square < 27.6, "{counts:?}");
        let opened: u64 = world.proxy.backends().iter().map(|backend| backend.opened).sum();
        assert_eq!(opened, 3000);
    });
}

#[test]
fn scenario_08_without_endpoints_connect_and_send_are_refused() {
    on_a_node(|node| {
        let _world = node.serve(web(&[]));
        assert_eq!(refused("10.96.0.5:80"), ErrorKind::ConnectionRefused);
        let socket = udp_socket("10.96.0.5:80");
        let error = socket.send_to(b"who?", "10.96.0.5:80").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        assert_eq!(socket.connect("10.96.0.5:80").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    });
}

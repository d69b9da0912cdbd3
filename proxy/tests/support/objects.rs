//! The services that most tests ask, and the socket addresses in which they speak of them. A test that needs
//! another service makes its own.

use std::net::SocketAddr;

use model::Object;
use model::testing::{service, slice};

/// A socket address.
pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().expect("a socket address")
}

/// One service `shop/web` with TCP and UDP ports 80 on 10.96.0.5 and these backends on 8080.
pub(crate) fn web(backends: &[&str]) -> Vec<Object> {
    let service = service("shop/web", &["10.96.0.5"]).port("http:80/TCP").port("dns:80/UDP");
    let slice = slice("web-1", "shop/web").port("http:8080/TCP").port("dns:8080/UDP").ready(backends);
    vec![service.into(), slice.into()]
}

/// A service with affinity on ClusterIP, NodePort and load-balancer IP, and these backends.
pub(crate) fn sticky(timeout_seconds: u32, backends: &[&str]) -> Vec<Object> {
    let service = service("shop/web", &["10.96.0.5"])
        .port("a:80/TCP:30080")
        .port("b:81/TCP")
        .client_ip(timeout_seconds)
        .load_balancer_ip("203.0.113.7");
    let slice = slice("web-1", "shop/web").port("a:8080/TCP").port("b:8080/TCP").ready(backends);
    vec![service.into(), slice.into()]
}

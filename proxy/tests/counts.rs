//! What the kernel counts by the way: connections opened, closed and refused, and who is connected to what. As the
//! daemon reads it, from the maps and from the kernel's own lists of sockets.

mod support;

use model::testing::{ip, name, service, slice};
use model::{Event, Object, Protocol};
use proxy::Count;

use support::*;

/// Service `shop/web` on 10.96.0.5:80 with these backends on 8080.
fn web(backends: &[&str]) -> Vec<Object> {
    let service = service("shop/web", &["10.96.0.5"]).port("http:80/TCP").port("dns:80/UDP");
    let slice = slice("web-1", "shop/web").port("http:8080/TCP").port("dns:8080/UDP").ready(backends);
    vec![service.into(), slice.into()]
}

fn count(opened: u64, closed: u64, refused: u64) -> Count {
    Count { opened, closed, refused }
}

#[test]
fn connections_are_counted_by_service_and_backend() {
    on_a_node(|node| {
        ["10.244.0.2", "10.244.0.3"].iter().for_each(|ip| backend(ip, 8080));
        let mut world = node.serve(web(&["10.244.0.2"]));
        let kept = dial("10.96.0.5:80").unwrap();
        drop(dial("10.96.0.5:80").unwrap());
        let socket = udp_socket("10.96.0.5:80");
        socket.connect("10.96.0.5:80").unwrap();
        socket.connect("10.96.0.5:80").unwrap();
        let of = |world: &World| world.proxy.counts()[&name("shop/web")];
        assert_eq!(of(&world), count(4, 2, 0));
        let backends: Vec<Count> = world.proxy.backends().map(|backend| backend.count).collect();
        assert_eq!(backends, [count(2, 1, 0), count(2, 1, 0)]);

        // What is open when its backend leaves is counted when it is closed, until the id is used again.
        web(&[]).into_iter().for_each(|object| world.apply(Event::Apply(object)));
        assert!(dial("10.96.0.5:80").is_err());
        drop(kept);
        assert_eq!(of(&world), count(4, 3, 1));
        web(&["10.244.0.3"]).into_iter().for_each(|object| world.apply(Event::Apply(object)));
        drop(dial("10.96.0.5:80").unwrap());
        assert_eq!(of(&world), count(5, 4, 1));
    });
}

#[test]
fn connections_of_the_node_and_of_pods_are_listed() {
    on_a_node(|node| {
        backend("10.244.0.2", 8080);
        let world = node.serve(web(&["10.244.0.2"]));
        let here = proxy::netns_cookie().unwrap();
        let stream = dial("10.96.0.5:80").unwrap();
        let _direct = dial("10.244.0.2:8080").unwrap();
        in_pod(|| {
            backend("10.244.0.2", 8080);
            let there = proxy::netns_cookie().unwrap();
            let socket = udp_socket("10.96.0.5:80");
            socket.connect("10.96.0.5:80").unwrap();
            let (mut found, unseen) = world.proxy.connections().list().unwrap();
            assert_eq!(unseen, proxy::Unseen::default());
            found.sort_by_key(|connection| connection.protocol);
            let [tcp, udp] = found.as_slice() else { panic!("{found:?}") };
            assert_eq!(
                (tcp.protocol, tcp.netns, tcp.local),
                (Protocol::Tcp, here, stream.local_addr().unwrap())
            );
            assert_eq!(
                (udp.protocol, udp.netns, udp.local),
                (Protocol::Udp, there, socket.local_addr().unwrap())
            );
            for connection in [tcp, udp] {
                assert_eq!(connection.frontend, (ip("10.96.0.5"), 80).into());
                assert_eq!(connection.backend, (ip("10.244.0.2"), 8080).into());
            }
        });
    });
}

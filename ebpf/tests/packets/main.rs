//! The packet path on the host: real packets in memory, maps of the standard library, and after each step every
//! checksum summed anew. What only a kernel can show is tested across nodes in `tests/`.

#![expect(clippy::unwrap_used, reason = "a packet of a test that cannot be made is a failure of the test")]

mod bench;
mod flows;

use bench::{Bench, Packet, address, client_port};
use ebpf::frontend::{FrontendWord, TCP, UDP};
use ebpf::packet::engine::Action::{Drop, Pass, Redirect};
use ebpf::packet::headers::tcp::{ACK, RST, SYN};
use ebpf::packet::hook::Table;
use ebpf::packet::uplink::range;
use ebpf::stats::Reason;

/// Client, frontend, backend here, backend elsewhere, address of the node: IPv4, then IPv6.
const NAMES: [[&str; 5]; 2] = [
    ["198.51.100.7", "203.0.113.80", "10.244.1.2", "10.244.2.2", "192.0.2.10"],
    ["2001:db8:51::7", "2001:db8:113::80", "fd00:244:1::2", "fd00:244:2::2", "2001:db8:2::10"],
];

#[test]
fn a_connection_goes_to_a_backend_and_its_answers_come_from_the_frontend() {
    for [client, frontend, backend, ..] in NAMES {
        for protocol in [TCP, UDP] {
            let bench = Bench::serving(frontend, protocol, 0, &[backend]);
            let mut there = Packet::new((client, 40_000), (frontend, 80), protocol, SYN);
            assert_eq!(bench.arrive(&mut there), Pass);
            there.is((client, 40_000), (backend, 8080));
            let mut back = Packet::new((backend, 8080), (client, 40_000), protocol, SYN | ACK);
            assert_eq!(bench.leave(&mut back), Pass);
            back.is((frontend, 80), (client, 40_000));
        }
    }
}

#[test]
fn what_is_sent_on_leaves_with_the_nodes_address_and_comes_back() {
    for [client, frontend, _, elsewhere, node] in NAMES {
        for protocol in [TCP, UDP] {
            let bench = Bench::serving(frontend, protocol, 0, &[elsewhere]);
            let mut there = Packet::new((client, 40_000), (frontend, 80), protocol, SYN);
            bench.arrive(&mut there);
            assert_eq!(bench.leave(&mut there), Pass);
            let port = client_port(&there);
            there.is((node, port), (elsewhere, 8080));
            let mut back = Packet::new((elsewhere, 8080), (node, port), protocol, SYN | ACK);
            bench.arrive(&mut back);
            back.is((elsewhere, 8080), (client, 40_000));
            assert_eq!(bench.leave(&mut back), Pass);
            back.is((frontend, 80), (client, 40_000));
        }
    }
}

#[test]
fn what_arrives_and_is_translated_can_go_on_past_the_stack() {
    let [client, frontend, backend, elsewhere, node] = NAMES[0];
    let mut bench = Bench::serving(frontend, TCP, 0, &[backend]);
    bench.range(elsewhere, range::DIRECT);
    bench.redirect();
    let mut syn = Packet::new((client, 40_000), (frontend, 80), TCP, SYN);
    assert_eq!(bench.arrive(&mut syn), Redirect);
    syn.is((client, 40_000), (backend, 8080));
    let mut greeting = Packet::new((backend, 8080), (client, 40_000), TCP, SYN | ACK);
    assert_eq!(bench.leave(&mut greeting), Pass, "it is on its way already");
    assert_eq!(bench.arrive(&mut Packet::new((client, 40_000), (node, 22), TCP, SYN)), Pass);
    assert_eq!(bench.counted(Reason::Redirected), 1);
}

#[test]
fn a_datagram_to_a_host_port_goes_to_whoever_has_the_port_now() {
    for [client, _, pod, other, node] in NAMES {
        let mut bench = Bench::default();
        let ask = |bench: &Bench| {
            let mut there = Packet::new((client, 40_000), (node, 53), UDP, 0);
            assert_eq!(bench.arrive(&mut there), Pass);
            there
        };
        // Both ends speak, so that the flow is one that no flood drives out.
        let converse = |bench: &Bench, pod: &str| {
            ask(bench).is((client, 40_000), (pod, 8080));
            let mut back = Packet::new((pod, 8080), (client, 40_000), UDP, 0);
            bench.leave(&mut back);
            back.is((node, 53), (client, 40_000));
            ask(bench).is((client, 40_000), (pod, 8080));
        };
        bench.publish(node, 53, UDP, pod);
        converse(&bench, pod);
        assert_eq!(bench.entries(Table::Kept), 2);
        bench.unpublish();
        ask(&bench).is((client, 40_000), (node, 53));
        assert_eq!(bench.entries(Table::Kept), 0, "the flow has ended with its pod");
        bench.publish(node, 53, UDP, pod);
        converse(&bench, pod);
        bench.publish(node, 53, UDP, other);
        converse(&bench, other);
    }
}

#[test]
fn a_service_without_endpoints_is_refused_by_the_nodes_own_stack() {
    for [client, frontend, _, _, node] in NAMES {
        for protocol in [TCP, UDP] {
            let bench = Bench::serving(frontend, protocol, 0, &[]);
            let mut packet = Packet::new((client, 40_000), (frontend, 80), protocol, SYN);
            assert_eq!(bench.arrive(&mut packet), Pass);
            packet.is((client, 40_000), (node, 0));
            let mut back = Packet::new((node, 0), (client, 40_000), protocol, RST);
            bench.leave(&mut back);
            back.is((frontend, 80), (client, 40_000));
            assert_eq!(bench.counted(Reason::NoEndpoint), 1);
        }
    }
}

#[test]
fn policy_local_without_an_endpoint_here_drops() {
    let [client, frontend, _, elsewhere, _] = NAMES[0];
    let bench = Bench::serving(frontend, TCP, FrontendWord::PACKET_LOCAL, &[elsewhere]);
    let mut packet = Packet::new((client, 40_000), (frontend, 80), TCP, SYN);
    assert_eq!(bench.arrive(&mut packet), Drop);
    assert_eq!(bench.counted(Reason::NoLocalEndpoint), 1);
}

#[test]
fn the_middle_of_an_unknown_connection_is_refused() {
    let [client, frontend, backend, _, node] = NAMES[0];
    let bench = Bench::serving(frontend, TCP, 0, &[backend]);
    let mut packet = Packet::new((client, 40_000), (frontend, 80), TCP, ACK);
    assert_eq!(bench.arrive(&mut packet), Pass);
    packet.is((client, 40_000), (node, 0));
    assert_eq!(bench.counted(Reason::MidStream), 1);
}

#[test]
fn a_guarded_frontend_lets_in_whom_it_should() {
    let [client, frontend, backend, ..] = NAMES[0];
    let mut bench = Bench::serving(frontend, TCP, FrontendWord::GUARDED, &[backend]);
    bench.allow("198.51.100.8");
    let mut packet = Packet::new((client, 40_000), (frontend, 80), TCP, SYN);
    assert_eq!(bench.arrive(&mut packet), Drop);
    assert_eq!(bench.counted(Reason::SourceRange), 1);
    bench.allow(client);
    assert_eq!(bench.arrive(&mut packet), Pass);
    packet.is((client, 40_000), (backend, 8080));
}

#[test]
fn a_datagram_after_its_endpoint_left_goes_to_another() {
    let [client, frontend, backend, elsewhere, _] = NAMES[0];
    let mut bench = Bench::serving(frontend, UDP, 0, &[backend]);
    let first = Packet::new((client, 40_000), (frontend, 80), UDP, 0);
    bench.arrive(&mut first.clone());
    bench.replace_backends(&[elsewhere]);
    let mut second = first.clone();
    bench.arrive(&mut second);
    second.is((client, 40_000), (elsewhere, 8080));
}

#[test]
fn pods_leave_the_cluster_as_their_node_and_reach_others_as_themselves() {
    let [client, _, pod, other_pod, node] = NAMES[0];
    let mut bench = Bench::default();
    bench.range(pod, range::POD);
    bench.range(other_pod, range::DIRECT);
    for protocol in [TCP, UDP] {
        let mut out = Packet::new((pod, 5000), (client, 443), protocol, SYN);
        bench.leave(&mut out);
        out.is((node, 5000), (client, 443));
        let mut back = Packet::new((client, 443), (node, 5000), protocol, SYN | ACK);
        bench.arrive(&mut back);
        back.is((client, 443), (pod, 5000));
        let mut inside = Packet::new((pod, 5000), (other_pod, 443), protocol, SYN);
        bench.leave(&mut inside);
        inside.is((pod, 5000), (other_pod, 443));
    }
    // Whoever came to the pod straight gets the pod's own answers.
    let mut answer = Packet::new((pod, 80), (client, 5000), TCP, SYN | ACK);
    bench.leave(&mut answer);
    answer.is((pod, 80), (client, 5000));
    bench.arrive(&mut Packet::new((client, 5000), (pod, 53), UDP, 0));
    let mut answer = Packet::new((pod, 53), (client, 5000), UDP, 0);
    bench.leave(&mut answer);
    answer.is((pod, 53), (client, 5000));
}

#[test]
fn echoes_of_pods_leave_and_come_back() {
    for ([client, _, pod, _, node], six) in NAMES.into_iter().zip([false, true]) {
        let mut bench = Bench::default();
        bench.range(pod, range::POD);
        let (request, reply) = if six { (128, 129) } else { (8, 0) };
        let mut out = Packet::echo(pod, client, request, 7);
        bench.leave(&mut out);
        assert_eq!(out.addresses(), (address(node), address(client)));
        let id = out.echo_id();
        let mut back = Packet::echo(client, node, reply, id);
        bench.arrive(&mut back);
        assert_eq!((back.addresses(), back.echo_id()), ((address(client), address(pod)), 7));
        back.check();
    }
}

#[test]
fn scenario_42_errors_find_their_way_in_both_directions() {
    for [client, frontend, _, elsewhere, node] in NAMES {
        let router = if client.contains(':') { "2001:db8::1" } else { "192.0.2.254" };
        let bench = Bench::serving(frontend, UDP, 0, &[elsewhere]);
        let mut there = Packet::new((client, 40_000), (frontend, 80), UDP, 0);
        bench.arrive(&mut there);
        bench.leave(&mut there);
        // A router beyond the node cannot pass it on.
        let mut error = Packet::error(router, &there);
        bench.arrive(&mut error);
        assert_eq!(bench.leave(&mut error), Pass);
        assert_eq!(error.addresses(), (address(router), address(client)));
        error.inside((client, 40_000), (frontend, 80));
        // A router on the client's side cannot pass the answer on.
        let mut back = Packet::new((elsewhere, 8080), (node, client_port(&there)), UDP, 0);
        bench.arrive(&mut back);
        bench.leave(&mut back);
        let mut error = Packet::error(router, &back);
        bench.arrive(&mut error);
        bench.leave(&mut error);
        assert_eq!(error.addresses(), (address(router), address(elsewhere)));
        error.inside((elsewhere, 8080), (node, client_port(&there)));
    }
}

#[test]
fn scenario_41_the_fragments_of_a_datagram_go_the_same_way() {
    for [client, frontend, backend, ..] in NAMES {
        let bench = Bench::serving(frontend, UDP, 0, &[backend]);
        let mut fragments = Packet::new((client, 40_000), (frontend, 80), UDP, 0).fragments();
        for fragment in &mut fragments {
            assert_eq!(bench.arrive(fragment), Pass);
            assert_eq!(fragment.addresses(), (address(client), address(backend)));
        }
        Packet::joined(&fragments).is((client, 40_000), (backend, 8080));
    }
}

#[test]
fn scenario_41_a_fragment_that_comes_before_the_first_one_waits_for_it() {
    for [client, frontend, backend, ..] in NAMES {
        let mut bench = Bench::serving(frontend, UDP, 0, &[backend]);
        // Pods reach the node's own addresses with theirs.
        bench.range(frontend, range::NODE | range::DIRECT);
        let [mut first, mut later] = Packet::new((client, 40_000), (frontend, 80), UDP, 0).fragments();
        assert_eq!(bench.arrive(&mut later), Drop);
        assert_eq!(bench.counted(Reason::FragmentHeld), 1);
        assert_eq!(bench.arrive(&mut first), Drop);
        let [mut first, mut later] = <[Packet; 2]>::try_from(bench.again()).ok().unwrap();
        for fragment in [&mut first, &mut later] {
            assert_eq!(bench.arrive(fragment), Pass);
        }
        Packet::joined(&[first, later]).is((client, 40_000), (backend, 8080));
    }
}

#[test]
fn fragments_to_pods_and_on_their_way_out_are_not_held() {
    let [client, frontend, backend, ..] = NAMES[0];
    let mut bench = Bench::serving(frontend, UDP, 0, &[backend]);
    bench.range(backend, range::POD);
    let [_, mut later] = Packet::new((client, 40_000), (backend, 80), UDP, 0).fragments();
    assert_eq!(bench.arrive(&mut later), Pass);
    let [_, mut later] = Packet::new((client, 40_000), (frontend, 80), UDP, 0).fragments();
    assert_eq!(bench.leave(&mut later), Pass);
    assert_eq!(bench.counted(Reason::FragmentUnknown), 2);
}

#[test]
fn tagged_frames_are_served() {
    let [client, frontend, backend, ..] = NAMES[0];
    let bench = Bench::serving(frontend, TCP, 0, &[backend]);
    for tags in [1, 2] {
        let mut packet = Packet::new((client, 40_000), (frontend, 80), TCP, SYN).tagged(tags);
        bench.arrive(&mut packet);
        packet.is((client, 40_000), (backend, 8080));
    }
}

#[test]
fn whatever_cannot_be_read_goes_on_untouched_and_is_counted() {
    let [client, frontend, backend, ..] = NAMES[0];
    let bench = Bench::serving(frontend, TCP, 0, &[backend]);
    let whole = Packet::new((client, 40_000), (frontend, 80), TCP, SYN);
    for length in 0..whole.bytes().len() {
        let mut cut = whole.cut(length);
        let before = cut.bytes();
        assert_eq!(bench.arrive(&mut cut), Pass, "{length}");
        assert_eq!(cut.bytes(), before, "{length} bytes");
    }
    assert!(bench.counted(Reason::Malformed) > 20);
    let mut options = whole.with_options();
    let before = options.bytes();
    bench.arrive(&mut options);
    assert_eq!((options.bytes() == before, bench.counted(Reason::Options)), (true, 1));
    assert_eq!((bench.entries(Table::Kept), bench.entries(Table::Fleeting)), (0, 0));
}

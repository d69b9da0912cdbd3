//! The packet path on the host: real packets in memory, maps of the standard library, and after each step every
//! checksum summed anew. What only a kernel can show is tested across nodes in `tests/`.

#![expect(clippy::unwrap_used, reason = "a packet of a test that cannot be made is a failure of the test")]

mod bench;

use bench::{Bench, Packet, address, client_port};
use ebpf::frontend::{FrontendWord, TCP, UDP};
use ebpf::packet::engine::Action::{Drop, Pass, Redirect};
use ebpf::packet::flow::{HALF_OPEN_FLOWS, Side};
use ebpf::packet::headers::tcp::{ACK, FIN, RST, SYN};
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
fn a_flow_is_half_open_until_both_ends_spoke() {
    let [client, frontend, backend, ..] = NAMES[0];
    let bench = Bench::serving(frontend, TCP, 0, &[backend]);
    let mut syn = Packet::new((client, 40_000), (frontend, 80), TCP, SYN);
    bench.arrive(&mut syn);
    let mut greeting = Packet::new((backend, 8080), (client, 40_000), TCP, SYN | ACK);
    bench.leave(&mut greeting);
    assert_eq!((bench.entries(Table::Kept), bench.half_open()), (2, 1));
    let mut ack = Packet::new((client, 40_000), (frontend, 80), TCP, ACK);
    bench.arrive(&mut ack);
    ack.is((client, 40_000), (backend, 8080));
    assert_eq!((bench.entries(Table::Kept), bench.half_open()), (2, 0));
    assert_eq!(bench.connections.opened.get(), 1, "a connection is one of which both ends spoke");
    for _ in 0..3 {
        bench.arrive(&mut Packet::new((client, 40_000), (frontend, 80), TCP, ACK));
    }
    assert_eq!((bench.connections.opened.get(), bench.half_open()), (1, 0), "it is counted once");
}

#[test]
fn while_too_many_flows_are_half_open_new_ones_are_kept_apart_until_both_ends_spoke() {
    for [client, frontend, backend, elsewhere, node] in NAMES {
        let mut bench = Bench::serving(frontend, TCP, 0, &[elsewhere]);
        bench.range(backend, range::POD);
        bench.crowd(HALF_OPEN_FLOWS);
        let mut syn = Packet::new((client, 40_000), (frontend, 80), TCP, SYN);
        bench.arrive(&mut syn);
        bench.leave(&mut syn);
        let port = client_port(&syn);
        syn.is((node, port), (elsewhere, 8080));
        assert_eq!((bench.entries(Table::Fleeting), bench.entries(Table::Kept)), (4, 0));
        // The crowd goes; what began meanwhile is still found.
        bench.crowd(-HALF_OPEN_FLOWS);
        let mut greeting = Packet::new((elsewhere, 8080), (node, port), TCP, SYN | ACK);
        bench.arrive(&mut greeting);
        bench.leave(&mut greeting);
        greeting.is((frontend, 80), (client, 40_000));
        let mut ack = Packet::new((client, 40_000), (frontend, 80), TCP, ACK);
        bench.arrive(&mut ack);
        bench.leave(&mut ack);
        ack.is((node, port), (elsewhere, 8080));
        assert_eq!((bench.entries(Table::Fleeting), bench.entries(Table::Kept)), (0, 4));
        assert_eq!((bench.half_open(), bench.counted(Reason::FlowKnown)), (0, 2));
        assert_eq!(bench.connections.opened.get(), 1);
    }
}

#[test]
fn a_port_is_taken_by_a_flow_of_either_table() {
    let [client, frontend, backend, ..] = NAMES[0];
    // The first flow is begun in a crowd, or the second.
    for crowds in [[HALF_OPEN_FLOWS, -HALF_OPEN_FLOWS], [0, HALF_OPEN_FLOWS]] {
        let mut bench = Bench::serving(frontend, UDP, 0, &[backend]);
        bench.also_serve("192.0.2.10", 30_080, UDP, 0);
        for (crowd, to, keeps) in
            [(crowds[0], (frontend, 80), true), (crowds[1], ("192.0.2.10", 30_080), false)]
        {
            bench.crowd(crowd);
            let mut there = Packet::new((client, 40_000), to, UDP, 0);
            bench.arrive(&mut there);
            let port = client_port(&there);
            assert_eq!(port == 40_000, keeps, "{to:?} in a crowd of {crowd}");
            let mut back = Packet::new((backend, 8080), (client, port), UDP, 0);
            bench.leave(&mut back);
            back.is(to, (client, 40_000));
        }
    }
}

#[test]
fn a_flood_that_takes_every_port_keeps_nobody_out() {
    let [client, frontend, _, elsewhere, node] = NAMES[0];
    let bench = Bench::serving(frontend, TCP, 0, &[elsewhere]);
    let connect = |client: (&str, u16)| {
        let mut syn = Packet::new(client, (frontend, 80), TCP, SYN);
        (bench.arrive(&mut syn), bench.leave(&mut syn), client_port(&syn))
    };
    let (.., port) = connect((client, 40_000));
    for (flags, from) in [(SYN | ACK, None), (ACK, Some(client))] {
        let mut packet = match from {
            Some(client) => Packet::new((client, 40_000), (frontend, 80), TCP, flags),
            None => Packet::new((elsewhere, 8080), (node, port), TCP, flags),
        };
        bench.arrive(&mut packet);
        bench.leave(&mut packet);
    }
    let known = bench.counted(Reason::FlowKnown);
    assert_eq!(known, 2, "the connection and its translation on the way out");
    // Of 65,536 ports the host has 28,232 and servers 1,024.
    for number in 0..45_000_u16 {
        let from = format!("203.0.113.{}", number % 16);
        connect((&from, number));
    }
    assert!(bench.counted(Reason::PortsExhausted) > 5_000, "all ports are taken");
    assert_eq!(bench.counted(Reason::FlowOver), 0, "who may yet be answered keeps his port");
    bench.pass(3);
    for number in 0..1_000 {
        assert_eq!(connect(("203.0.113.99", number)).1, Pass);
    }
    assert!(bench.counted(Reason::FlowOver) > 500, "the others give theirs");
    let mut data = Packet::new((client, 40_000), (frontend, 80), TCP, ACK);
    bench.arrive(&mut data);
    bench.leave(&mut data);
    data.is((node, port), (elsewhere, 8080));
}

#[test]
fn half_of_a_flow_is_made_from_the_other() {
    let [client, frontend, backend, ..] = NAMES[0];
    let cases = [(0, Side::Arrive), (HALF_OPEN_FLOWS, Side::Arrive), (HALF_OPEN_FLOWS, Side::Leave)];
    for (crowd, side) in cases {
        let bench = Bench::serving(frontend, UDP, 0, &[backend]);
        bench.crowd(crowd);
        let ask = || {
            let mut there = Packet::new((client, 40_000), (frontend, 80), UDP, 0);
            bench.arrive(&mut there);
            there.is((client, 40_000), (backend, 8080));
        };
        ask();
        bench.drive_out(side);
        ask();
        assert_eq!(bench.entries(Table::Kept) + bench.entries(Table::Fleeting), 2, "{crowd} {side:?}");
        assert_eq!(bench.half_open(), crowd.max(1));
        let mut back = Packet::new((backend, 8080), (client, 40_000), UDP, 0);
        bench.leave(&mut back);
        back.is((frontend, 80), (client, 40_000));
    }
}

#[test]
fn a_flow_that_lost_half_and_its_port_takes_another() {
    let [client, frontend, _, elsewhere, node] = NAMES[0];
    let bench = Bench::serving(frontend, UDP, 0, &[elsewhere]);
    bench.crowd(HALF_OPEN_FLOWS);
    let ask = |client: &str| {
        let mut there = Packet::new((client, 20_000), (frontend, 80), UDP, 0);
        assert_eq!((bench.arrive(&mut there), bench.leave(&mut there)), (Pass, Pass));
        client_port(&there)
    };
    let first = ask(client);
    bench.drive_out_translation(elsewhere);
    let other = ask("198.51.100.8");
    assert_eq!((first, other), (20_000, 20_000), "the port was free");
    let again = ask(client);
    assert_ne!(again, other);
    for (port, client) in [(other, "198.51.100.8"), (again, client)] {
        let mut back = Packet::new((elsewhere, 8080), (node, port), UDP, 0);
        assert_eq!((bench.arrive(&mut back), bench.leave(&mut back)), (Pass, Pass));
        back.is((frontend, 80), (client, 20_000));
    }
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
fn a_full_table_keeps_what_it_has_and_counts() {
    let [client, frontend, backend, ..] = NAMES[0];
    let bench = Bench::serving(frontend, UDP, 0, &[backend]);
    bench.limit_kept(2);
    for port in [1025, 1026] {
        bench.arrive(&mut Packet::new((client, port), (frontend, 80), UDP, 0));
        let mut back = Packet::new((backend, 8080), (client, port), UDP, 0);
        bench.leave(&mut back);
        back.is((frontend, 80), (client, port));
    }
    assert_eq!(bench.entries(Table::Kept), 2);
    assert_eq!(bench.counted(Reason::FlowsFull), 1);
}

#[test]
fn scenario_44_a_port_that_is_taken_is_changed_and_the_address_is_kept() {
    let [client, frontend, backend, ..] = NAMES[0];
    let mut bench = Bench::serving(frontend, UDP, 0, &[backend]);
    bench.also_serve("192.0.2.10", 30_080, UDP, 0);
    let mut one = Packet::new((client, 40_000), (frontend, 80), UDP, 0);
    bench.arrive(&mut one);
    one.is((client, 40_000), (backend, 8080));
    let mut other = Packet::new((client, 40_000), ("192.0.2.10", 30_080), UDP, 0);
    bench.arrive(&mut other);
    let port = client_port(&other);
    assert_ne!(port, 40_000);
    other.is((client, port), (backend, 8080));
    let mut back = Packet::new((backend, 8080), (client, port), UDP, 0);
    bench.leave(&mut back);
    back.is(("192.0.2.10", 30_080), (client, 40_000));
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
fn a_connection_after_one_that_ended_is_chosen_anew() {
    let [client, frontend, backend, elsewhere, _] = NAMES[0];
    let mut bench = Bench::serving(frontend, TCP, 0, &[backend]);
    let syn = Packet::new((client, 40_000), (frontend, 80), TCP, SYN);
    bench.arrive(&mut syn.clone());
    bench.replace_backends(&[elsewhere]);
    // The connection that is there goes on.
    let mut data = Packet::new((client, 40_000), (frontend, 80), TCP, ACK);
    bench.arrive(&mut data);
    data.is((client, 40_000), (backend, 8080));
    bench.arrive(&mut Packet::new((client, 40_000), (frontend, 80), TCP, FIN | ACK));
    let mut again = syn.clone();
    bench.arrive(&mut again);
    again.is((client, 40_000), (elsewhere, 8080));
    assert_eq!((bench.connections.opened.get(), bench.connections.closed.get()), (1, 1));
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
    assert_eq!(bench.entries(Table::Kept), 0);
}

#[test]
fn datagrams_beyond_the_ports_are_dropped_and_none_is_mixed_up() {
    let [client, frontend, _, elsewhere, node] = NAMES[0];
    let bench = Bench::serving(frontend, UDP, 0, &[elsewhere]);
    for number in 0..40_000_u16 {
        let from = [client, "198.51.100.8"][usize::from(number % 2)];
        let mut there = Packet::new((from, number / 2 + 1024), (frontend, 80), UDP, 0);
        assert_eq!(bench.arrive(&mut there), Pass);
        if bench.leave(&mut there) == Drop {
            continue;
        }
        let mut back = Packet::new((elsewhere, 8080), (node, client_port(&there)), UDP, 0);
        assert_eq!((bench.arrive(&mut back), bench.leave(&mut back)), (Pass, Pass));
        back.is((frontend, 80), (from, number / 2 + 1024));
    }
    assert!(bench.counted(Reason::PortsExhausted) > 2_000);
}

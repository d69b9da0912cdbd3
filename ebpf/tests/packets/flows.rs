//! The table of flows: when a flow is half open, where it lies meanwhile, who has a port, and what a flood drives out.
//!
//! What the packets become is tested in `main.rs`.

use ebpf::frontend::{TCP, UDP};
use ebpf::packet::engine::Action::{Drop, Pass};
use ebpf::packet::flow::{HALF_OPEN_FLOWS, Side};
use ebpf::packet::headers::tcp::{ACK, FIN, SYN};
use ebpf::packet::hook::Table;
use ebpf::packet::uplink::range;
use ebpf::stats::Reason;

use crate::NAMES;
use crate::bench::{Bench, Packet, client_port};

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
    // A flood of the first packets of others does not touch it.
    bench.crowd(HALF_OPEN_FLOWS);
    for port in 1..1000 {
        bench.arrive(&mut Packet::new((client, port), (frontend, 80), TCP, SYN));
    }
    assert_eq!((bench.entries(Table::Kept), bench.entries(Table::Fleeting)), (2, 1998));
    let mut data = Packet::new((backend, 8080), (client, 40_000), TCP, ACK);
    bench.leave(&mut data);
    data.is((frontend, 80), (client, 40_000));
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

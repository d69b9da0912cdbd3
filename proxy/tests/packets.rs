//! The packet programs in the kernel: malformed packets through the program test runner, what the verifier counted,
//! and links that stay, are taken over, and leave others' programs alone.

mod support;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;

use aya::maps::Map;
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType, loaded_programs};
use ebpf::address::Address;
use ebpf::maps::HALF_OPEN;
use ebpf::packet::flow::{Flow, FlowKey, Ports, Side};
use model::testing::ip;
use proxy::{Config, Proxy, Surroundings, Uplink};
use support::{NODE4, Node, World, on_a_node, run};

/// TCX_NEXT, TCX_DROP and TCX_REDIRECT.
const NEXT: u32 = u32::MAX;
const DROP: u32 = 2;
const REDIRECT: u32 = 7;
const BPF_PROG_TEST_RUN: libc::c_long = 10;

/// The start of `union bpf_attr` for BPF_PROG_TEST_RUN.
#[repr(C)]
struct TestRun {
    program: u32,
    result: u32,
    size: u32,
    size_out: u32,
    data: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context: [u64; 3],
}

fn config(node: &Node) -> Config {
    Config { packets: Some(proxy::LinkPath::Tcx), ..node.config() }
}

/// A proxy with the engine, which has been told of a service without endpoints.
fn world(node: &Node) -> World {
    serving(config(node), &[])
}

/// The same with these endpoints, and another configuration.
fn serving(config: Config, endpoints: &[&str]) -> World {
    let proxy = Proxy::open(config).expect("the proxy opens");
    let mut world = World { proxy, cluster: model::testing::listed(support::web(endpoints)) };
    world.sync();
    world
}

fn at(uplinks: Vec<Uplink>) -> Surroundings {
    Surroundings {
        uplinks,
        pods: Vec::new(),
        direct: Vec::new(),
        own: vec![ip(NODE4)],
        host_ports: 32768..=60999,
    }
}

/// The test runner's packets come from loopback.
fn loopback() -> Uplink {
    let ipv4 = NODE4.parse().ok();
    Uplink { index: 1, name: "lo".to_owned(), ipv4, ipv6: None, is_ethernet: true }
}

fn attached(link: &str) -> [Vec<ProgramInfo>; 2] {
    [TcAttachType::Ingress, TcAttachType::Egress]
        .map(|side| SchedClassifier::query_tcx(link, side).expect("tcx can be asked").1)
}

/// Runs a program over a packet: its verdict and the packet afterwards.
fn test_run(program: &ProgramInfo, packet: &[u8]) -> io::Result<(u32, Vec<u8>)> {
    let fd = program.fd().map_err(io::Error::other)?;
    let mut out = vec![0; packet.len() + 256];
    let mut attr = TestRun {
        program: fd.as_fd().as_raw_fd().unsigned_abs(),
        result: 0,
        size: u32::try_from(packet.len()).expect("short"),
        size_out: u32::try_from(out.len()).expect("short"),
        data: packet.as_ptr() as u64,
        data_out: out.as_mut_ptr() as u64,
        repeat: 1,
        duration: 0,
        context: [0; 3],
    };
    // SAFETY: the attribute and both buffers outlive the call, and their sizes are told.
    let done =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attr, size_of::<TestRun>()) };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    out.truncate(attr.size_out as usize);
    Ok((attr.result, out))
}

/// A SYN to the cluster IP, from outside.
fn syn() -> Vec<u8> {
    let mut packet = vec![0; 12];
    packet.extend([8, 0, 0x45, 0, 0, 40, 0, 1, 0, 0, 64, 6, 0, 0]);
    packet.extend([198, 51, 100, 7, 10, 96, 0, 5]);
    packet.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    packet
}

#[test]
fn malformed_packets_go_on_untouched_and_are_counted() {
    on_a_node(|node| {
        let mut world = world(node);
        world.proxy.surround(&at(vec![loopback()])).expect("lo is an uplink");
        let [arriving, leaving] = attached("lo");
        let whole = syn();
        let (verdict, refused) = test_run(&arriving[0], &whole).expect("a run");
        assert_eq!(verdict, NEXT);
        assert_ne!(refused, whole, "without endpoints it is refused by the node itself");
        // Every length, and every byte of the headers with other values.
        let cut = (14..whole.len()).map(|length| whole[..length].to_vec());
        let changed = (12..whole.len()).flat_map(|at| {
            [0, 1, 0x0f, 0x46, 0x60, 0x80, 0xff].map(|value| {
                let mut packet = syn();
                packet[at] = value;
                packet
            })
        });
        for packet in cut.chain(changed) {
            // Of those that arrive, a fragment waits for the first one of its datagram, and that goes back for it.
            let waits = packet.get(20..22).is_some_and(|field| field[0] & 0x3f != 0 || field[1] != 0);
            for (program, held) in [(&arriving[0], waits), (&leaving[0], false)] {
                match test_run(program, &packet) {
                    Ok((verdict, after)) => {
                        let expected = [NEXT, if held { DROP } else { NEXT }];
                        assert!(expected.contains(&verdict), "{verdict}: {packet:02x?}");
                        assert!(verdict == DROP || after.len() == packet.len(), "{packet:02x?}");
                    }
                    // The runner itself refuses what no card would hand on.
                    Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{packet:02x?}"),
                }
            }
        }
        let reasons = world.proxy.kernel().reasons();
        for name in ["malformed", "options", "not_ip", "fragment_unknown", "fragment_held"] {
            let count = reasons.iter().find(|(reason, _)| reason.as_str() == name).map(|(_, count)| *count);
            assert!(count > Some(0), "{name}: {count:?}");
        }
    });
}

/// What each program was when somebody last looked: instructions that the verifier walked, bytes of the program,
/// bytes of stack.
const RECORDED: [(&str, u32, u32, u32); 12] = [
    ("connect4", 6_324, 12_328, 160),
    ("connect6", 5_679, 12_712, 160),
    ("getpeername4", 47, 392, 32),
    ("getpeername6", 61, 520, 32),
    ("packet_arrive", 118_901, 54_656, 384),
    ("packet_arrive, redirecting", 120_305, 57_472, 384),
    ("packet_leave", 102_933, 44_408, 352),
    ("recvmsg4", 209, 1_552, 32),
    ("recvmsg6", 258, 1_864, 96),
    ("release", 168, 1_120, 32),
    ("sendmsg4", 8_963, 10_552, 224),
    ("sendmsg6", 10_329, 10_776, 224),
];

#[test]
fn every_program_stays_within_what_is_recorded_of_it() {
    on_a_node(|node| {
        let mut seen = BTreeMap::new();
        for redirect in [false, true] {
            let mut proxy = serving(Config { redirect, ..config(node) }, &[]).proxy;
            proxy.surround(&at(vec![loopback()])).expect("lo is an uplink");
            for program in programs(&node.bpf_dir) {
                let mut name = program.name_as_str().expect("a name").to_owned();
                if redirect && name == "packet_arrive" {
                    name += ", redirecting";
                }
                let walked = program.verified_instruction_count().expect("Linux 5.16");
                let bytes = program.size_translated().expect("root sees the size");
                seen.insert(name, [walked, bytes, support::stack::depth(&program)]);
            }
        }
        println!("{seen:#?}");
        let recorded: BTreeMap<String, [u32; 3]> =
            RECORDED.iter().map(|(name, a, b, c)| ((*name).to_owned(), [*a, *b, *c])).collect();
        assert!(seen.keys().eq(recorded.keys()), "every program is recorded, and no other: {seen:#?}");
        for (name, now) in &seen {
            let within = now.iter().zip(recorded[name]).all(|(now, then)| *now <= then + then / 4);
            assert!(within, "{name} is {now:?}, and was {:?}: look at why, then record it", recorded[name]);
        }
    });
}

/// The programs behind every pinned link.
fn programs(folder: &Path) -> Vec<ProgramInfo> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("pins").map(|entry| entry.expect("a pin")) {
        let path = entry.path();
        if entry.file_type().expect("a type").is_dir() {
            found.extend(programs(&path));
        } else if entry.file_name().to_string_lossy().starts_with("link_") {
            let id =
                FdLink::from(PinnedLink::from_pin(&path).expect("a link")).info().expect("told").program_id();
            let all = loaded_programs().filter_map(Result::ok);
            found.extend(all.filter(|program| program.id() == id));
        }
    }
    found
}

#[test]
fn a_full_table_of_flows_is_swept_and_their_connections_are_counted_closed() {
    on_a_node(|node| {
        let mut world = serving(config(node), &["10.244.0.2"]);
        world.proxy.surround(&at(vec![loopback()])).expect("lo is an uplink");
        let mut sweeper = world.proxy.sweeper().expect("the maps are there").expect("the engine is on");
        let [arriving, _] = attached("lo");
        test_run(&arriving[0], &syn()).expect("a run");
        let mut known = flows(node, ebpf::maps::FLOWS);
        let (_, made) = known.iter().filter_map(Result::ok).next().expect("a flow");
        let made = Flow::from_bytes(&made);
        let count: u32 = std::env::var("FAIRWAY_FLOWS").map_or(5_000, |text| text.parse().expect("a number"));
        let now = now();
        for number in 0..count {
            let [_, a, b, c] = number.to_be_bytes();
            let client = Address::from(std::net::IpAddr::from([10, a, b, c]));
            let ports = Ports(number);
            let key = FlowKey::new(client, made.address, ports, ebpf::frontend::TCP, Side::Arrive);
            let mut flow = Flow::new(&key, made.address, ports, if number % 2 == 0 { 0 } else { now });
            (flow.state, flow.backend, flow.service) =
                (Flow::CONFIRMED | Flow::RESET, made.backend, made.service);
            let (other_key, other) = flow.other(&key);
            for (key, flow) in [(key, flow), (other_key, other)] {
                // SAFETY: ten words, as `Flow::from_bytes` reads them.
                let bytes: [u8; 40] = unsafe { std::mem::transmute(flow) };
                known.insert(key.to_bytes(), bytes, 0).expect("room");
            }
        }
        let mut crowd = array(node, ebpf::maps::CROWD);
        assert_eq!(crowd.get(&HALF_OPEN, 0).expect("an element"), 1, "the first packet began a flow");
        crowd.set(HALF_OPEN, 77, 0).expect("an element");
        let started = std::time::Instant::now();
        let counts = sweeper.sweep().expect("a sweep");
        println!("{count} flows, half of them over: swept in {:?}", started.elapsed());
        assert_eq!((counts.known_swept, counts.known), (u64::from(count / 2), u64::from(count)));
        let service = model::testing::name("shop/web");
        assert_eq!(world.proxy.counts()[&service].closed, u64::from(count / 2));
        assert_eq!(counts.fresh, 2);
        assert_eq!(crowd.get(&HALF_OPEN, 0).expect("an element"), 1, "what was wrong is right again");
    });
}

#[test]
fn a_packet_goes_on_past_the_stack_only_where_the_stack_would_forward_it() {
    on_a_node(|node| {
        let mut world = serving(Config { redirect: true, ..config(node) }, &["10.244.0.2"]);
        world.proxy.surround(&at(vec![loopback()])).expect("lo is an uplink");
        let [arriving, _] = attached("lo");
        let arrive = |ttl: u8| {
            let (verdict, after) = test_run(&arriving[0], &sealed(ttl)).expect("a run");
            assert_eq!(after[30..34], [10, 244, 0, 2], "it is translated all the same");
            assert_eq!(sum(&after[14..34]), 0xffff, "the checksum of its header is right");
            (verdict, after[22])
        };
        run("ip link add up0 type veth peer name up1");
        run("ip link set up1 up");
        run("ip link set up0 up");
        run("ip route add 10.244.0.2/32 dev up0");
        assert_eq!(arrive(64), (NEXT, 64), "the host does not forward");
        std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("a sysctl");
        assert_eq!(arrive(64), (NEXT, 64), "the neighbour is unknown");
        run("ip neighbour add 10.244.0.2 lladdr 02:00:00:00:00:02 dev up0");
        assert_eq!(arrive(64), (REDIRECT, 63));
        assert_eq!(arrive(1), (NEXT, 1), "the stack tells the sender");
        run("ip route change unreachable 10.244.0.2/32");
        assert_eq!(arrive(64), (NEXT, 64), "there is no way");
    });
}

/// A SYN as [`syn`] makes it, with this TTL and a checksum.
fn sealed(ttl: u8) -> Vec<u8> {
    let mut packet = syn();
    packet[22] = ttl;
    let check = !sum(&packet[14..34]);
    packet[24..26].copy_from_slice(&check.to_be_bytes());
    packet
}

/// The Internet checksum's sum (RFC 1071).
fn sum(bytes: &[u8]) -> u16 {
    let add = |sum: u16, pair: &[u8]| {
        let (sum, carried) = sum.overflowing_add(u16::from_be_bytes([pair[0], pair[1]]));
        sum + u16::from(carried)
    };
    bytes.chunks(2).fold(0, add)
}

type Flows = aya::maps::HashMap<aya::maps::MapData, [u8; 40], [u8; 40]>;

fn flows(node: &Node, name: &str) -> Flows {
    let pin = node.bpf_dir.join(ebpf::maps::LAYOUT).join(name);
    let data = aya::maps::MapData::from_pin(pin).expect("the map is pinned");
    let map = if name == ebpf::maps::FLEETING { Map::LruHashMap(data) } else { Map::HashMap(data) };
    map.try_into().expect("a hash")
}

fn array(node: &Node, name: &str) -> aya::maps::Array<aya::maps::MapData, u64> {
    let pin = node.bpf_dir.join(ebpf::maps::LAYOUT).join(name);
    let data = aya::maps::MapData::from_pin(pin).expect("the map is pinned");
    Map::Array(data).try_into().expect("an array")
}

/// In the seconds of flows.
fn now() -> u32 {
    let text = std::fs::read_to_string("/proc/uptime").expect("/proc is mounted");
    let up: f64 = text.split(' ').next().and_then(|text| text.parse().ok()).expect("seconds");
    let nanoseconds = std::time::Duration::from_secs_f64(up).as_nanos();
    ebpf::packet::flow::seconds(u64::try_from(nanoseconds).expect("not centuries"))
}

#[test]
fn links_outlive_the_process_and_leave_those_of_others_alone() {
    on_a_node(|node| {
        run("ip link add up0 type veth peer name up1");
        // SAFETY: a name that ends with a zero.
        let index = unsafe { libc::if_nametoindex(c"up0".as_ptr()) };
        let uplink = Uplink { index, name: "up0".to_owned(), ipv4: NODE4.parse().ok(), ..loopback() };
        let mut first = world(node).proxy;
        first.surround(&at(vec![uplink.clone(), loopback()])).expect("both are uplinks");
        first.close();
        let before = attached("up0").map(|programs| programs.iter().map(ProgramInfo::id).collect::<Vec<_>>());
        assert!(before.iter().all(|programs| programs.len() == 1), "{before:?}");
        let mut second = world(node).proxy;
        second.surround(&at(vec![uplink.clone()])).expect("one is left");
        let after = attached("up0").map(|programs| programs.iter().map(ProgramInfo::id).collect::<Vec<_>>());
        assert!(after.iter().all(|programs| programs.len() == 1), "{after:?}");
        assert_ne!(before, after, "the link has the new program");
        assert!(attached("lo").iter().all(Vec::is_empty), "loopback is no uplink any more");
        second.close();
        drop(Proxy::open(node.config()).expect("the proxy opens without the engine"));
        assert!(attached("up0").iter().all(Vec::is_empty), "it is off");
    });
}

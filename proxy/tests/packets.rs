//! The packet programs in the kernel: malformed packets through the program test runner, what the verifier counted,
//! and links that stay, are taken over, and leave others' programs alone.

mod support;

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use aya::programs::{ProgramInfo, SchedClassifier, TcAttachType};
use model::testing::ip;
use proxy::{Config, Proxy, Surroundings, Uplink};
use support::{NODE4, Node, World, on_a_node, run};

/// TCX_NEXT.
const NEXT: u32 = u32::MAX;
const BPF_PROG_TEST_RUN: libc::c_long = 10;

/// What the programs may grow to before somebody looks: instructions that the verifier walks, and bytes after it.
const WALKED: u32 = 120_000;
const TRANSLATED: u32 = 60_000;

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
    Config { packets: true, ..node.config() }
}

/// A proxy with the engine, which has been told of a service without endpoints.
fn world(node: &Node) -> World {
    let proxy = Proxy::open(config(node)).expect("the proxy opens");
    let mut world = World { proxy, cluster: model::testing::listed(support::web(&[])) };
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
            for program in [&arriving[0], &leaving[0]] {
                match test_run(program, &packet) {
                    Ok((verdict, after)) => {
                        assert_eq!(verdict, NEXT, "{packet:02x?}");
                        assert_eq!(after.len(), packet.len(), "{packet:02x?}");
                    }
                    // The runner itself refuses what no card would hand on.
                    Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EINVAL), "{packet:02x?}"),
                }
            }
        }
        let reasons = world.proxy.kernel().reasons();
        for name in ["malformed", "options", "not_ip", "fragment_unknown"] {
            let count = reasons.iter().find(|(reason, _)| reason.as_str() == name).map(|(_, count)| *count);
            assert!(count > Some(0), "{name}: {count:?}");
        }
    });
}

#[test]
fn the_programs_stay_within_what_the_verifier_walks() {
    on_a_node(|node| {
        let mut proxy = world(node).proxy;
        proxy.surround(&at(vec![loopback()])).expect("lo is an uplink");
        for program in attached("lo").into_iter().flatten() {
            let (walked, translated) = (program.verified_instruction_count(), program.size_translated());
            println!("{:?}: {walked:?} instructions walked, {translated:?} bytes", program.name_as_str());
            assert!(walked.is_some_and(|walked| walked < WALKED), "{walked:?}");
            assert!(translated.is_some_and(|bytes| bytes < TRANSLATED), "{translated:?}");
        }
    });
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

//! kill -9 at random moments while endpoints come and go and clients connect all the time. FAIRWAY_KILLS says how
//! often; by default so often that a run is short.

mod support;

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use model::testing::{listed, service, slice};
use model::{Event, Object};
use proxy::Proxy;

use support::*;

/// Set in the process that is killed: the directory of its pins; beside it, its cgroup.
const CHURN: &str = "FAIRWAY_TEST_CHURN";
const CGROUP: &str = "FAIRWAY_TEST_CGROUP";
const SERVICES: u16 = 5;
const BACKENDS: u16 = 8;
const CLIENTS: usize = 4;
/// Connections that stay open over all kills.
const OPEN: u16 = 1000;

/// xorshift: the same moments in each run.
fn next(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Service `index` with those of its backends whose bit is set: each service has ports of its own, so that an
/// answer tells whose backend it was.
fn objects(index: u16, backends: u64) -> [Object; 2] {
    let name = format!("x/s{index}");
    let ready: Vec<String> = (0..BACKENDS)
        .filter(|bit| backends >> bit & 1 == 1)
        .map(|bit| format!("10.244.0.{}", bit + 2))
        .collect();
    let ready: Vec<&str> = ready.iter().map(String::as_str).collect();
    let slice = slice(&format!("s{index}-1"), &name).port(&format!("{}/TCP", 8080 + index)).ready(&ready);
    [service(&name, &[&format!("10.96.0.{}", index + 5)]).port("80/TCP").into(), slice.into()]
}

/// A daemon in miniature: serves, says whether the maps are as they should be, and changes endpoints until it is
/// killed.
fn churn(bpf_dir: PathBuf, cgroup: PathBuf) {
    let node = Node { cgroup, bpf_dir };
    let mut state = u64::from(std::process::id()) << 20 | 1;
    let all = (0..SERVICES).flat_map(|index| objects(index, next(&mut state) | 1));
    let mut cluster = listed(all);
    let mut proxy = Proxy::open(node.config()).expect("the proxy opens");
    let sync = |cluster: &mut model::Cluster, proxy: &mut Proxy| {
        let now = Instant::now();
        let outcome = proxy.grow(&cluster.snapshot(), now);
        assert!(outcome.complete && outcome.unprogrammed.is_empty(), "{outcome:?}");
        proxy.shrink(now + proxy::GRACE);
    };
    sync(&mut cluster, &mut proxy);
    let wrong = difference(&mut proxy);
    eprintln!("{}", wrong.unwrap_or_else(|| "equal".to_owned()));
    loop {
        let index = u16::try_from(next(&mut state) % u64::from(SERVICES)).expect("small");
        for object in objects(index, next(&mut state) >> 8 | 1) {
            cluster.apply(Event::Apply(object));
        }
        sync(&mut cluster, &mut proxy);
    }
}

fn vip(service: u16) -> String {
    format!("10.96.0.{}:80", service + 5)
}

fn start(node: &Node, test: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("the test binary"));
    command.args(["--exact", test, "--nocapture"]).env(CHURN, &node.bpf_dir).env(CGROUP, &node.cgroup);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the process starts")
}

/// Every backend of every service.
fn serve_backends() {
    for bit in 0..BACKENDS {
        let ip = format!("10.244.0.{}", bit + 2);
        add_address(&ip);
        (0..SERVICES).for_each(|index| serve(&ip, 8080 + index));
    }
}

#[test]
fn scenario_34_killed_at_random_moments_no_connection_fails() {
    if let (Some(pins), Some(cgroup)) = (std::env::var_os(CHURN), std::env::var_os(CGROUP)) {
        return churn(pins.into(), cgroup.into());
    }
    on_a_node(|node| {
        raise_file_limit();
        let kills = std::env::var("FAIRWAY_KILLS").map_or(10, |text| text.parse().expect("a number"));
        serve_backends();
        let test = std::thread::current().name().expect("tests run in named threads").to_owned();
        let (stop, tried, failed, misdirected) =
            (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let connect = || {
            for index in (0..SERVICES).cycle() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                tried.fetch_add(1, Ordering::Relaxed);
                match dial(&vip(index)) {
                    Err(_) => failed.fetch_add(1, Ordering::Relaxed),
                    Ok(mut stream) => {
                        let right = ask(&mut stream).ends_with(&format!(":{}", 8080 + index));
                        // A reset instead of a minute in TIME-WAIT, else the ports run out.
                        let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                        misdirected.fetch_add(u64::from(!right), Ordering::Relaxed)
                    }
                };
            }
        };
        let mut state = 0x9e37_79b9_7f4a_7c15;
        let mut open = Vec::new();
        let mut exits = Duration::ZERO;
        std::thread::scope(|scope| {
            for round in 0..=kills {
                let mut child = start(node, &test);
                let mut said = BufReader::new(child.stderr.take().expect("piped")).lines();
                let line = said.next().expect("it says something").expect("text");
                if line != "equal" {
                    stop.store(true, Ordering::Relaxed);
                    child.kill().expect("it runs");
                    panic!(
                        "after {round} kills: {line}\n{}",
                        said.map_while(Result::ok).collect::<Vec<_>>().join("\n")
                    );
                }
                if round == 0 {
                    open.extend((0..OPEN).map(|index| dial(&vip(index % SERVICES)).expect("it connects")));
                    (0..CLIENTS).for_each(|_| drop(scope.spawn(connect)));
                }
                std::thread::sleep(Duration::from_micros(next(&mut state) % 30_000));
                let begun = Instant::now();
                child.kill().and_then(|()| child.wait()).expect("it runs");
                exits += begun.elapsed();
            }
            stop.store(true, Ordering::Relaxed);
        });
        let counts = [tried, failed, misdirected].map(AtomicU64::into_inner);
        eprintln!(
            "{kills} kills: tried, failed, misdirected: {counts:?}; an exit takes {:?}",
            exits / (kills + 1)
        );
        assert_eq!((counts[1], counts[2]), (0, 0), "of {}", counts[0]);
        // No reset and no mistake on what was open all the time.
        for (index, stream) in (0..OPEN).zip(&mut open) {
            assert!(ask(stream).ends_with(&format!(":{}", 8080 + index % SERVICES)));
            assert_eq!(stream.peer_addr().expect("a peer"), address(&vip(index % SERVICES)));
        }
    });
}

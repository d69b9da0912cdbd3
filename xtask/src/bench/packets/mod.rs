//! A client outside and a node port, beside the same hops without translation and beside nftables in kube-proxy's shape:
//! connections, datagrams, throughput and a flood of small packets, to a backend on the node and to one behind it.
//!
//! Everything is on one machine, so the processor time of the whole way is what is seen. Who asks and who answers share a
//! core: the kernel would place each server elsewhere, and the same way to two of them would differ more than two ways.

mod net;

use ::tests::{Kind, until};
use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;

use super::figure::{Bound, Figure, median};
use super::report::Report;
use net::{Net, Where};

const ROUNDS: usize = 15;
/// Exchanges with each target a round.
const COUNT: &str = "600";
/// Of one transfer: half a second, so that its start weighs little.
const BYTES: &str = "1600M";
/// Datagrams of one flood, of so many bytes.
const FLOOD: [&str; 4] = ["--blockcount", "120000", "--length", "64"];
const BOUND_RULES: f64 = 1.0;
const BOUND_PLAIN: f64 = 0.85;
const RIVALS: [(&str, f64); 2] = [("plain routing", BOUND_PLAIN), ("nftables", BOUND_RULES)];

/// Values of one metric by way (Fairway, plain routing, rules) and round.
type Ways = [Vec<f64>; 3];

/// Which of two values is the better one: the ratio is above 1 where it is ours.
#[derive(Clone, Copy)]
enum Better {
    More,
    Less,
}

/// Measures to a backend on the node, then to one behind it.
pub(crate) fn measure(report: &mut Report) -> Result<()> {
    report.progress("building fairway with optimisation (the first time takes minutes)");
    let fairway = super::build(&["build", "--release", "-p", "fairway", "-p", "tests", "--bins"], "fairway")?;
    let net = Net::create(fairway.parent().context("a program is in a folder")?)?;
    for (place, case) in [(Where::Local, "local backend"), (Where::Remote, "remote backend")] {
        await_all(&net, place)?;
        report.progress(&format!(
            "packets: {case}, {ROUNDS} rounds of connections, datagrams, transfers and floods"
        ));
        let [connects, late] = race(&net, "connect", &Net::targets(place, "tcp", 80)?)?;
        let [datagrams, datagrams_late] = race(&net, "datagrams", &Net::targets(place, "udp", 81)?)?;
        let throughput = transfers(&net, &Net::targets(place, "tcp", 5201)?, &["--bytes", BYTES], rate)?;
        let flood = [&["--udp", "--bitrate", "0"][..], &FLOOD].concat();
        let packets = transfers(&net, &Net::targets(place, "udp", 5201)?, &flood, packets)?;
        for (metric, unit, ways, better) in [
            ("connections", "/s", connects, Better::More),
            ("connection, p99", "us", late, Better::Less),
            ("datagram exchanges", "/s", datagrams, Better::More),
            ("datagram, p99", "us", datagrams_late, Better::Less),
            ("throughput", "Gbit/s", throughput, Better::More),
            ("datagrams one way", "/s", packets, Better::More),
        ] {
            report.tell(compare(case, (metric, unit), &ways, better));
        }
    }
    Ok(())
}

fn await_all(net: &Net, place: Where) -> Result<()> {
    for target in Net::targets(place, "tcp", 80)? {
        until(&format!("{target} to answer"), || {
            net.client.ask(Kind::Tcp, &target, &["--timeout", "500"])?.only_from(&["echo"])
        })?;
    }
    Ok(())
}

/// Exchanges one after the other: how many a second, and what the slowest of a hundred took.
fn race(net: &Net, exchange: &str, targets: &[String; 3]) -> Result<[Ways; 2]> {
    let rounds = ROUNDS.to_string();
    let mut words = vec!["race", exchange];
    words.extend(targets.iter().map(String::as_str));
    words.extend(["--rounds", &rounds, "--count", COUNT]);
    let line = on_one_core(|| net.client.background(&words))??.read_line()?;
    let value: Value = serde_json::from_str(&line).context("the probe prints JSON")?;
    let rounds = value["rounds"].as_array().context("rounds")?;
    let told = |key: &str, unit: fn(f64) -> f64| {
        [0, 1, 2].map(|way| {
            rounds.iter().map(|round| unit(round[way][key].as_f64().unwrap_or(f64::NAN))).collect()
        })
    };
    Ok([told("mean", |nanos| 1e9 / nanos), told("p99", |nanos| nanos / 1000.0)])
}

/// What is started meanwhile stays on one core, of all that this process may use.
fn on_one_core<T>(start: impl FnOnce() -> T) -> Result<T> {
    let all = sched_getaffinity(None)?;
    let mut one = CpuSet::new();
    one.set((0..CpuSet::MAX_CPU).find(|core| all.is_set(*core)).context("a core")?);
    sched_setaffinity(None, &one)?;
    let started = start();
    sched_setaffinity(None, &all)?;
    Ok(started)
}

/// Runs iperf3 against each target in turn.
fn transfers(net: &Net, targets: &[String; 3], more: &[&str], read: fn(&Value) -> f64) -> Result<Ways> {
    let mut ways = Ways::default();
    // The first round warms up and is not told.
    for round in 0..=ROUNDS {
        for turn in 0..targets.len() {
            let way = (round + turn) % targets.len();
            let (address, port) = targets[way].rsplit_once(':').context("address:port")?;
            let mut words = vec!["iperf3", "--json", "--client", address, "--port", port];
            words.extend(more);
            let said = net.client.command(&words)?.success()?.stdout;
            let value: Value = serde_json::from_str(&said).context("iperf3 prints JSON")?;
            if round > 0 {
                ways[way].push(read(&value));
            }
        }
    }
    Ok(ways)
}

/// Gigabits a second that arrived.
fn rate(told: &Value) -> f64 {
    told["end"]["sum_received"]["bits_per_second"].as_f64().unwrap_or(f64::NAN) / 1e9
}

/// Datagrams a second that arrived.
fn packets(told: &Value) -> f64 {
    let sum = &told["end"]["sum"];
    let number = |key: &str| sum[key].as_f64().unwrap_or(f64::NAN);
    (number("packets") - number("lost_packets")) / number("seconds")
}

fn compare(
    case: &str,
    (metric, unit): (&'static str, &'static str),
    [ours, rivals @ ..]: &Ways,
    better: Better,
) -> [Figure; 2] {
    let ratio = |(own, other): (&f64, &f64)| match better {
        Better::More => own / other,
        Better::Less => other / own,
    };
    [0, 1].map(|rival| Figure {
        bench: "packets",
        case: case.to_owned(),
        metric,
        unit,
        value: median(ours),
        versus: RIVALS[rival].0,
        rounds: ours.iter().zip(&rivals[rival]).map(ratio).collect(),
        bound: Bound::AtLeast(RIVALS[rival].1),
    })
}

//! `fairway top`: the services that have connections, from two samples of the daemon's counters. The daemon makes a
//! sample; what a second brought is worked out by the command line. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use proxy::Traffic;
use serde::{Deserialize, Serialize};

use crate::commands::table::table;

/// The counters of one service that has been used since the daemon started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceSample {
    namespace: String,
    service: String,
    /// Connections, and flows of unconnected UDP sockets, sent to a backend so far.
    opened: u64,
    /// Connections so far that there was no backend for.
    failed: u64,
    backends: Vec<BackendSample>,
}

/// The counters of one backend that has been used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct BackendSample {
    port: String,
    protocol: String,
    address: SocketAddr,
    /// Sockets that are connected to it now.
    open: u64,
    opened: u64,
}

/// One service over the time between two samples.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LiveService {
    namespace: String,
    service: String,
    open: u64,
    opened_per_second: f64,
    failed_per_second: f64,
    /// All that have failed so far.
    failed: u64,
    backends: Vec<LiveBackend>,
}

/// One backend over that time.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct LiveBackend {
    port: String,
    protocol: String,
    address: SocketAddr,
    open: u64,
    opened_per_second: f64,
}

/// What a backend is known by in both samples.
type Key<'a> = (&'a str, &'a str, SocketAddr);

/// The services of the node that have been used.
pub fn sample(traffic: &Traffic) -> Vec<ServiceSample> {
    let mut services = BTreeMap::new();
    for (name, count) in traffic.services.iter().filter(|(_, count)| count.opened + count.refused > 0) {
        let sample = ServiceSample {
            namespace: name.namespace.to_string(),
            service: name.name.to_string(),
            opened: count.opened,
            failed: count.refused,
            backends: Vec::new(),
        };
        services.insert(name, sample);
    }
    for (state, open) in traffic.backends.iter().filter(|(state, _)| state.count.opened > 0) {
        if let Some(service) = services.get_mut(&state.service.name) {
            service.backends.push(BackendSample {
                port: state.service.port.to_string(),
                protocol: state.service.protocol.to_string(),
                address: SocketAddr::new(state.slot.ip, state.slot.port),
                open: *open,
                opened: state.count.opened,
            });
        }
    }
    services.into_values().collect()
}

/// What happened in `seconds` between two samples; the busiest service first.
pub fn live(before: &[ServiceSample], after: &[ServiceSample], seconds: f64) -> Vec<LiveService> {
    let known: BTreeMap<_, _> =
        before.iter().map(|sample| ((&sample.namespace, &sample.service), sample)).collect();
    let mut rows: Vec<LiveService> = after
        .iter()
        .map(|sample| {
            let before = known.get(&(&sample.namespace, &sample.service));
            live_service(before.copied(), sample, seconds)
        })
        .collect();
    rows.sort_by(|one, other| {
        let rates = other.opened_per_second.total_cmp(&one.opened_per_second);
        rates.then(other.open.cmp(&one.open))
    });
    rows
}

/// The rows as text for people, a line a service and a line a backend.
pub fn text(rows: &[LiveService]) -> String {
    let sum = |of: fn(&LiveService) -> f64| rows.iter().map(of).sum::<f64>();
    let head = format!(
        "{} services in use, {} connections open, {:.1} opened and {:.1} failed a second\n\n",
        rows.len(),
        rows.iter().map(|row| row.open).sum::<u64>(),
        sum(|row| row.opened_per_second),
        sum(|row| row.failed_per_second)
    );
    let mut lines = Vec::new();
    for row in rows {
        lines.push(vec![
            format!("{}/{}", row.namespace, row.service),
            row.open.to_string(),
            format!("{:.1}", row.opened_per_second),
            format!("{:.1}", row.failed_per_second),
            row.failed.to_string(),
        ]);
        for backend in &row.backends {
            let port = if backend.port.is_empty() { String::new() } else { format!("{}/", backend.port) };
            lines.push(vec![
                format!("  {port}{} {}", backend.protocol, backend.address),
                backend.open.to_string(),
                format!("{:.1}", backend.opened_per_second),
            ]);
        }
    }
    head + &table(&["SERVICE, BACKEND", "OPEN", "OPENED/S", "FAILED/S", "FAILED"], &lines)
}

/// As much of a text as a screen of so many columns and rows shows; the last line says what it leaves out.
pub fn fit(text: &str, (columns, rows): (usize, usize)) -> Vec<String> {
    let cut = |line: &str| line.chars().take(columns).collect::<String>();
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= rows {
        return lines.into_iter().map(cut).collect();
    }
    let shown = rows.saturating_sub(1);
    let more = format!("({} more lines)", lines.len() - shown);
    lines[..shown].iter().copied().chain([more.as_str()]).map(cut).collect()
}

fn live_service(before: Option<&ServiceSample>, after: &ServiceSample, seconds: f64) -> LiveService {
    let known: BTreeMap<Key<'_>, u64> = before
        .iter()
        .flat_map(|before| &before.backends)
        .map(|backend| (key(backend), backend.opened))
        .collect();
    let mut backends: Vec<LiveBackend> = after
        .backends
        .iter()
        .map(|backend| LiveBackend {
            port: backend.port.clone(),
            protocol: backend.protocol.clone(),
            address: backend.address,
            open: backend.open,
            opened_per_second: rate(known.get(&key(backend)).copied(), backend.opened, seconds),
        })
        .collect();
    backends.sort_by_key(|backend| std::cmp::Reverse(backend.open));
    LiveService {
        namespace: after.namespace.clone(),
        service: after.service.clone(),
        open: backends.iter().map(|backend| backend.open).sum(),
        opened_per_second: rate(before.map(|before| before.opened), after.opened, seconds),
        failed_per_second: rate(before.map(|before| before.failed), after.failed, seconds),
        failed: after.failed,
        backends,
    }
}

fn key(backend: &BackendSample) -> Key<'_> {
    (&backend.port, &backend.protocol, backend.address)
}

/// A counter that fell has begun anew.
fn rate(before: Option<u64>, after: u64, seconds: f64) -> f64 {
    let more = before.and_then(|before| after.checked_sub(before)).unwrap_or(after);
    more as f64 / seconds
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn service(name: &str, opened: u64, failed: u64, backends: &[(&str, u64, u64)]) -> ServiceSample {
        let backend = |&(address, open, opened): &(&str, u64, u64)| BackendSample {
            port: "http".into(),
            protocol: "TCP".into(),
            address: address.parse().unwrap(),
            open,
            opened,
        };
        ServiceSample {
            namespace: "shop".into(),
            service: name.into(),
            opened,
            failed,
            backends: backends.iter().map(backend).collect(),
        }
    }

    #[test]
    fn what_a_second_brought_is_the_difference_and_the_busiest_comes_first() {
        let before = [
            service("quiet", 3, 7, &[("10.244.0.9:80", 1, 3)]),
            service("web", 100, 0, &[("10.244.0.2:80", 5, 60), ("10.244.0.3:80", 9, 40)]),
        ];
        let after = [
            service("quiet", 3, 9, &[("10.244.0.9:80", 1, 3)]),
            service("web", 140, 0, &[("10.244.0.2:80", 5, 80), ("10.244.0.3:80", 9, 10)]),
        ];
        expect![[r#"
            2 services in use, 15 connections open, 20.0 opened and 1.0 failed a second

            SERVICE, BACKEND          OPEN  OPENED/S  FAILED/S  FAILED
            shop/web                  14    20.0      0.0       0
              http/TCP 10.244.0.3:80  9     5.0
              http/TCP 10.244.0.2:80  5     10.0
            shop/quiet                1     0.0       1.0       9
              http/TCP 10.244.0.9:80  1     0.0
        "#]]
        .assert_eq(&text(&live(&before, &after, 2.0)));
    }

    #[test]
    fn a_service_that_is_new_has_had_all_its_connections_since() {
        let after = [service("web", 10, 4, &[])];
        let rows = live(&[], &after, 1.0);
        assert_eq!((rows[0].opened_per_second, rows[0].failed_per_second), (10.0, 4.0));
    }

    #[test]
    fn a_screen_is_never_overrun_and_says_what_it_leaves_out() {
        let text = "one line\ntwo\nthree\nfour\n";
        assert_eq!(fit(text, (80, 4)), ["one line", "two", "three", "four"]);
        assert_eq!(fit(text, (8, 3)), ["one line", "two", "(2 more "]);
        assert_eq!(fit(text, (3, 9))[0], "one");
    }
}

//! Writes services as a cluster would: each with its EndpointSlice first, for a short life, and with a cluster IP that
//! another service had until a moment ago. It writes what `probe api` says to a watch; it asks nobody.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::Write;
use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::Churn;

/// The port of every service.
pub(super) const PORT: u16 = 80;
/// The port of every backend.
const TARGET_PORT: u16 = 7000;
/// The newest services, among which are those that live.
pub(super) const LIVING: usize = 2000;
/// How long before its service a slice is there, and how long after it.
pub(super) const LEAD: Duration = Duration::from_millis(250);
/// The shortest and the longest life.
const LIFE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(3800));
/// How long a cluster IP is nobody's.
const FREE: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(1);
const FIRST_IP: u32 = 0x0a60_1000; // 10.96.16.0
const FIRST_BACKEND: u32 = 0xc612_0000; // 198.18.0.0

/// When a service was written, and when at the soonest it is deleted.
#[derive(Clone, Copy)]
pub(super) struct Life {
    pub(super) born: Instant,
    pub(super) dies: Instant,
}

/// What is to be written of a service.
enum Act {
    AddSlice,
    AddService,
    DeleteService(Ipv4Addr),
    DeleteSlice,
}

pub(super) struct Author {
    services: File,
    slices: File,
    /// What is to be written, by time; the second number keeps apart what is due at one time.
    due: BTreeMap<(Instant, u64), (u64, Act)>,
    planned: u64,
    between: Duration,
    free: VecDeque<(Instant, Ipv4Addr)>,
    fresh: u32,
    /// How many services had the address of another.
    pub(super) reused: u64,
}

impl Author {
    pub(super) fn new(churn: &Churn) -> Result<Self> {
        let open = |kind: &str| {
            let path = churn.folder.join(format!("{kind}.watch"));
            File::options().append(true).open(&path).with_context(|| path.display().to_string())
        };
        let mut author = Self {
            services: open("services")?,
            slices: open("endpointslices")?,
            due: BTreeMap::new(),
            planned: 0,
            between: Duration::from_secs(1) / churn.rate,
            free: VecDeque::new(),
            fresh: FIRST_IP,
            reused: 0,
        };
        author.plan(Instant::now(), 0, Act::AddSlice);
        Ok(author)
    }

    /// Writes what is due, then waits for a moment.
    pub(super) fn write(&mut self, lives: &Mutex<Vec<Life>>) -> Result<()> {
        let (mut services, mut slices) = (String::new(), String::new());
        let now = Instant::now();
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((time, _), (number, act)) = entry.remove_entry();
            let (text, event) = match act {
                Act::AddSlice => {
                    self.plan(time + self.between, number + 1, Act::AddSlice);
                    self.plan(time + LEAD, number, Act::AddService);
                    (&mut slices, event("ADDED", &slice(number)))
                }
                Act::AddService => {
                    let (address, dies) = (self.address(now), now + life(number));
                    self.plan(dies, number, Act::DeleteService(address));
                    lives.lock().expect("no thread panics").push(Life { born: now, dies });
                    (&mut services, event("ADDED", &service(number, address)))
                }
                Act::DeleteService(address) => {
                    self.free.push_back((now, address));
                    self.plan(now + LEAD, number, Act::DeleteSlice);
                    (&mut services, event("DELETED", &service(number, address)))
                }
                Act::DeleteSlice => (&mut slices, event("DELETED", &slice(number))),
            };
            text.push_str(&event);
        }
        self.slices.write_all(slices.as_bytes())?;
        self.services.write_all(services.as_bytes())?;
        std::thread::sleep(PAUSE);
        Ok(())
    }

    fn plan(&mut self, at: Instant, number: u64, act: Act) {
        self.planned += 1;
        self.due.insert((at, self.planned), (number, act));
    }

    /// The address that has been free for just long enough, or a fresh one.
    fn address(&mut self, now: Instant) -> Ipv4Addr {
        if let Some((_, address)) = self.free.pop_front_if(|(since, _)| *since + FREE <= now) {
            self.reused += 1;
            return address;
        }
        self.fresh += 1;
        Ipv4Addr::from_bits(self.fresh)
    }
}

/// xorshift: the same lives in each run.
pub(super) fn next(mut state: u64) -> u64 {
    state ^= state << 13;
    state ^= state >> 7;
    state ^ state << 17
}

fn life(number: u64) -> Duration {
    let spread = u64::try_from((LIFE.1 - LIFE.0).as_millis()).unwrap_or_default();
    let random = next(next(number.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1));
    LIFE.0 + Duration::from_millis(random % spread)
}

/// The address of the one backend of a service, on which nobody else's is.
pub(super) fn backend(number: u64) -> Ipv4Addr {
    // 198.18.0.0/15 has room for what is there at one time, many times over.
    Ipv4Addr::from_bits(FIRST_BACKEND + u32::try_from(number % 100_000).unwrap_or_default() + 1)
}

pub(super) fn domain_name(number: u64) -> String {
    format!("s{number}.t.svc.cluster.local")
}

fn event(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}

fn service(number: u64, address: Ipv4Addr) -> Value {
    let name = format!("s{number}");
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "t", "resourceVersion": "2", "uid": name},
        "spec": {
            "type": "ClusterIP", "clusterIP": address, "clusterIPs": [address],
            "ports": [{"port": PORT, "protocol": "TCP", "targetPort": TARGET_PORT}],
        },
    })
}

fn slice(number: u64) -> Value {
    let name = format!("s{number}");
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": "t", "resourceVersion": "2", "uid": name,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "port": TARGET_PORT, "protocol": "TCP"}],
        "endpoints": [{"addresses": [backend(number)], "conditions": {"ready": true}}],
    })
}

//! The self-check: do the programs run, do they translate, do the maps hold what they should? What is wrong is
//! put right where it can be. Called on a timer and by `fairway check --live`.

use std::ops::Bound;
use std::time::Instant;

use super::Proxy;
use crate::adopt::{adopt, read_block};
use crate::current::Current;
use crate::dataplane::Kernel;
use crate::probe::is_probe;
use crate::sys;
use crate::tables::{Frontend, ServiceKey, Target};

/// How many service ports and how many frontends one check looks at; the next check goes on after them.
const SAMPLE: usize = 256;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub what: &'static str,
    /// What was wrong, in one sentence.
    pub wrong: Option<String>,
    /// Whether it is right now.
    pub well: bool,
}

/// Where the next sample begins.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    service: Option<ServiceKey>,
    frontend: Option<Frontend>,
}

impl Proxy {
    /// Looks at everything, and repairs what it can. Before the first complete snapshot there are only the
    /// programs to look at.
    pub fn examine(&mut self, now: Instant) -> Vec<Finding> {
        let mut findings = Vec::new();
        if !self.programs.is_upgrade() {
            findings.push(self.examine_programs());
        }
        if self.current.is_some() {
            findings.push(self.examine_maps(now));
            findings.push(self.examine_probe());
        }
        for finding in findings.iter().filter(|finding| finding.wrong.is_some() && finding.well) {
            *self.repairs.entry(finding.what).or_default() += 1;
        }
        findings
    }

    fn examine_programs(&mut self) -> Finding {
        let wrong = match self.programs.missing() {
            Ok(missing) if missing.is_empty() => {
                return Finding { what: "programs", wrong: None, well: true };
            }
            Ok(missing) => format!("{} did not run for the node's sockets", missing.join(", ")),
            Err(error) => format!("whether the programs run cannot be asked: {error}"),
        };
        let repaired = self.programs.attach().map_err(|error| error.to_string());
        let still = repaired.and_then(|()| match self.programs.missing() {
            Ok(missing) if missing.is_empty() => Ok(()),
            Ok(missing) => Err(format!("{} still do not", missing.join(", "))),
            Err(error) => Err(error.to_string()),
        });
        let well = still.is_ok();
        let wrong = still.map_or_else(|error| format!("{wrong}: {error}"), |()| wrong.clone());
        Finding { what: "programs", wrong: Some(wrong), well }
    }

    fn examine_maps(&mut self, now: Instant) -> Finding {
        let Some(wrong) = self.sample() else { return Finding { what: "maps", wrong: None, well: true } };
        // As at a start: what is in the maps is read anew, and what differs is written. A hook may hold what
        // was freed last.
        let well = sys::barrier().is_ok();
        if well {
            let desired = self.desired();
            self.current = Some(adopt(&self.kernel, &desired));
            self.bring(&desired, now);
        }
        let well = well && self.sample().is_none();
        Finding { what: "maps", wrong: Some(wrong), well }
    }

    fn examine_probe(&self) -> Finding {
        let placed = |current: &Current| current.tables().services.keys().any(|key| is_probe(&key.name));
        let wrong = match &self.current {
            Some(current) if placed(current) => self.probe.ask().err(),
            // Without room in the maps; that has been said.
            Some(_) | None => None,
        };
        Finding { what: "probe", well: wrong.is_none(), wrong }
    }

    /// Compares the next part of the maps with what they should hold. The first thing that differs.
    fn sample(&mut self) -> Option<String> {
        let current = self.current.as_ref()?;
        let (services, next) = after(&current.tables().services, self.cursor.service.as_ref());
        self.cursor.service = next;
        let (frontends, next) = after(&current.tables().frontends, self.cursor.frontend.as_ref());
        self.cursor.frontend = next;
        let service = services.iter().find(|key| !service_is_right(&self.kernel, current, key));
        let frontend = || frontends.iter().find(|key| !frontend_is_right(&self.kernel, current, key));
        service.map(|key| format!("the service port {key} was not in the maps as it was written")).or_else(
            || frontend().map(|key| format!("the frontend {key} was not in the maps as it was written")),
        )
    }
}

/// The next keys after `last`, from the beginning where there are none, and where to go on.
fn after<K: Ord + Clone, V: Clone>(map: &imbl::OrdMap<K, V>, last: Option<&K>) -> (Vec<K>, Option<K>) {
    let start = last.map_or(Bound::Unbounded, Bound::Excluded);
    let keys: Vec<K> =
        map.range::<_, K>((start, Bound::Unbounded)).map(|(key, _)| key.clone()).take(SAMPLE).collect();
    let next = if keys.len() == SAMPLE { keys.last().cloned() } else { None };
    (keys, next)
}

fn service_is_right(kernel: &Kernel, current: &Current, key: &ServiceKey) -> bool {
    use crate::adopt::Contents;
    let Some(placed) = current.placed.get(key) else { return false };
    let Some(block) = current.tables().services.get(key) else { return false };
    let found = read_block(kernel, placed.id, kernel.service(placed.id));
    found.is_some_and(|(found, at, _)| {
        found == **block && (at.base, at.lines, &at.backends) == (placed.base, placed.lines, &placed.backends)
    })
}

fn frontend_is_right(kernel: &Kernel, current: &Current, frontend: &Frontend) -> bool {
    let expected = match current.tables().frontends.get(frontend) {
        Some(Target::Service(key, flags)) => current.service_id(key).map(|id| (id, *flags)),
        Some(Target::Refuse) => Some((0, ebpf::frontend::FrontendWord::REFUSE)),
        None => None,
    };
    let key = frontend.key();
    let word = expected.map(|(id, flags)| ebpf::frontend::FrontendWord::new(&key, id, flags));
    word.is_some() && kernel.frontend(&key) == word
}

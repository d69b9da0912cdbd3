//! The kernel as a dataplane: the maps, three of them as memory. The only file with aya's maps. It applies what
//! it is told and never decides.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use aya::Ebpf;
use aya::maps::{HashMap, Map, MapData, MapError, PerCpuArray};
use ebpf::backend::{Backend, OPENED_OFFSET, WINDOWS_OFFSET};
use ebpf::block::{HEADER_WORDS, LINE_WORDS, Line, ServiceWord};
use ebpf::frontend::{FrontendKey, FrontendWord};
use ebpf::maps;
use ebpf::stats::Reason;

use crate::adopt::Contents;
use crate::counts::Count;
use crate::current::Sizes;
use crate::op::{Dataplane, Op, Refused};
use crate::sys::{self, Memory};

/// An insert may find the kernel's allocator empty for a moment; so often it is tried again.
const MEMORY_TRIES: u32 = 100;
/// How long to wait in between: the allocator refills itself in an interrupt.
const MEMORY_WAIT: Duration = Duration::from_micros(100);
const BPF_ANY: u64 = 0;

/// Why the maps cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The object has no such map.
    #[error("the programs have no map {0}")]
    Absent(&'static str),
    /// A map of another kind stands under the pin.
    #[error("the map {0} is not what it should be ({1}); `fairway cleanup` removes it")]
    Other(&'static str, String),
    /// A map cannot be mapped.
    #[error("the map {0} cannot be mapped into memory: {1}")]
    Memory(&'static str, io::Error),
}

/// The maps in the kernel.
pub struct Kernel {
    sizes: Sizes,
    frontends: HashMap<MapData, [u8; 20], u64>,
    stats: PerCpuArray<MapData, u64>,
    services: Memory,
    lines: Memory,
    backends: Arc<Memory>,
    counters: Counters,
    node: Arc<Memory>,
}

/// The counters that stand in arrays of their own.
struct Counters {
    /// By backend id.
    closed: Arc<Memory>,
    /// By service id.
    refused: Memory,
}

/// Tells the hooks that the daemon answers: see `ebpf::maps::NODE`. During a take-over two daemons do.
#[derive(Debug)]
pub struct Heartbeat {
    memory: Arc<Memory>,
    last: u64,
    /// The latest own beat that came upon another daemon's.
    joined: Option<u64>,
}

impl Heartbeat {
    const fn new(memory: Arc<Memory>) -> Self {
        Self { memory, last: 0, joined: None }
    }

    /// The daemon answers now. To be called ten times a second.
    pub fn beat(&mut self) {
        let now = sys::monotonic_ns();
        let found = self.word().swap(now, Ordering::AcqRel);
        if found != self.last && is_valid(found, now) {
            self.joined = Some(now);
        }
        self.last = now;
    }

    /// The daemon does not answer any more, unless another one does. The word still tells when it did: the CNI plug-in
    /// wants to know.
    pub fn stop(self) {
        if self.joined.is_some_and(|joined| is_valid(joined, self.last)) {
            return;
        }
        let over = self.last.saturating_sub(maps::HEARTBEAT_VALID_NS + maps::TICK_NS);
        let _ = self.word().compare_exchange(self.last, over, Ordering::Release, Ordering::Relaxed);
    }

    fn word(&self) -> &AtomicU64 {
        // SAFETY: an aligned u64 of the mapping, which this handle keeps alive.
        unsafe { AtomicU64::from_ptr(self.memory.at::<u64>(0).as_ptr()) }
    }
}

/// Whether a beat still counts.
const fn is_valid(beat: u64, now: u64) -> bool {
    now.saturating_sub(beat) < maps::HEARTBEAT_VALID_NS
}

/// Counts the ends of connections that the hooks do not see end.
pub(crate) struct Closing {
    entries: u32,
    backends: Arc<Memory>,
    closed: Arc<Memory>,
}

impl Closing {
    /// A connection to a backend of a service has ended. Nothing is counted if the id is another's by now.
    pub(crate) fn count(&self, backend: u32, service: u32) {
        if backend < self.entries && backend_at(&self.backends, backend).service() == service {
            number(&self.closed, backend).fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Kernel {
    /// Takes the maps of the loaded object.
    ///
    /// # Errors
    ///
    /// The map that is not as it should be.
    pub(crate) fn open(ebpf: &mut Ebpf) -> Result<Self, DataplaneError> {
        Self::from_maps(&mut |name| ebpf.take_map(name))
    }

    /// Opens the maps that are pinned in a directory.
    ///
    /// # Errors
    ///
    /// The map that is not as it should be.
    pub(crate) fn pinned(folder: &Path) -> Result<Self, DataplaneError> {
        Self::from_maps(&mut |name| {
            let data = MapData::from_pin(folder.join(name)).ok()?;
            Some(match name {
                maps::FRONTENDS => Map::HashMap(data),
                maps::AFFINITY => Map::LruHashMap(data),
                maps::STATS => Map::PerCpuArray(data),
                _ => Map::Array(data),
            })
        })
    }

    fn from_maps(source: Source<'_>) -> Result<Self, DataplaneError> {
        let (services, services_len) = memory::<u64>(source, maps::SERVICES)?;
        let (lines, lines_len) = memory::<Line>(source, maps::SLOTS)?;
        let (backends, backends_len) = memory::<Backend>(source, maps::BACKENDS)?;
        let (node, _) = memory::<u64>(source, maps::NODE)?;
        let counters = Counters {
            closed: Arc::new(memory::<u64>(source, maps::CLOSED)?.0),
            refused: memory::<u64>(source, maps::REFUSED)?.0,
        };
        let (frontends, frontends_len) = take(source, maps::FRONTENDS)?;
        let (_, lru) = take(source, maps::AFFINITY)?;
        let (stats, _) = take(source, maps::STATS)?;
        let other = |name| move |error: MapError| DataplaneError::Other(name, error.to_string());
        Ok(Self {
            sizes: Sizes {
                frontends: frontends_len,
                services: services_len,
                lines: lines_len,
                backends: backends_len,
                lru,
            },
            frontends: HashMap::try_from(frontends).map_err(other(maps::FRONTENDS))?,
            stats: PerCpuArray::try_from(stats).map_err(other(maps::STATS))?,
            services,
            lines,
            backends: Arc::new(backends),
            counters,
            node: Arc::new(node),
        })
    }

    /// The handle of the heartbeat.
    pub fn heartbeat(&self) -> Heartbeat {
        Heartbeat::new(Arc::clone(&self.node))
    }

    /// The handle that counts ends of connections.
    pub(crate) fn closing(&self) -> Closing {
        Closing {
            entries: self.sizes.backends,
            backends: Arc::clone(&self.backends),
            closed: Arc::clone(&self.counters.closed),
        }
    }

    /// How often hooks did nothing or refused, by reason.
    pub fn reasons(&self) -> Vec<(Reason, u64)> {
        let count = |reason: Reason| {
            let values = self.stats.get(&(reason as u32), 0);
            (reason, values.map_or(0, |values| values.iter().sum()))
        };
        Reason::ALL.into_iter().map(count).collect()
    }

    /// The connections of a backend.
    pub(crate) fn count_of_backend(&self, id: u32) -> Count {
        let element = self.backends.at::<Backend>(id as usize).cast::<u8>();
        // SAFETY: inside the element.
        let opened = unsafe { element.add(OPENED_OFFSET) }.cast::<u64>();
        // SAFETY: an aligned u64 of the mapping.
        let opened = unsafe { AtomicU64::from_ptr(opened.as_ptr()) }.load(Ordering::Relaxed);
        let closed = number(&self.counters.closed, id).load(Ordering::Relaxed);
        Count { opened, closed, refused: 0 }
    }

    /// What a service port refused.
    pub(crate) fn count_of_service(&self, id: u32) -> Count {
        Count { refused: number(&self.counters.refused, id).load(Ordering::Relaxed), ..Count::default() }
    }

    /// An element of `frontends`.
    pub(crate) fn frontend(&self, key: &FrontendKey) -> Option<FrontendWord> {
        self.frontends.get(&key.to_bytes(), 0).ok().map(FrontendWord)
    }

    fn publish(&self, id: u32, word: ServiceWord) {
        let element = number(&self.services, id);
        if element.load(Ordering::Relaxed) == ServiceWord::UNPUBLISHED.0 {
            number(&self.counters.refused, id).store(0, Ordering::Relaxed);
        }
        // Release: whoever sees the word sees the block and the backends.
        element.store(word.0, Ordering::Release);
    }

    fn write_backend(&self, id: u32, backend: Backend) {
        number(&self.counters.closed, id).store(0, Ordering::Relaxed);
        let element = self.backends.at::<Backend>(id as usize);
        // SAFETY: an element of the mapping that no published block names.
        unsafe { element.write_volatile(backend) };
    }

    fn write_block(&self, base: u32, words: impl Iterator<Item = u32>) {
        let start = base as usize * LINE_WORDS as usize;
        for (index, word) in words.enumerate() {
            // SAFETY: an aligned u32 of the mapping.
            let element = unsafe { AtomicU32::from_ptr(self.lines.at::<u32>(start + index).as_ptr()) };
            element.store(word, Ordering::Relaxed);
        }
    }

    fn set_windows(&self, id: u32, windows: u8) {
        let element = self.backends.at::<Backend>(id as usize).cast::<u8>();
        // SAFETY: inside the element.
        let byte = unsafe { element.add(WINDOWS_OFFSET) };
        // SAFETY: a byte of the mapping.
        unsafe { AtomicU8::from_ptr(byte.as_ptr()) }.store(windows, Ordering::Release);
    }

    fn put_frontend(&mut self, key: &FrontendKey, word: FrontendWord) -> Result<(), Refused> {
        for _ in 0..MEMORY_TRIES {
            match self.frontends.insert(key.to_bytes(), word.0, BPF_ANY) {
                Ok(()) => return Ok(()),
                Err(error) => match os_error(error) {
                    error if error.raw_os_error() == Some(libc::ENOMEM) => std::thread::sleep(MEMORY_WAIT),
                    error if error.raw_os_error() == Some(libc::E2BIG) => break,
                    error => return Err(Refused::Failed(maps::FRONTENDS, error)),
                },
            }
        }
        Err(Refused::Full(maps::FRONTENDS))
    }
}

impl Dataplane for Kernel {
    fn apply(&mut self, op: &Op) -> Result<(), Refused> {
        match op {
            Op::WriteBackend(id, backend) => self.write_backend(*id, *backend),
            Op::SetWindows(id, windows) => self.set_windows(*id, *windows),
            Op::WriteBlock(base, header, backends) => {
                self.write_block(*base, header.words().into_iter().chain(backends.iter().copied()));
            }
            Op::Publish(id, word) => self.publish(*id, *word),
            Op::PutFrontend(key, word) => return self.put_frontend(key, *word),
            Op::RemoveFrontend(key) => match self.frontends.remove(&key.to_bytes()).map_err(os_error) {
                Err(error) if error.raw_os_error() != Some(libc::ENOENT) => {
                    return Err(Refused::Failed(maps::FRONTENDS, error));
                }
                Ok(()) | Err(_) => {}
            },
            Op::Barrier => sys::barrier().map_err(|error| Refused::Failed("membarrier", error))?,
        }
        Ok(())
    }
}

impl Contents for Kernel {
    fn sizes(&self) -> Sizes {
        self.sizes
    }

    fn frontends(&self) -> Vec<(FrontendKey, FrontendWord)> {
        let entries = self.frontends.iter().filter_map(Result::ok);
        entries.map(|(key, word)| (FrontendKey::from_bytes(&key), FrontendWord(word))).collect()
    }

    fn service(&self, id: u32) -> ServiceWord {
        ServiceWord(number(&self.services, id).load(Ordering::Acquire))
    }

    fn line(&self, index: u32) -> Line {
        // SAFETY: an element of the mapping; only this process writes it.
        unsafe { self.lines.at::<Line>(index as usize).read_volatile() }
    }

    fn backend(&self, id: u32) -> Backend {
        backend_at(&self.backends, id)
    }
}

const _: () = assert!(HEADER_WORDS < LINE_WORDS);

/// Where maps come from, by name.
type Source<'a> = &'a mut dyn FnMut(&'static str) -> Option<Map>;

fn take(source: Source<'_>, name: &'static str) -> Result<(Map, u32), DataplaneError> {
    let map = source(name).ok_or(DataplaneError::Absent(name))?;
    let (Map::Array(data) | Map::HashMap(data) | Map::LruHashMap(data) | Map::PerCpuArray(data)) = &map
    else {
        return Err(DataplaneError::Other(name, "it is of another type".into()));
    };
    let info = data.info().map_err(|error| DataplaneError::Other(name, error.to_string()))?;
    let entries = info.max_entries();
    Ok((map, entries))
}

/// Maps an array into memory: that, and how many elements it has.
pub(crate) fn memory<T>(source: Source<'_>, name: &'static str) -> Result<(Memory, u32), DataplaneError> {
    let (map, entries) = take(source, name)?;
    let Map::Array(data) = &map else {
        return Err(DataplaneError::Other(name, "it is no array".into()));
    };
    let memory = Memory::map(data.fd().as_fd(), entries as usize * size_of::<T>());
    Ok((memory.map_err(|error| DataplaneError::Memory(name, error))?, entries))
}

fn backend_at(memory: &Memory, id: u32) -> Backend {
    // SAFETY: an element of the mapping; the hooks change only its counter.
    unsafe { memory.at::<Backend>(id as usize).read_volatile() }
}

/// An element of an array of u64.
pub(crate) fn number(memory: &Memory, id: u32) -> &AtomicU64 {
    // SAFETY: an aligned u64 of the mapping, which lives as long as `memory`.
    unsafe { AtomicU64::from_ptr(memory.at::<u64>(id as usize).as_ptr()) }
}

/// What the kernel said.
pub(crate) fn os_error(error: MapError) -> io::Error {
    if let MapError::SyscallError(error) = error {
        return error.io_error;
    }
    if matches!(error, MapError::KeyNotFound) {
        return io::Error::from_raw_os_error(libc::ENOENT);
    }
    io::Error::other(error)
}

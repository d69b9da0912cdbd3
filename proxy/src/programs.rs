//! Loads the programs, makes or opens the pinned maps, and keeps the links. The only file with aya's programs.
//! Programs are loaded anew at each start; a pinned link is given the new one without a gap.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aya::programs::links::FdLink;
use aya::programs::{
    CgroupAttachMode, CgroupSock, CgroupSockAddr, Program, ProgramError as AyaError, ProgramFd,
};
use aya::{Ebpf, EbpfLoader};
use ebpf::maps;

use crate::layouts::{Layouts, outgrow};
use crate::proxy::Config;
use crate::sockets::{RecordMaps, SocketMaps};
use crate::sys;

static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/fairway-ebpf"));

/// The hooks, readers before writers: what connect and sendmsg write, the others can already read. With the
/// numbers of `enum bpf_attach_type`.
const HOOKS: [(&str, u32); 9] = [
    ("release", 34),
    ("getpeername4", 29),
    ("getpeername6", 30),
    ("recvmsg4", 19),
    ("recvmsg6", 20),
    ("sendmsg4", 14),
    ("sendmsg6", 15),
    ("connect4", 10),
    ("connect6", 11),
];

/// Why the programs are not in place.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The pins have no place.
    #[error("{path} cannot be made: {error}; mount it with `mount -t bpf bpf /sys/fs/bpf`, as root")]
    Pins {
        /// The folder.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The cgroup cannot be opened.
    #[error("the cgroup {path} cannot be opened: {error}; name a cgroup v2 directory with --cgroup")]
    Cgroup {
        /// The directory.
        path: PathBuf,
        /// What the kernel said.
        error: io::Error,
    },
    /// The kernel does not take the programs or the maps.
    #[error("the kernel does not take the programs: {0}; it needs CAP_BPF and CAP_NET_ADMIN, and Linux 6.1")]
    Load(String),
    /// A newer version was here.
    #[error(
        "the maps in {path} are those of a newer fairway: run that version again, or start anew with `fairway cleanup`"
    )]
    Newer {
        /// The directory of the newer layout.
        path: PathBuf,
    },
    /// The packet programs cannot be attached to a link.
    #[error("the packet programs cannot be attached to {name}: {error}; choose other links with --uplink")]
    Uplink {
        /// The link.
        name: String,
        /// What the kernel said.
        error: String,
    },
    /// One hook cannot be attached.
    #[error("{hook} cannot be attached to {path}: {error}; is it a cgroup v2 directory?")]
    Attach {
        /// The hook.
        hook: &'static str,
        /// The cgroup.
        path: PathBuf,
        /// What the kernel said.
        error: String,
    },
}

/// The loaded programs and where they are attached.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
    cgroup: PathBuf,
    bpf_dir: PathBuf,
    layouts: Layouts,
    /// What was pinned before this start; None once what it pins is to stay.
    before: Option<HashSet<PathBuf>>,
}

impl Programs {
    /// Loads the programs for a node whose network namespace has the cookie `node_netns`, with the maps pinned
    /// under `bpf_dir`; sizes count only for maps that are not there yet. Attaches nothing.
    ///
    /// # Errors
    ///
    /// One sentence that says what to do.
    pub fn load(config: &Config, node_netns: u64) -> Result<Self, ProgramError> {
        let Config { cgroup, bpf_dir, sizes, .. } = config;
        outgrow(bpf_dir, config.layout, sizes)
            .map_err(|error| ProgramError::Pins { path: bpf_dir.clone(), error })?;
        let layouts = Layouts::find(bpf_dir, config.layout)
            .map_err(|newer| ProgramError::Newer { path: bpf_dir.join(format!("v{newer}")) })?;
        let folder = &layouts.own;
        let before = pins(bpf_dir, folder);
        let unpinned = |error| ProgramError::Pins { path: folder.clone(), error };
        std::fs::create_dir_all(folder).map_err(unpinned)?;
        layouts.share().map_err(unpinned)?;
        let ebpf = EbpfLoader::new()
            .default_map_pin_directory(folder)
            .map_pin_path(maps::RECORDS, bpf_dir.join(maps::RECORDS))
            .map_pin_path(maps::REVERSE, bpf_dir.join(maps::REVERSE))
            .map_max_entries(maps::FRONTENDS, sizes.frontends)
            .map_max_entries(maps::SERVICES, sizes.services)
            .map_max_entries(maps::SLOTS, sizes.lines)
            .map_max_entries(maps::BACKENDS, sizes.backends)
            .map_max_entries(maps::CLOSED, sizes.backends)
            .map_max_entries(maps::REFUSED, sizes.services)
            .map_max_entries(maps::AFFINITY, sizes.lru)
            .map_max_entries(maps::CHOICE, sizes.lru)
            .map_max_entries(maps::REVERSE_UDP, sizes.lru)
            .override_global(maps::NODE_NETNS, &node_netns, true)
            .override_global(maps::REDIRECT, &u8::from(config.redirect), true)
            .load(OBJECT)
            .map_err(|error| {
                remove_pins(bpf_dir, folder, &before);
                ProgramError::Load(sentence(&error))
            })?;
        let (cgroup, bpf_dir) = (cgroup.clone(), bpf_dir.clone());
        let mut programs = Self { ebpf, cgroup, bpf_dir, layouts, before: Some(before) };
        for (hook, _) in HOOKS {
            programs.hook(hook)?.load().map_err(|error| ProgramError::Load(sentence(&error)))?;
        }
        Ok(programs)
    }

    /// The layouts that are there.
    pub(crate) const fn layouts(&mut self) -> &mut Layouts {
        &mut self.layouts
    }

    /// Whether the programs of an older layout serve until the maps of this one are filled.
    pub(crate) const fn is_upgrade(&self) -> bool {
        self.layouts.older.is_some()
    }

    /// What this start has pinned outlives the process.
    pub(crate) fn keep(&mut self) {
        self.before = None;
    }

    /// The maps, for the dataplane to take.
    pub(crate) const fn maps(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// The pinned maps that speak of sockets.
    pub(crate) fn socket_maps(&self) -> io::Result<SocketMaps> {
        let absent = || io::Error::from(io::ErrorKind::NotFound);
        let open = |path: PathBuf| sys::open_pinned(&path)?.ok_or_else(absent);
        let own = |name: &str| open(self.layouts.own.join(name));
        Ok(SocketMaps {
            records: RecordMaps::new(
                open(self.bpf_dir.join(maps::RECORDS))?,
                open(self.bpf_dir.join(maps::REVERSE))?,
            ),
            found: own(maps::FOUND)?,
            host_ports: own(maps::HOSTPORTS)?,
            pods: own(maps::PODS)?,
            ranges: own(maps::RANGES)?,
        })
    }

    /// Puts the programs to work: pinned links get them, missing links are made. If one hook fails, those made
    /// here are taken back.
    ///
    /// # Errors
    ///
    /// The hook and what the kernel said.
    pub fn attach(&mut self) -> Result<(), ProgramError> {
        let cgroup = std::fs::File::open(&self.cgroup)
            .map_err(|error| ProgramError::Cgroup { path: self.cgroup.clone(), error })?;
        let id = cgroup.metadata().map_or(0, |metadata| metadata.ino());
        let mut made = Vec::new();
        for (hook, _) in HOOKS {
            let result = self.switch(hook, id).and_then(|switched| match switched {
                true => Ok(()),
                false => self.make(hook, &cgroup).map(|pin| made.push(pin)),
            });
            if let Err(error) = result {
                // Unpinning drops the last reference, which detaches.
                made.iter().for_each(|pin| drop(sys::remove_pin(pin)));
                return Err(ProgramError::Attach { hook, path: self.cgroup.clone(), error });
            }
        }
        Ok(())
    }

    /// The hooks that do not run for sockets of the cgroup, as the kernel says.
    ///
    /// # Errors
    ///
    /// What the kernel said.
    pub fn missing(&self) -> io::Result<Vec<&'static str>> {
        let cgroup = std::fs::File::open(&self.cgroup)?;
        let mut missing = Vec::new();
        for (hook, attach_type) in HOOKS {
            let runs = match sys::open_pinned(&self.pin(hook))? {
                Some(link) => {
                    let (_, program) = sys::link_cgroup(link.as_fd())?;
                    sys::effective_programs(cgroup.as_fd(), attach_type)?.contains(&program)
                }
                None => false,
            };
            if !runs {
                missing.push(hook);
            }
        }
        Ok(missing)
    }

    /// Gives a pinned link the new program. False if there is none that still leads to this cgroup.
    fn switch(&mut self, hook: &'static str, cgroup: u64) -> Result<bool, String> {
        let pin = self.pin(hook);
        if let Some(older) = &self.layouts.older {
            // Absent: an older layout need not have every hook, or it has been moved before.
            let _ = std::fs::rename(older.join(file_of(hook)), &pin);
        }
        let Some(link) = sys::open_pinned(&pin).map_err(|error| error.to_string())? else { return Ok(false) };
        let here = sys::link_cgroup(link.as_fd()).is_ok_and(|(found, _)| found == cgroup);
        let mut program = self.hook(hook).map_err(|error| error.to_string())?;
        let fd = program.fd().map_err(|error| sentence(&error))?;
        if here && sys::update_link(link.as_fd(), fd.as_fd()).is_ok() {
            return Ok(true);
        }
        // ENOLINK: its cgroup is gone. Or it is another cgroup's. Either way it is of no use here.
        std::fs::remove_file(&pin).map_err(|error| error.to_string())?;
        Ok(false)
    }

    fn make(&mut self, hook: &'static str, cgroup: &std::fs::File) -> Result<PathBuf, String> {
        let pin = self.pin(hook);
        let link = self.hook(hook).map_err(|error| error.to_string())?.attach(cgroup)?;
        link.pin(&pin).map_err(|error| sentence(&error))?;
        Ok(pin)
    }

    fn hook(&mut self, hook: &'static str) -> Result<Hook<'_>, ProgramError> {
        match self.ebpf.program_mut(hook) {
            Some(Program::CgroupSockAddr(program)) => Ok(Hook::Address(program)),
            Some(Program::CgroupSock(program)) => Ok(Hook::Socket(program)),
            Some(_) | None => Err(ProgramError::Load(format!("the object has no {hook}"))),
        }
    }

    fn pin(&self, hook: &str) -> PathBuf {
        self.layouts.own.join(file_of(hook))
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            remove_pins(&self.bpf_dir, &self.layouts.own, before);
        }
    }
}

fn file_of(hook: &str) -> String {
    format!("link_{hook}")
}

/// Everything in both directories.
fn pins(bpf_dir: &Path, folder: &Path) -> HashSet<PathBuf> {
    let entries = [bpf_dir, folder].map(|folder| std::fs::read_dir(folder).into_iter().flatten());
    entries.into_iter().flatten().filter_map(Result::ok).map(|entry| entry.path()).collect()
}

/// A start that failed leaves no more than was there before it: what is pinned, and empty directories.
fn remove_pins(bpf_dir: &Path, folder: &Path, before: &HashSet<PathBuf>) {
    for pin in pins(bpf_dir, folder).difference(before) {
        let _ = sys::remove_pin(pin);
    }
    for folder in [folder, bpf_dir] {
        // One that is in use is not empty.
        let _ = std::fs::remove_dir(folder);
    }
}

/// The two types of programs that run for sockets of a cgroup.
enum Hook<'a> {
    Address(&'a mut CgroupSockAddr),
    Socket(&'a mut CgroupSock),
}

impl Hook<'_> {
    fn load(&mut self) -> Result<(), AyaError> {
        match self {
            Self::Address(program) => program.load(),
            Self::Socket(program) => program.load(),
        }
    }

    fn fd(&mut self) -> Result<&ProgramFd, AyaError> {
        match self {
            Self::Address(program) => program.fd(),
            Self::Socket(program) => program.fd(),
        }
    }

    /// Links always allow others beside them; the flag for that is for the old interface only.
    fn attach(&mut self, cgroup: &std::fs::File) -> Result<FdLink, String> {
        let mode = CgroupAttachMode::Single;
        let link = match self {
            Self::Address(program) => {
                let link = program.attach(cgroup, mode).and_then(|id| program.take_link(id));
                FdLink::try_from(link.map_err(|error| sentence(&error))?)
            }
            Self::Socket(program) => {
                let link = program.attach(cgroup, mode).and_then(|id| program.take_link(id));
                FdLink::try_from(link.map_err(|error| sentence(&error))?)
            }
        };
        link.map_err(|error| sentence(&error))
    }
}

/// Detaches and unpins everything below `bpf_dir`.
///
/// # Errors
///
/// The first thing that could not be removed.
pub fn cleanup(bpf_dir: &Path) -> io::Result<()> {
    crate::packets::detach(bpf_dir)?;
    remove_below(bpf_dir)
}

fn remove_below(folder: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_below(&entry.path())?;
        } else {
            sys::remove_pin(&entry.path())?;
        }
    }
    std::fs::remove_dir(folder)
}

/// An error with its causes, in one line: aya says the last cause only when asked.
pub(crate) fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

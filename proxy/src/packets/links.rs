//! The programs at the links: attached by tcx, or as clsact filters where the kernel has no tcx (before 6.6).
//! Either outlives the process; the next one gives it the new program without a gap.
//! Programs of others stay where they are.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::AsFd;
use std::path::{self, PathBuf};

use aya::Ebpf;
use aya::programs::tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle};
use aya::programs::{SchedClassifier, TcAttachType};

use super::{PROGRAMS, Uplink, program, sys};
use crate::programs::{ProgramError, sentence};
use crate::sys::{open_pinned, pin, remove_pin, update_link};

/// BPF_TCX_INGRESS and BPF_TCX_EGRESS, in the order of [`PROGRAMS`].
const ATTACH_TYPES: [u32; 2] = [46, 47];
const CLSACT: [TcAttachType; 2] = [TcAttachType::Ingress, TcAttachType::Egress];
/// Where our filters are among those of a link: at a place that nobody else is likely to take, behind those that
/// were given one by hand and before those that the kernel numbers.
const PRIORITY: u16 = 46;
const HANDLE: TcHandle = TcHandle::new(0, 46);
/// What the pins of these links begin with.
const PREFIX: &str = "link_packet_";

/// How programs are attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Links of tcx.
    Tcx,
    /// Filters of a clsact qdisc.
    Clsact,
}

/// Where the programs are.
#[derive(Debug)]
pub(super) struct Links {
    folder: PathBuf,
    path: Path,
    /// The links that have our filters, where there is no tcx; None before the first time, when an earlier process
    /// may have left some.
    filtered: Option<BTreeSet<String>>,
}

impl Path {
    /// What this kernel offers.
    pub fn probe() -> Self {
        if sys::has_tcx(ATTACH_TYPES[0]) { Self::Tcx } else { Self::Clsact }
    }

    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcx => "tcx",
            Self::Clsact => "clsact",
        }
    }
}

impl Links {
    pub(super) const fn new(folder: PathBuf, path: Path) -> Self {
        Self { folder, path, filtered: None }
    }

    pub(super) const fn path(&self) -> Path {
        self.path
    }

    /// Attaches to these links, and detaches from all others.
    pub(super) fn attach(&mut self, ebpf: &mut Ebpf, uplinks: &[Uplink]) -> Result<(), ProgramError> {
        for uplink in uplinks {
            for (side, name) in PROGRAMS.into_iter().enumerate() {
                let done = match self.path {
                    Path::Tcx => self.attach_tcx(program(ebpf, name)?, uplink, side),
                    Path::Clsact => Self::attach_clsact(program(ebpf, name)?, uplink, side),
                };
                done.map_err(|error| ProgramError::Uplink { name: uplink.name.clone(), error })?;
            }
        }
        let names: BTreeSet<String> = uplinks.iter().map(|uplink| uplink.name.clone()).collect();
        if self.path == Path::Clsact && self.filtered.as_ref() != Some(&names) {
            remove_filters(&names);
            self.filtered = Some(names);
        }
        let indexes: Vec<u32> = uplinks.iter().map(|uplink| uplink.index).collect();
        unpin(&self.folder, &indexes).map_err(|error| ProgramError::Pins { path: self.folder.clone(), error })
    }

    fn attach_tcx(&self, program: &SchedClassifier, uplink: &Uplink, side: usize) -> Result<(), String> {
        let fd = program.fd().map_err(|error| sentence(&error))?;
        let path = self.folder.join(format!("{PREFIX}{}_{}", uplink.index, side));
        if let Some(link) = open_pinned(&path).map_err(|error| error.to_string())? {
            // A link whose interface is gone leads nowhere, and its index may be another's by now.
            let here = sys::interface(link.as_fd()).is_ok_and(|index| index == uplink.index);
            if here && update_link(link.as_fd(), fd.as_fd()).is_ok() {
                return Ok(());
            }
            std::fs::remove_file(&path).map_err(|error| error.to_string())?;
        }
        let link =
            sys::attach(fd.as_fd(), uplink.index, ATTACH_TYPES[side]).map_err(|error| error.to_string())?;
        pin(link.as_fd(), &path).map_err(|error| error.to_string())
    }

    /// Filters have no pins: they stay until somebody removes them. At a place of their own the next process finds
    /// them, and replaces them without a gap.
    fn attach_clsact(program: &mut SchedClassifier, uplink: &Uplink, side: usize) -> Result<(), String> {
        // It may be there already; where it cannot be made, the program cannot be attached.
        let _ = tc::qdisc_add_clsact(&uplink.name);
        let there = SchedClassifierLink::attached(&uplink.name, CLSACT[side], PRIORITY, HANDLE, None);
        let there = there.map_err(|error| error.to_string())?;
        let id = program.attach_to_link(there).or_else(|_| {
            let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
            program.attach_with_options(&uplink.name, CLSACT[side], TcAttachOptions::Netlink(options))
        });
        let id = id.map_err(|error| sentence(&error))?;
        // The filter outlives the process: the handle, which would remove it, is let go.
        let link = program.take_link(id).map_err(|error| sentence(&error))?;
        std::mem::forget(link);
        Ok(())
    }
}

/// Removes our filters from all links but these. A link that has none, or goes meanwhile, is well.
pub(super) fn remove_filters(keep: &BTreeSet<String>) {
    for link in sys::links().iter().filter(|link| !keep.contains(*link)) {
        for (side, name) in PROGRAMS.into_iter().enumerate() {
            let _ = tc::qdisc_detach_program(link, CLSACT[side], name);
        }
    }
}

/// Unpins the links at all interfaces but these, which detaches them.
pub(super) fn unpin(folder: &path::Path, indexes: &[u32]) -> io::Result<()> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        let index = rest.split_once('_').and_then(|(index, _)| index.parse().ok());
        if !index.is_some_and(|index| indexes.contains(&index)) {
            remove_pin(&entry.path())?;
        }
    }
    Ok(())
}

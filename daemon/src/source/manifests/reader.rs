//! Reads the files of the folder and computes what they change. Everything here may take long (10,000 Services
//! are seconds of parsing), so the shell in `watch.rs` calls it away from the runtime's own threads.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use model::Event;
use sandbox::Record;

use super::Config;
use super::desired::Desired;
use super::folder::{Folder, is_manifest};
use crate::source::report::{Problem, Reason};

/// What has been read so far, and what was made of it.
#[derive(Debug)]
pub(super) struct Reader {
    config: Config,
    folder: Folder,
    now: Desired,
    /// The folder is missing, or cannot be read.
    fault: Option<Problem>,
}

/// What is to be read again.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// Files of the folder.
    pub(super) files: BTreeSet<String>,
    /// All of the folder.
    pub(super) folder: bool,
    /// All records.
    pub(super) records: bool,
}

impl Reader {
    /// Nothing is read yet.
    pub(super) fn new(config: Config) -> Self {
        Self { config, folder: Folder::default(), now: Desired::default(), fault: None }
    }

    /// The first scan: the lists of all kinds.
    pub(super) fn start(&mut self, records: &[Record]) -> io::Result<Vec<Event>> {
        read_folder(&self.config.folder, &mut self.folder)?;
        self.now = self.desired(records);
        Ok(self.now.lists())
    }

    /// Reads what `work` says, and returns what changed.
    pub(super) fn step(&mut self, work: &Work, records: &[Record]) -> Vec<Event> {
        if work.folder {
            self.scan_folder();
        } else {
            for file in &work.files {
                read_file(&self.config.folder, file, &mut self.folder);
            }
        }
        let desired = self.desired(records);
        let changes = desired.changes(&self.now);
        self.now = desired;
        changes
    }

    /// What is wrong now.
    pub(super) fn problems(&self) -> Vec<Problem> {
        self.fault.iter().chain(&self.now.problems).cloned().collect()
    }

    /// A folder that is gone, perhaps only until its successor is moved into place, changes nothing but is
    /// reported.
    fn scan_folder(&mut self) {
        let folder = &self.config.folder;
        self.fault = read_folder(folder, &mut self.folder).err().map(|error| {
            let text = format!("{}: {error}; what it said last stays", folder.display());
            Problem::new(Reason::Unreadable, text)
        });
    }

    fn desired(&self, records: &[Record]) -> Desired {
        Desired::new(&self.folder, records, &self.config.cluster, &self.now)
    }
}

/// Reads every manifest of the folder; what the folder lacks is gone.
pub(super) fn read_folder(folder: &Path, state: &mut Folder) -> io::Result<()> {
    let mut present = BTreeSet::new();
    for entry in std::fs::read_dir(folder)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if is_manifest(&name) && read_file(folder, &name, state) {
            present.insert(name);
        }
    }
    state.retain(&present);
    Ok(())
}

/// Reads one file, and says whether it is there. A folder whose name looks like a manifest is not.
fn read_file(folder: &Path, name: &str, state: &mut Folder) -> bool {
    let path = folder.join(name);
    match std::fs::read(&path) {
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => state.put(name, &text),
            Err(_) => state.put_unreadable(name, "is not text in UTF-8"),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound || path.is_dir() => {
            state.remove(name);
            return false;
        }
        Err(error) => state.put_unreadable(name, &error.to_string()),
    }
    true
}

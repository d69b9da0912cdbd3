//! The shell of the manifest source: waits for changes of the folder and of the sandboxes, reads what
//! changed, and sends the difference.
//!
//! A file is read when its writer closes it or moves it into place, so that a file that is being written is
//! not looked at. Whatever else happens (the folder replaced, events lost) leads to a full scan, which is
//! the same path as the start. Called by `source::run`.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use futures::{FutureExt, StreamExt};
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use model::Event;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::desired::Desired;
use super::folder::{Folder, is_manifest};
use super::records::Records;
use super::{Config, read_file, read_folder};
use crate::source::Error;
use crate::source::report::{Part, Problem, Reason, Reports};

/// Room for about 250 events in one read.
const BUFFER: usize = 16 << 10;
/// What a volume of a ConfigMap swaps to change all of its files at once.
const VOLUME_LINK: &str = "..data";

/// Sends the folder as lists, then every change, until cancelled or nobody listens.
pub(crate) async fn run(
    config: Config,
    events: Sender<Event>,
    reports: Reports,
    cancel: CancellationToken,
) -> Result<(), Error> {
    let mut shell = Shell::new(config)?;
    let mut pending = shell.start()?;
    reports.heard();
    loop {
        reports.replace(Part::Manifests, shell.problems());
        for event in pending {
            let sent = tokio::select! {
                () = cancel.cancelled() => return Ok(()),
                sent = events.send(event) => sent,
            };
            if sent.is_err() {
                return Ok(());
            }
        }
        pending = tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            changes = shell.changes() => changes?,
        };
    }
}

/// What an inotify watch stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watched {
    /// The folder of manifests.
    Folder,
    /// The nearest directory above it that exists: there the folder is replaced or made.
    Above,
    /// The directory of all sandboxes, or that of one.
    Pods,
}

struct Shell {
    config: Config,
    inotify: EventStream<Vec<u8>>,
    watches: HashMap<WatchDescriptor, Watched>,
    /// The name below the directory above that leads to the folder.
    awaited: OsString,
    folder: Folder,
    records: Records,
    now: Desired,
    /// Faults of the surroundings: the folder is missing, a record cannot be read.
    folder_fault: Option<Problem>,
    record_faults: Vec<Problem>,
}

/// What a batch of inotify events asks for.
#[derive(Debug, Default)]
struct Work {
    files: BTreeSet<String>,
    folder: bool,
    records: bool,
}

impl Shell {
    fn new(mut config: Config) -> Result<Self, Error> {
        config.folder = std::path::absolute(&config.folder).unwrap_or(config.folder);
        let inotify = Inotify::init().and_then(|inotify| inotify.into_event_stream(vec![0; BUFFER]));
        Ok(Self {
            records: Records::new(&config.run_dir),
            config,
            inotify: inotify.map_err(Error::Inotify)?,
            watches: HashMap::new(),
            awaited: OsString::new(),
            folder: Folder::default(),
            now: Desired::default(),
            folder_fault: None,
            record_faults: Vec::new(),
        })
    }

    /// The first scan. A folder that is missing at the start is an error, later it is a problem.
    fn start(&mut self) -> Result<Vec<Event>, Error> {
        self.watch_folder()?;
        let folder = self.config.folder.clone();
        read_folder(&folder, &mut self.folder).map_err(|source| Error::Folder { folder, source })?;
        self.scan_records()?;
        self.now = self.desired();
        Ok(self.now.lists())
    }

    /// Waits for something to happen, and says what it changed.
    async fn changes(&mut self) -> Result<Vec<Event>, Error> {
        let work = tokio::select! {
            event = self.inotify.next() => self.gather(event).await?,
            () = self.records.death() => Work { records: true, ..Work::default() },
        };
        if work.folder {
            self.scan_folder()?;
        } else {
            for file in &work.files {
                read_file(&self.config.folder, file, &mut self.folder);
            }
        }
        if work.records {
            self.scan_records()?;
        }
        let desired = self.desired();
        let changes = desired.changes(&self.now);
        self.now = desired;
        Ok(changes)
    }

    fn desired(&self) -> Desired {
        Desired::new(&self.folder, &self.records.list(), &self.config.cluster, &self.now)
    }

    fn problems(&self) -> Vec<Problem> {
        let own = self.folder_fault.iter().chain(&self.record_faults).cloned();
        own.chain(self.now.problems.iter().cloned()).collect()
    }

    /// Everything that has happened so far, as one piece of work.
    async fn gather(&mut self, first: Option<std::io::Result<EventOwned>>) -> Result<Work, Error> {
        let mut work = Work::default();
        let mut next = first;
        loop {
            match next {
                Some(Ok(event)) => self.note(&event, &mut work),
                Some(Err(error)) => return Err(Error::Inotify(error)),
                None => return Err(Error::Inotify(ErrorKind::UnexpectedEof.into())),
            }
            match self.inotify.next().now_or_never() {
                Some(more) => next = more,
                None => return Ok(work),
            }
        }
    }

    fn note(&mut self, event: &EventOwned, work: &mut Work) {
        if event.mask.contains(EventMask::Q_OVERFLOW) {
            work.folder = true;
            work.records = true;
            return;
        }
        let Some(watched) = self.watches.get(&event.wd).copied() else { return };
        if event.mask.contains(EventMask::IGNORED) {
            self.watches.remove(&event.wd);
        }
        let name = event.name.as_ref().map(|name| name.to_string_lossy().into_owned());
        match (watched, name) {
            (Watched::Pods, _) => work.records = true,
            (Watched::Above, Some(_)) => work.folder |= event.name.as_ref() == Some(&self.awaited),
            (Watched::Folder, Some(name)) if is_manifest(&name) => {
                let opened = event.mask.contains(EventMask::CREATE);
                if !opened || self.is_complete_at_once(&name) {
                    work.files.insert(name);
                }
            }
            (Watched::Folder, Some(name)) => work.folder |= name == VOLUME_LINK,
            // The directory itself was removed, moved or unmounted.
            (Watched::Folder | Watched::Above, None) => work.folder = true,
        }
    }

    /// A link has its content as soon as it is made; nobody will close it.
    fn is_complete_at_once(&self, name: &str) -> bool {
        let metadata = std::fs::symlink_metadata(self.config.folder.join(name));
        metadata.is_ok_and(|metadata| metadata.is_symlink() || metadata.nlink() > 1)
    }

    /// Reads the whole folder. One that is gone, perhaps only until its successor is moved into place,
    /// changes nothing but is reported.
    fn scan_folder(&mut self) -> Result<(), Error> {
        self.watch_folder()?;
        let folder = &self.config.folder;
        self.folder_fault = read_folder(folder, &mut self.folder).err().map(|error| {
            let text = format!("{}: {error}; what it said last stays", folder.display());
            Problem::new(Reason::Unreadable, text)
        });
        Ok(())
    }

    /// Watches the folder, as far as it exists, and the way to it.
    fn watch_folder(&mut self) -> Result<(), Error> {
        let before = std::mem::take(&mut self.watches);
        let (old, kept): (HashMap<_, _>, HashMap<_, _>) =
            before.into_iter().partition(|(_, watched)| *watched != Watched::Pods);
        self.watches = kept;
        let folder = self.config.folder.clone();
        let mut way = folder.as_path();
        while let (Some(above), Some(name)) = (way.parent(), way.file_name()) {
            if self.watch(above, above_mask(), Watched::Above)? {
                self.awaited = name.to_owned();
                // It may have been made between the look for it and the watch: then start again below.
                if way == folder || !way.exists() {
                    break;
                }
                way = &folder;
            } else {
                way = above;
            }
        }
        self.watch(&folder, folder_mask(), Watched::Folder)?;
        for descriptor in old.into_keys().filter(|descriptor| !self.watches.contains_key(descriptor)) {
            // It fails where the kernel gave the watch up with its directory.
            let _gone = self.inotify.watches().remove(descriptor);
        }
        Ok(())
    }

    fn scan_records(&mut self) -> Result<(), Error> {
        let pods = self.records.folder().to_owned();
        // It is made here so that it can be watched before the first sandbox runs.
        self.record_faults = std::fs::create_dir_all(&pods)
            .err()
            .map(|error| Problem::new(Reason::Unreadable, format!("{}: {error}", pods.display())))
            .into_iter()
            .collect();
        self.watch(&pods, pods_mask(), Watched::Pods)?;
        for directory in self.records.directories() {
            self.watch(&directory, pods_mask(), Watched::Pods)?;
        }
        let faults = self.records.scan();
        self.record_faults.extend(faults);
        Ok(())
    }

    /// Watches a directory, and says whether it is there.
    fn watch(&mut self, path: &Path, mask: WatchMask, watched: Watched) -> Result<bool, Error> {
        match self.inotify.watches().add(path, mask) {
            Ok(descriptor) => {
                self.watches.insert(descriptor, watched);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
            Err(source) => Err(Error::Watch { path: path.to_owned(), source }),
        }
    }
}

fn folder_mask() -> WatchMask {
    WatchMask::CLOSE_WRITE
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVED_FROM
        | WatchMask::MOVED_TO
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR
}

fn above_mask() -> WatchMask {
    WatchMask::CREATE
        | WatchMask::MOVED_TO
        | WatchMask::DELETE_SELF
        | WatchMask::MOVE_SELF
        | WatchMask::ONLYDIR
}

fn pods_mask() -> WatchMask {
    WatchMask::CLOSE_WRITE
        | WatchMask::CREATE
        | WatchMask::DELETE
        | WatchMask::MOVED_FROM
        | WatchMask::MOVED_TO
        | WatchMask::DELETE_SELF
        | WatchMask::ONLYDIR
}

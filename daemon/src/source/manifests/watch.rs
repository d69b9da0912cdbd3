//! The shell of the manifest source: waits for changes of the folder and of the sandboxes, reads what
//! changed, and sends the difference.
//!
//! A file is read when its writer closes it or moves it into place, so that a file that is being written is
//! not looked at. Whatever else happens (the folder replaced, events lost) leads to a full scan, which is
//! the same path as the start. Called by `source::run`.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use futures::{FutureExt, StreamExt};
use inotify::{EventMask, EventOwned, EventStream, Inotify, WatchDescriptor, WatchMask};
use model::Event;
use tokio::sync::mpsc::Sender;
use tokio_util::sync::CancellationToken;

use super::Config;
use super::folder::is_manifest;
use super::reader::{Reader, Work};
use super::records::Records;
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
    let mut pending = shell.start().await?;
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
    folder: PathBuf,
    inotify: EventStream<Vec<u8>>,
    watches: HashMap<WatchDescriptor, Watched>,
    /// The name below the directory above that leads to the folder.
    awaited: OsString,
    reader: Arc<Mutex<Reader>>,
    records: Records,
    /// Records that cannot be read.
    faults: Vec<Problem>,
}

impl Shell {
    fn new(mut config: Config) -> Result<Self, Error> {
        config.folder = std::path::absolute(&config.folder).unwrap_or(config.folder);
        let inotify = Inotify::init().and_then(|inotify| inotify.into_event_stream(vec![0; BUFFER]));
        Ok(Self {
            folder: config.folder.clone(),
            inotify: inotify.map_err(Error::Inotify)?,
            watches: HashMap::new(),
            awaited: OsString::new(),
            records: Records::new(&config.run_dir),
            reader: Arc::new(Mutex::new(Reader::new(config))),
            faults: Vec::new(),
        })
    }

    /// The first scan. A folder that is missing at the start is an error, later it is a problem.
    async fn start(&mut self) -> Result<Vec<Event>, Error> {
        self.watch_folder()?;
        self.scan_records()?;
        let records = self.records.list();
        let lists = self.read(move |reader| reader.start(&records)).await;
        lists.map_err(|source| Error::Folder { folder: self.folder.clone(), source })
    }

    /// Waits for something to happen, and says what it changed.
    async fn changes(&mut self) -> Result<Vec<Event>, Error> {
        let work = tokio::select! {
            event = self.inotify.next() => self.gather(event)?,
            () = self.records.death() => Work { records: true, ..Work::default() },
        };
        // Watched first and read then, so that nothing falls between the two.
        if work.folder {
            self.watch_folder()?;
        }
        if work.records {
            self.scan_records()?;
        }
        let records = self.records.list();
        Ok(self.read(move |reader| reader.step(&work, &records)).await)
    }

    /// Does what may take long on a thread of its own.
    async fn read<T: Send + 'static>(&self, work: impl FnOnce(&mut Reader) -> T + Send + 'static) -> T {
        let reader = Arc::clone(&self.reader);
        let task = tokio::task::spawn_blocking(move || {
            work(&mut reader.lock().unwrap_or_else(PoisonError::into_inner))
        });
        task.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    fn problems(&self) -> Vec<Problem> {
        let reader = self.reader.lock().unwrap_or_else(PoisonError::into_inner);
        self.faults.iter().cloned().chain(reader.problems()).collect()
    }

    /// Everything that has happened so far, as one piece of work.
    fn gather(&mut self, first: Option<std::io::Result<EventOwned>>) -> Result<Work, Error> {
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
        let metadata = std::fs::symlink_metadata(self.folder.join(name));
        metadata.is_ok_and(|metadata| metadata.is_symlink() || metadata.nlink() > 1)
    }

    /// Watches the folder, as far as it exists, and the way to it.
    fn watch_folder(&mut self) -> Result<(), Error> {
        let before = std::mem::take(&mut self.watches);
        let (old, kept): (HashMap<_, _>, HashMap<_, _>) =
            before.into_iter().partition(|(_, watched)| *watched != Watched::Pods);
        self.watches = kept;
        let folder = self.folder.clone();
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
        self.faults = std::fs::create_dir_all(&pods)
            .err()
            .map(|error| Problem::new(Reason::Unreadable, format!("{}: {error}", pods.display())))
            .into_iter()
            .collect();
        self.watch(&pods, pods_mask(), Watched::Pods)?;
        for directory in self.records.directories() {
            self.watch(&directory, pods_mask(), Watched::Pods)?;
        }
        let faults = self.records.scan();
        self.faults.extend(faults);
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

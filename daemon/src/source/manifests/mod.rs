//! The cluster from a folder of manifests: the objects people write, and what the API server and its
//! controllers would do with them, and nothing more.
//!
//! The core is pure: files -> documents (`text`, `folder`), documents and running sandboxes -> the objects
//! of a cluster (`desired`, with `allocate`, `controller`, `defaults`), two such states -> events. The shell
//! around it (`watch`, `records`) reads files and waits for changes. It must never know the API server.

mod allocate;
mod controller;
mod defaults;
mod desired;
mod folder;
mod kinds;
mod reader;
mod records;
mod text;
mod watch;
mod written;

use std::path::{Path, PathBuf};

use model::Event;

use self::desired::Desired;
use self::folder::Folder;

use super::report::Problem;

pub use self::desired::Cluster;
pub(super) use self::watch::run;

/// What to read, and what to complete it with.
#[derive(Clone, Debug)]
pub struct Config {
    /// The folder of manifests.
    pub folder: PathBuf,
    /// The run directory, which has the records of the sandboxes under `pods/`.
    pub run_dir: PathBuf,
    /// What the objects are completed with.
    pub cluster: Cluster,
}

/// The folder as it is now, as complete lists, and what is wrong in it. Touches nothing, watches nothing,
/// knows no sandboxes: for `fairway plan`.
pub fn load(folder: &Path, cluster: &Cluster) -> Result<(Vec<Event>, Vec<Problem>), super::Error> {
    let mut state = Folder::default();
    reader::read_folder(folder, &mut state)
        .map_err(|source| super::Error::Folder { folder: folder.to_owned(), source })?;
    Ok(lists(&state, &[], cluster))
}

/// The same from texts: pairs of file name and content, and the running pods.
pub fn load_texts(
    files: &[(&str, &str)],
    records: &[sandbox::Record],
    cluster: &Cluster,
) -> (Vec<Event>, Vec<Problem>) {
    let mut state = Folder::default();
    for (file, text) in files {
        state.put(file, text);
    }
    lists(&state, records, cluster)
}

fn lists(folder: &Folder, records: &[sandbox::Record], cluster: &Cluster) -> (Vec<Event>, Vec<Problem>) {
    let desired = Desired::new(folder, records, cluster, &Desired::default());
    (desired.lists(), desired.problems)
}

#[cfg(test)]
mod tests;

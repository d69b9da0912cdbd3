//! The state of the folder: what each file says, and what it said before it broke. Pure; the shell beside it
//! reads the files. Read by `desired.rs`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::{Kind, ObjectName};

use super::text::{self, Content, Document};
use super::written::Written;
use crate::source::report::{Problem, Reason};

/// The files of the folder, by name.
#[derive(Debug, Default)]
pub(crate) struct Folder {
    files: BTreeMap<String, File>,
}

#[derive(Debug, Default)]
struct File {
    documents: Vec<Document>,
    /// The whole file cannot be taken now; `documents` are those of an earlier time.
    broken: Option<Problem>,
}

/// A good object and where it is written.
#[derive(Clone, Debug)]
pub(crate) struct Entry<'a> {
    /// `shop.yaml, document 2`.
    pub(crate) place: String,
    /// Kind and name.
    pub(crate) id: (Kind, ObjectName),
    /// What is written.
    pub(crate) written: &'a Written,
}

/// Whether a file of this name is a manifest. Hidden files, editors' back-ups and subfolders are not, as
/// with `kubectl apply -f FOLDER`.
pub(crate) fn is_manifest(file: &str) -> bool {
    let ending = [".yaml", ".yml", ".json"].iter().any(|ending| file.ends_with(ending));
    ending && !file.starts_with('.')
}

impl Folder {
    /// The file now has this text. A text that cannot be parsed changes no object.
    pub(crate) fn put(&mut self, file: &str, text: &str) {
        let known = self.files.entry(file.to_owned()).or_default();
        match text::parse(file, text) {
            Ok(documents) => {
                let before = std::mem::replace(&mut known.documents, documents);
                keep_refused(&mut known.documents, before);
                known.broken = None;
            }
            Err(problem) => known.broken = Some(problem),
        }
    }

    /// The file is there but cannot be read: its objects stay.
    pub(crate) fn put_unreadable(&mut self, file: &str, fault: &str) {
        let problem = Problem::new(Reason::Unreadable, format!("{file}: {fault}"));
        self.files.entry(file.to_owned()).or_default().broken = Some(problem);
    }

    /// The file is gone, and its objects with it.
    pub(crate) fn remove(&mut self, file: &str) {
        self.files.remove(file);
    }

    /// Of all files only these are left.
    pub(crate) fn retain(&mut self, files: &BTreeSet<String>) {
        self.files.retain(|file, _| files.contains(file));
    }

    /// The objects, each once, in order of files and documents, and what is wrong.
    pub(crate) fn entries(&self) -> (Vec<Entry<'_>>, Vec<Problem>) {
        let mut entries: Vec<Entry<'_>> = Vec::new();
        let mut problems = Vec::new();
        let mut first: HashMap<(Kind, ObjectName), usize> = HashMap::new();
        for (file, document) in self.documents() {
            let written = match &document.content {
                Content::Object(written) => Some(written),
                Content::Bad(problem, kept) => {
                    problems.push(problem.clone());
                    kept.as_ref()
                }
                Content::Unused(_) => None,
            };
            let (Some(written), Some(id)) = (written, document.id.clone()) else { continue };
            let place = format!("{file}, {}", document.place);
            match first.get(&id).and_then(|index| entries.get(*index)) {
                Some(winner) => problems.push(twice(&place, &id, winner)),
                None => {
                    first.insert(id.clone(), entries.len());
                    entries.push(Entry { place, id, written });
                }
            }
        }
        problems.extend(self.files.values().filter_map(|file| file.broken.clone()));
        problems.extend(self.unused());
        (entries, problems)
    }

    fn documents(&self) -> impl Iterator<Item = (&str, &Document)> {
        self.files
            .iter()
            .flat_map(|(name, file)| file.documents.iter().map(move |document| (name.as_str(), document)))
    }

    /// One line for all objects that a node has no use for.
    fn unused(&self) -> Option<Problem> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, document) in self.documents() {
            if let Content::Unused(kind) = &document.content {
                *counts.entry(kind).or_default() += 1;
            }
        }
        let words: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        (!words.is_empty())
            .then(|| Problem::new(Reason::UnusedKind, format!("ignored: {}", words.join(", "))))
    }
}

/// A refused object leaves the earlier one of its name standing, as an update that the API server refuses
/// does. A half-written file often parses, and breaks objects only.
fn keep_refused(documents: &mut [Document], before: Vec<Document>) {
    let mut earlier: HashMap<(Kind, ObjectName), Box<Written>> = HashMap::new();
    for document in before {
        let written = match document.content {
            Content::Object(written) | Content::Bad(_, Some(written)) => written,
            Content::Bad(_, None) | Content::Unused(_) => continue,
        };
        if let Some(id) = document.id {
            earlier.entry(id).or_insert(written);
        }
    }
    for document in documents {
        if let (Content::Bad(_, kept), Some(id)) = (&mut document.content, &document.id) {
            *kept = earlier.remove(id);
        }
    }
}

fn twice(place: &str, (kind, name): &(Kind, ObjectName), winner: &Entry<'_>) -> Problem {
    let text = format!("{place}, {} {name}: is in {} already", kind.as_str(), winner.place);
    Problem::new(Reason::Conflict, text)
}

//! The network namespaces of a node: those that are mounted, as container runtimes do, and those of its
//! processes. Finding them reads `/proc` alone; entering one needs CAP_SYS_ADMIN and changes this thread.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// A node has a few hundred pods; a machine with more namespaces than this is no node.
const MOST: usize = 8192;
/// The namespace of this thread.
const OWN: &str = "/proc/thread-self/ns/net";

/// The ways to every namespace by its number, besides this thread's own. A namespace may end while its way
/// is kept; then it cannot be opened.
pub(super) fn others() -> BTreeMap<u64, PathBuf> {
    let mut found = mounted(&std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default());
    for process in std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok) {
        if found.len() >= MOST {
            break;
        }
        if !process.file_name().as_bytes().first().is_some_and(u8::is_ascii_digit) {
            continue;
        }
        let path = process.path().join("ns/net");
        if let Some(number) = number_at(&path) {
            found.entry(number).or_insert(path);
        }
    }
    if let Some(own) = number_at(Path::new(OWN)) {
        found.remove(&own);
    }
    found
}

/// Opens this thread's own namespace, to come back to.
pub(super) fn own() -> io::Result<File> {
    File::open(OWN)
}

/// Moves this thread into a namespace.
pub(super) fn enter(namespace: &File) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// The mounted namespaces of a `/proc/self/mountinfo`.
fn mounted(mountinfo: &str) -> BTreeMap<u64, PathBuf> {
    let namespaces = mountinfo.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        Some((number(root)?, unescape(point)))
    });
    namespaces.take(MOST).collect()
}

pub(super) fn number_at(path: &Path) -> Option<u64> {
    number(std::fs::read_link(path).ok()?.to_str()?)
}

/// The number in `net:[4026531840]`.
fn number(text: &str) -> Option<u64> {
    text.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok()
}

/// A path as mountinfo writes it: blanks and the like are octal.
fn unescape(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut path = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match code {
            Some(code) => {
                path.push(char::from(code));
                path.push_str(&part[3..]);
            }
            None => path.push_str(part),
        }
    }
    path.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounted_namespaces_are_found_by_their_number() {
        let mountinfo = "24 1 0:22 / /sys rw - sysfs sysfs rw\n\
            99 28 0:4 net:[4026532200] /run/netns/cni-1 rw shared:9 - nsfs nsfs rw\n\
            98 28 0:4 mnt:[4026532201] /run/mnt rw - nsfs nsfs rw\n\
            97 28 0:4 net:[4026532202] /run/net\\040ns/b rw - nsfs nsfs rw\n";
        let expected = [(4_026_532_200, "/run/netns/cni-1"), (4_026_532_202, "/run/net ns/b")];
        let expected = expected.map(|(number, path)| (number, PathBuf::from(path)));
        assert_eq!(mounted(mountinfo), BTreeMap::from(expected));
    }
}

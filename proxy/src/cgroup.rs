//! Which cgroup of the v2 hierarchy holds which process, by the paths of `/proc`. The kernel writes them from the root
//! of the reader's cgroup namespace, with a `..` for each level above it. Called by the probe and for
//! `fairway check`; it enters nothing and changes nothing.

use std::io;
use std::path::{Path, PathBuf};

/// A place in the hierarchy, as this process sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cgroup {
    /// Levels above the root of the namespace.
    up: usize,
    /// The way down from there.
    down: PathBuf,
}

impl Cgroup {
    /// That of a directory.
    pub(crate) fn at(directory: &Path) -> io::Result<Self> {
        let directory = directory.canonicalize()?;
        let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
        mounted(&directory, &mounts)
            .ok_or_else(|| io::Error::other(format!("{} is of no mount of cgroup v2", directory.display())))
    }

    /// That of the process with this folder in `/proc`, and how the kernel writes it. None if it has ended.
    pub(crate) fn of(process: &Path) -> Option<(Self, String)> {
        let cgroups = std::fs::read_to_string(process.join("cgroup")).ok()?;
        let path = cgroups.lines().find_map(|line| line.strip_prefix("0::"))?;
        Some((Self::read(path), path.to_owned()))
    }

    /// Whether a process there is in this cgroup or below it. None where the names on the way are not known: those
    /// between this cgroup and the root of the namespace.
    pub(crate) fn holds(&self, process: &Self) -> Option<bool> {
        if self.down.as_os_str().is_empty() {
            return Some(process.up <= self.up);
        }
        (process.up >= self.up).then(|| process.up == self.up && process.down.starts_with(&self.down))
    }

    fn read(path: &str) -> Self {
        let parts = path.split('/').filter(|part| !part.is_empty());
        let up = parts.clone().take_while(|part| *part == "..").count();
        Self { up, down: parts.skip(up).collect() }
    }
}

/// The cgroup at a directory, by the mount that it is of.
fn mounted(directory: &Path, mountinfo: &str) -> Option<Cgroup> {
    let mounts = mountinfo.lines().filter(|line| line.contains(" - cgroup2 ")).filter_map(|line| {
        let mut fields = line.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        Some((point.len(), root, directory.strip_prefix(point).ok()?))
    });
    let (_, root, rest) = mounts.max_by_key(|(length, ..)| *length)?;
    let mut cgroup = Cgroup::read(root);
    cgroup.down.push(rest);
    Some(cgroup)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_the_place_that_processes_show() {
        let mountinfo = "30 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                         31 24 0:26 /docker/x /mnt/own rw - cgroup2 cgroup2 rw\n\
                         32 24 0:26 /../.. /host/sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        let at = |directory: &str| mounted(Path::new(directory), mountinfo);
        assert_eq!(at("/sys/fs/cgroup/unified"), Some(Cgroup::read("/")));
        assert_eq!(at("/sys/fs/cgroup/unified/a/b"), Some(Cgroup::read("/a/b")));
        assert_eq!(at("/mnt/own/c"), Some(Cgroup::read("/docker/x/c")));
        assert_eq!(at("/host/sys/fs/cgroup"), Some(Cgroup::read("/../..")));
        assert_eq!(at("/host/sys/fs/cgroup/a"), Some(Cgroup::read("/../../a")));
        assert_eq!(at("/tmp"), None);
    }

    #[test]
    fn a_cgroup_holds_what_is_in_it_and_below() {
        let cases = [
            ("/", "/kubepods/pod1", Some(true)),
            ("/kubepods", "/kubepods/pod1", Some(true)),
            ("/kubepods/pod1", "/kubepods/pod1", Some(true)),
            ("/kube", "/kubepods/pod1", Some(false)),
            ("/kubepods/pod1/a", "/kubepods/pod1", Some(false)),
            ("/kubepods", "/../other", Some(false)),
            // From within a container, whose own cgroup is the root of what it sees.
            ("/../..", "/", Some(true)),
            ("/../..", "/../sibling", Some(true)),
            ("/../..", "/../../other/pod2", Some(true)),
            ("/../..", "/../../../system", Some(false)),
            ("/../../other", "/../../other/pod2", Some(true)),
            ("/../../other", "/../../another", Some(false)),
            ("/../../other", "/../../../system", Some(false)),
            // The container may itself be below `own`.
            ("/../../own", "/../sibling", None),
        ];
        for (cgroup, process, expected) in cases {
            let held = Cgroup::read(cgroup).holds(&Cgroup::read(process));
            assert_eq!(held, expected, "{cgroup} and {process}");
        }
    }
}

//! Facts of this machine, read from files in milliseconds: who we are, what the kernel offers, what the
//! compiler brings. It changes nothing.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

/// What set-up has to know before it does anything.
pub(crate) struct Machine {
    pub(crate) cargo: PathBuf,
    sysroot: Option<PathBuf>,
    root: bool,
    os_release: String,
    mounts: String,
    kernel: String,
}

impl Machine {
    /// Reads the facts.
    pub(crate) fn look() -> Result<Self> {
        let cargo = std::env::var_os("CARGO").map_or_else(|| "cargo".into(), PathBuf::from);
        let sysroot = first_line(Command::new("rustc").args(["--print", "sysroot"])).map(PathBuf::from);
        let read = |path| std::fs::read_to_string(path).unwrap_or_default();
        if !Path::new("/proc/self/mounts").exists() {
            bail!("Fairway is for Linux, and this machine has no /proc/self/mounts");
        }
        Ok(Self {
            cargo,
            sysroot,
            root: rustix::process::geteuid().is_root(),
            os_release: read("/etc/os-release"),
            mounts: read("/proc/self/mounts"),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        })
    }

    pub(crate) fn is_debian(&self) -> bool {
        Path::new("/usr/bin/apt-get").exists()
            && self.os_release.lines().any(|line| {
                (line.starts_with("ID=") || line.starts_with("ID_LIKE=")) && line.contains("debian")
            })
    }

    /// The own compiler's library source, as `rustup component add rust-src` puts it.
    pub(crate) fn has_library_source(&self) -> bool {
        self.sysroot
            .as_ref()
            .is_some_and(|sysroot| sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists())
    }

    pub(crate) fn has_bpffs(&self) -> bool {
        mounted(&self.mounts, "bpf").any(|at| at == "/sys/fs/bpf")
    }

    /// One sentence about the first thing that cannot be had here.
    pub(crate) fn refuse_if_unfit(&self) -> Result<()> {
        if !self.root {
            bail!(
                "not root: packages, namespaces and BPF programs need it, so run this again as root (or with sudo -E)"
            );
        }
        if !at_least(&self.kernel, (6, 1)) {
            bail!("the kernel is {}, and Fairway needs 6.1 or later (bpf_set_retval)", self.kernel);
        }
        if !Path::new("/sys/kernel/btf/vmlinux").exists() {
            bail!("the kernel has no BTF: use one built with CONFIG_DEBUG_INFO_BTF (Debian's own is)");
        }
        if mounted(&self.mounts, "cgroup2").next().is_none() {
            bail!(
                "no cgroup v2 hierarchy is mounted: `mount -t cgroup2 none /sys/fs/cgroup/unified`, or boot with systemd.unified_cgroup_hierarchy=1"
            );
        }
        Ok(())
    }

    /// What is not needed to build and test, but will be missed.
    pub(crate) fn notes(&self) -> Vec<String> {
        let Some(sysroot) = &self.sysroot else { return Vec::new() };
        [("cargo-clippy", "clippy"), ("cargo-fmt", "rustfmt")]
            .iter()
            .filter(|(program, _)| !sysroot.join("bin").join(program).exists())
            .map(|(_, component)| format!("the lints need {component}: `rustup component add {component}`"))
            .collect()
    }
}

/// The first line of what a short command prints, if it succeeds.
pub(crate) fn first_line(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(|line| line.trim().to_owned())
}

/// Where file systems of a type are mounted, from the text of /proc/self/mounts.
fn mounted<'a>(mounts: &'a str, kind: &'a str) -> impl Iterator<Item = &'a str> {
    mounts.lines().filter_map(move |line| {
        let mut words = line.split(' ').skip(1);
        let at = words.next()?;
        (words.next()? == kind).then_some(at)
    })
}

/// Whether a release like `6.18.44-fc-v595` is at least `floor`.
fn at_least(release: &str, floor: (u32, u32)) -> bool {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse::<u32>().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= floor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_as_numbers() {
        assert!(at_least("6.18.44-fc-v595", (6, 1)));
        assert!(at_least("6.1.0-18-amd64", (6, 1)));
        assert!(at_least("7.0", (6, 1)));
        assert!(!at_least("5.18.2", (6, 1)));
        assert!(!at_least("", (6, 1)));
    }

    #[test]
    fn mounts_are_found_by_type() {
        let text = "proc /proc proc rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mounted(text, "cgroup2").collect::<Vec<_>>(), ["/sys/fs/cgroup/unified"]);
        assert_eq!(mounted(text, "bpf").count(), 0);
    }
}

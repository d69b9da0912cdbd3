//! A node: a network namespace, a cgroup, directories, and the daemon in it. Dropping it leaves nothing.
//!
//! [`Node::run`] is how a test gets one: it skips without root, bounds how many run at once, and on failure
//! shows the daemon's log and how to enter the namespace.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::machine::{bound_concurrency, cgroup_root, program, root_or_skip};
use crate::network::{Network, Place};
use crate::process::{self, Background, Finished};
use crate::until::until;
use crate::{Answers, Daemon, Flow, Kind};

/// The node's address.
pub const NODE4: &str = "192.0.2.10";
/// The node's address.
pub const NODE6: &str = "2001:db8:2::10";

/// Which node it is: its name, its addresses, its router, and the ranges of its pods.
#[derive(Debug)]
pub struct Site {
    /// The name.
    pub name: &'static str,
    /// The node's address.
    pub node4: &'static str,
    /// The node's address.
    pub node6: &'static str,
    /// The router on its link.
    pub router4: &'static str,
    /// The router on its link.
    pub router6: &'static str,
    /// The ranges of its pods, as `--pod-cidr` has them.
    pub pod_cidrs: &'static str,
}

/// The usual node.
const FIRST: &Site = &Site {
    name: "node-a",
    node4: NODE4,
    node6: NODE6,
    router4: crate::ROUTER4,
    router6: crate::ROUTER6,
    pod_cidrs: "10.244.1.0/24,fd00:244:1::/64",
};

/// A second node on the link of the first.
const BESIDE: &Site = &Site {
    name: "node-b",
    node4: "192.0.2.11",
    node6: "2001:db8:2::11",
    pod_cidrs: "10.244.2.0/24,fd00:244:2::/64",
    ..*FIRST
};

/// A second node on another link.
const BEHIND: &Site = &Site {
    name: "node-b",
    node4: "203.0.113.11",
    node6: "2001:db8:3::11",
    router4: "203.0.113.1",
    router6: "2001:db8:3::1",
    pod_cidrs: "10.244.2.0/24,fd00:244:2::/64",
};

/// Where a test wants something else than the usual daemon.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Further flags of `fairway run`, where `{folder}` stands for the node's folder.
    pub flags: Vec<String>,
    /// Manifests that are there before the daemon starts, by file name.
    pub manifests: Vec<(String, String)>,
    /// Where `fairway` and `probe` are, if not beside the running program.
    pub programs: Option<PathBuf>,
    /// What the daemon logs, in the words of FAIRWAY_LOG; empty for debug.
    pub log: &'static str,
    /// The only capabilities of the daemon, as setpriv(1) has them: `+bpf,+net_admin`; empty for all.
    pub capabilities: &'static str,
    /// Neither the node nor its pods nor services have IPv4.
    pub ipv6_only: bool,
}

/// A node of this machine.
#[derive(Debug)]
pub struct Node {
    /// The daemon, while it runs.
    pub daemon: Option<Daemon>,
    pub(crate) background: Vec<Background>,
    pub(crate) network: Network,
    pub(crate) cgroup: PathBuf,
    folder: PathBuf,
    bpf_dir: PathBuf,
    fairway: PathBuf,
    pub(crate) probe: PathBuf,
    options: Options,
    site: &'static Site,
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

impl Node {
    /// Runs a test on a node of its own with a running daemon.
    ///
    /// # Panics
    /// If the node cannot be made or the test fails; that is what a test is for.
    pub fn run(options: Options, test: impl FnOnce(&mut Self) -> Result<()>) {
        if !root_or_skip() {
            return;
        }
        let _place = bound_concurrency();
        let mut node = Self::create(options).expect("a node can be made on this machine");
        let done = node.start_daemon().and_then(|()| test(&mut node));
        if let Err(error) = done {
            let log = node.daemon.as_ref().map(Daemon::log_tail).unwrap_or_default();
            let enter = node.how_to_enter();
            if std::env::var_os("KEEP").is_some() {
                std::mem::forget(node);
            }
            panic!("{error:#}\n\nthe daemon's log ends:\n{log}\n\n{enter}");
        }
    }

    /// Makes the node without starting its daemon.
    ///
    /// # Errors
    /// What could not be made.
    pub fn create(options: Options) -> Result<Self> {
        let name = new_name();
        Self::create_in(Network::create(&name, FIRST, options.ipv6_only)?, FIRST, options)
    }

    /// Makes another node without starting its daemon, connected to this one. It must be dropped first.
    ///
    /// # Errors
    /// What could not be made.
    pub fn create_other(&self, place: Place, options: Options) -> Result<Self> {
        let site = match place {
            Place::Beside => BESIDE,
            Place::Behind => BEHIND,
        };
        Self::create_in(self.network.join(&new_name(), (site, options.ipv6_only), place)?, site, options)
    }

    fn create_in(network: Network, site: &'static Site, options: Options) -> Result<Self> {
        let name = network.node.clone();
        let folder = std::env::temp_dir().join(&name);
        let find = |name: &str| match &options.programs {
            Some(folder) => Ok(folder.join(name)),
            None => program(name),
        };
        let node = Self {
            daemon: None,
            background: Vec::new(),
            network,
            site,
            cgroup: cgroup_root()?.join(&name),
            bpf_dir: Path::new("/sys/fs/bpf").join(&name),
            fairway: find("fairway")?,
            probe: find("probe")?,
            folder,
            options,
        };
        std::fs::create_dir(&node.cgroup).context("cannot make a cgroup")?;
        std::fs::create_dir_all(node.manifests())?;
        for (file, text) in &node.options.manifests {
            node.write(file, text)?;
        }
        Ok(node)
    }

    /// Starts the daemon and waits until it is ready.
    ///
    /// # Errors
    /// It ended or did not become ready.
    pub fn start_daemon(&mut self) -> Result<()> {
        self.daemon = Some(self.spawn_daemon()?);
        Ok(())
    }

    /// The same, for a caller who keeps the daemon: whoever uses the node meanwhile.
    ///
    /// # Errors
    /// It ended or did not become ready.
    pub fn spawn_daemon(&self) -> Result<Daemon> {
        let mut daemon = self.spawn_daemon_from("--manifests", &self.manifests())?;
        daemon.await_ready()?;
        Ok(daemon)
    }

    /// Starts a daemon with further flags, and does not wait for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn_daemon_with(&self, flags: &[&str]) -> Result<Daemon> {
        self.spawn_daemon_of("--manifests", &self.manifests(), flags)
    }

    /// Starts a daemon with another source of objects, and does not wait for it.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn_daemon_from(&self, flag: &str, source: &Path) -> Result<Daemon> {
        self.spawn_daemon_of(flag, source, &[])
    }

    fn spawn_daemon_of(&self, flag: &str, source: &Path, flags: &[&str]) -> Result<Daemon> {
        let mut command = match self.options.capabilities {
            "" => process::in_cgroup(&self.cgroup, &self.fairway),
            few => {
                let mut command = process::in_cgroup(&self.cgroup, Path::new("setpriv"));
                command.args(["--bounding-set", &format!("-all,{few}"), "--"]).arg(&self.fairway);
                command
            }
        };
        command.arg("run").arg(flag).arg(source).args(self.run_flags()).args(flags);
        command.env("NO_COLOR", "1");
        let log = if self.options.log.is_empty() { "debug,aya=info,aya_obj=info" } else { self.options.log };
        command.env("FAIRWAY_LOG", log);
        Daemon::spawn(command, &self.namespace(), &self.run_dir(), &self.log())
    }

    /// The running daemon.
    ///
    /// # Errors
    /// There is none.
    pub fn daemon(&mut self) -> Result<&mut Daemon> {
        self.daemon.as_mut().context("no daemon runs")
    }

    /// The flags of `fairway run`, without its source of objects.
    pub fn run_flags(&self) -> Vec<String> {
        let cgroup = self.cgroup.display().to_string();
        let pod_cidrs = self.pod_cidrs().join(",");
        let service_cidrs = self.in_use(&["10.96.0.0/16", "fd00:96::/112"]).join(",");
        let upstream = self.in_use(&[self.site.router4, self.site.router6])[0];
        let mut flags: Vec<String> = [
            "--node-name",
            self.site.name,
            "--cgroup",
            &cgroup,
            "--pod-cidr",
            &pod_cidrs,
            "--service-cidr",
            &service_cidrs,
            "--dns-upstream",
            upstream,
        ]
        .map(str::to_owned)
        .to_vec();
        flags.extend(self.place_flags());
        let folder = self.folder.display().to_string();
        flags.extend(self.options.flags.iter().map(|flag| flag.replace("{folder}", &folder)));
        flags
    }

    /// The flags that say where the node's things are.
    pub fn place_flags(&self) -> Vec<String> {
        let shown = |path: &Path| path.display().to_string();
        vec!["--run-dir".to_owned(), shown(&self.run_dir()), "--bpf-dir".to_owned(), shown(&self.bpf_dir)]
    }

    /// Runs `fairway` with these words and the node's place, to its end.
    ///
    /// # Errors
    /// It could not be started or did not end.
    pub fn fairway(&self, words: &[&str]) -> Result<Finished> {
        let (before, after) = match words.iter().position(|word| *word == "--") {
            Some(at) => words.split_at(at),
            None => (words, &[][..]),
        };
        let mut command = process::in_cgroup(&self.cgroup, &self.fairway);
        command.args(before).args(self.place_flags()).args(after);
        process::finish(command, Some(&self.namespace()))
    }

    /// Runs any program of the machine on the node itself.
    ///
    /// # Errors
    /// It could not be started or did not end.
    pub fn command(&self, words: &[&str]) -> Result<Finished> {
        let (program, arguments) = words.split_first().context("a program")?;
        let mut command = process::in_cgroup(&self.cgroup, Path::new(program));
        command.args(arguments);
        process::finish(command, Some(&self.namespace()))
    }

    /// Starts any program of the machine on the node itself; it runs until what is returned is dropped.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, words: &[&str]) -> Result<Background> {
        let (program, arguments) = words.split_first().context("a program")?;
        let mut command = process::in_cgroup(&self.cgroup, Path::new(program));
        command.args(arguments);
        Background::start(command, Some(&self.namespace()))
    }

    /// Connects or sends from the node itself.
    ///
    /// # Errors
    /// The probe failed; that nobody answers is no failure.
    pub fn ask(&self, kind: Kind, target: &str, more: &[&str]) -> Result<Answers> {
        Answers::of(&self.probe, kind, target, more, |words| self.command(words))
    }

    /// Keeps a flow open from the node itself; `words` follow `probe`.
    ///
    /// # Errors
    /// No connection.
    pub fn flow(&self, words: &[&str]) -> Result<Flow> {
        let mut command = process::in_cgroup(&self.cgroup, &self.probe);
        command.args(words);
        Flow::new(Background::start(command, Some(&self.namespace()))?)
    }

    /// The path of `fairway`.
    pub fn program(&self) -> &Path {
        &self.fairway
    }

    /// Puts a manifest into the folder at once: a half-written file is never seen.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.manifests().join(file);
        let half = self.folder.join(format!("{file}.half"));
        std::fs::write(&half, text)?;
        std::fs::rename(half, path).with_context(|| format!("cannot write {file}"))
    }

    /// Takes a manifest out of the folder.
    ///
    /// # Errors
    /// It is not there.
    pub fn remove(&self, file: &str) -> Result<()> {
        std::fs::remove_file(self.manifests().join(file)).with_context(|| format!("cannot remove {file}"))
    }

    /// The folder of manifests.
    pub fn manifests(&self) -> PathBuf {
        self.folder.join("manifests")
    }

    /// The daemon's directory.
    pub fn run_dir(&self) -> PathBuf {
        self.folder.join("run")
    }

    /// The node's pins.
    pub fn bpf_dir(&self) -> &Path {
        &self.bpf_dir
    }

    /// The node's cgroup.
    pub fn cgroup(&self) -> &Path {
        &self.cgroup
    }

    /// Scratch space of the node.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file of the node's network namespace.
    pub fn namespace(&self) -> PathBuf {
        self.network.node_path()
    }

    /// The name of the node's network namespace.
    pub fn name(&self) -> &str {
        &self.network.node
    }

    /// The name of the namespace of the router.
    pub fn outside(&self) -> &str {
        &self.network.outside
    }

    /// Its addresses on its link.
    pub fn addresses(&self) -> Vec<&'static str> {
        self.in_use(&[self.site.node4, self.site.node6])
    }

    /// The ranges of its pods.
    pub fn pod_cidrs(&self) -> Vec<&'static str> {
        self.in_use(&self.site.pod_cidrs.split(',').collect::<Vec<_>>())
    }

    /// Those addresses or ranges of a family that the node has.
    fn in_use<'a>(&self, all: &[&'a str]) -> Vec<&'a str> {
        all.iter().copied().filter(|text| !self.options.ipv6_only || text.contains(':')).collect()
    }

    /// Which node it is.
    pub fn site(&self) -> &'static Site {
        self.site
    }

    /// The path of the probe, for a pod's command.
    pub fn probe(&self) -> &Path {
        &self.probe
    }

    fn log(&self) -> PathBuf {
        self.folder.join("daemon.log")
    }

    fn how_to_enter(&self) -> String {
        format!(
            "run it again with KEEP=1, then enter the node with\n    nsenter --net={} sh -c 'echo 0 > {}/cgroup.procs; exec bash'",
            self.namespace().display(),
            self.cgroup.display()
        )
    }

    /// What of this node is still on the machine: nothing, once it is dropped.
    pub fn traces(name: &str) -> Vec<String> {
        let mut places = vec![
            PathBuf::from("/run/netns").join(name),
            PathBuf::from("/run/netns").join(format!("{name}-out")),
            Path::new("/sys/fs/bpf").join(name),
            std::env::temp_dir().join(name),
        ];
        places.extend(cgroup_root().map(|root| root.join(name)));
        let mut found: Vec<String> =
            places.iter().filter(|path| path.exists()).map(|path| path.display().to_string()).collect();
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        found.extend(mounts.lines().filter(|line| line.contains(name)).map(str::to_owned));
        found
    }

    /// Removes everything, by force where it must be.
    fn clear(&mut self) -> Result<()> {
        self.daemon = None;
        self.background.clear();
        // Everything that runs on the node is in its cgroup: one write ends it, and nothing else.
        let _ = std::fs::write(self.cgroup.join("cgroup.kill"), "1");
        until("the node's processes to end", || {
            let events = std::fs::read_to_string(self.cgroup.join("cgroup.events")).unwrap_or_default();
            if events.contains("populated 1") { bail!("some still run") } else { Ok(()) }
        })?;
        unmount_below(&self.folder)?;
        remove_cgroups(&self.cgroup)?;
        for folder in [&self.bpf_dir, &self.folder] {
            if folder.exists() {
                std::fs::remove_dir_all(folder)
                    .with_context(|| format!("cannot remove {}", folder.display()))?;
            }
        }
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "{} leaves something behind: {error:#}", self.network.node);
        }
    }
}

fn new_name() -> String {
    format!("fw{}-{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed))
}

/// Pods pin their namespaces by mounts: the innermost goes first.
fn unmount_below(folder: &Path) -> Result<()> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").context("cannot read /proc/self/mounts")?;
    let points = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|at| Path::new(at).starts_with(folder));
    for point in points.collect::<Vec<_>>().into_iter().rev() {
        rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH)
            .with_context(|| format!("cannot unmount {point}"))?;
    }
    Ok(())
}

fn remove_cgroups(cgroup: &Path) -> Result<()> {
    let Ok(entries) = std::fs::read_dir(cgroup) else { return Ok(()) };
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_cgroups(&entry.path())?;
        }
    }
    std::fs::remove_dir(cgroup).with_context(|| format!("cannot remove {}", cgroup.display()))
}

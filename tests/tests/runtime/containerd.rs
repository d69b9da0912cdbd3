//! Debian's containerd and runc on a node: in its network namespace and its cgroup, with every directory of its own.
//!
//! The machine's own runtime, if any, is not touched.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tests::{Background, Image, ImageFile, Node, until};

use crate::cri::Cri;

/// What pods are held by: our pause program.
const PAUSE: &str = "fairway.local/pause:test";
/// What containers run.
pub(crate) const BUSYBOX: &str = "fairway.local/busybox:test";
const BUSYBOX_PROGRAM: &str = "/bin/busybox";
/// The applets that tests use.
const APPLETS: [&str; 8] = ["sh", "httpd", "wget", "nslookup", "hostname", "readlink", "cat", "sleep"];

/// A runtime on a node. Dropping it kills it; what it started ends with the node.
pub(crate) struct Containerd<'a> {
    node: &'a Node,
    process: Option<Background>,
    folder: PathBuf,
    pub(crate) cri: Cri,
}

impl<'a> Containerd<'a> {
    /// The flags of a daemon that is the runtime's CNI plug-in.
    pub(crate) fn daemon_flags() -> Vec<String> {
        let directories = ["--cni-bin-dir", "{folder}/cni/bin", "--cni-conf-dir", "{folder}/cni/net.d"];
        directories.into_iter().chain(["--packets", "on"]).map(str::to_owned).collect()
    }

    /// Starts it, and gives it both images.
    pub(crate) fn start(node: &'a Node) -> Result<Self> {
        let folder = node.folder().join("containerd");
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join("config.toml"), config(&folder, node.folder()))?;
        let cri = Cri::new(&folder.join("containerd.sock"))?;
        let mut containerd = Self { node, process: None, folder, cri };
        containerd.start_again()?;
        containerd.import(&Image {
            reference: PAUSE.to_owned(),
            entrypoint: vec!["/pause".to_owned()],
            files: BTreeMap::from([(
                "pause".to_owned(),
                ImageFile::Program(sandbox::PAUSE_PROGRAM.to_vec()),
            )]),
        })?;
        let busybox =
            std::fs::read(BUSYBOX_PROGRAM).context("no /bin/busybox: `cargo xtask setup` installs it")?;
        let links = APPLETS.map(|applet| (format!("bin/{applet}"), ImageFile::Link("busybox".to_owned())));
        let program = ("bin/busybox".to_owned(), ImageFile::Program(busybox));
        containerd.import(&Image {
            reference: BUSYBOX.to_owned(),
            entrypoint: vec!["/bin/sh".to_owned()],
            files: links.into_iter().chain([program]).collect(),
        })?;
        Ok(containerd)
    }

    /// Ends it as the kernel does when memory is short; the pods live on.
    pub(crate) fn kill(&mut self) {
        self.process = None;
    }

    /// Starts it, and waits until it answers.
    pub(crate) fn start_again(&mut self) -> Result<()> {
        let line = format!("exec containerd --config {0}/config.toml >>{0}/log 2>&1", self.folder.display());
        self.process = Some(self.node.start(&["/bin/sh", "-c", &line])?);
        until("containerd to answer", || self.cri.pods().map(drop)).with_context(|| self.log_tail())
    }

    /// The end of what it logged.
    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    fn import(&self, image: &Image) -> Result<()> {
        let archive = self.folder.join("image.tar");
        image.write(&archive)?;
        let output = Command::new("ctr")
            .arg("--address")
            .arg(self.folder.join("containerd.sock"))
            .args(["--namespace", "k8s.io", "images", "import"])
            .arg(&archive)
            .output()
            .context("cannot start ctr (package containerd)")?;
        ensure!(output.status.success(), "ctr: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Containerd<'_> {
    /// What runs in its pods ends, and their cgroups of the old hierarchies, which the node knows nothing of, go.
    fn drop(&mut self) {
        self.process = None;
        let folders = |path: &Path| {
            let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect::<Vec<_>>()
        };
        for pod in folders(self.node.cgroup()) {
            let _ = std::fs::write(pod.join("cgroup.kill"), "1");
        }
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let old = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let old =
            old.filter(|words| words.get(2) == Some(&"cgroup")).filter_map(|words| words.get(1).copied());
        for hierarchy in old {
            let own = Path::new(hierarchy).join(self.node.name());
            // A cgroup goes once its last process has been reaped.
            let _ = until("the cgroups to go", || {
                for pod in folders(&own) {
                    std::fs::remove_dir(&pod)?;
                }
                if own.exists() { Ok(std::fs::remove_dir(&own)?) } else { Ok(()) }
            });
        }
    }
}

fn config(folder: &Path, node: &Path) -> String {
    let (folder, node) = (folder.display(), node.display());
    format!(
        r#"version = 2
root = "{folder}/root"
state = "{folder}/state"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "{folder}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  disable_tcp_service = true
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "native"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{node}/cni/bin"
    conf_dir = "{node}/cni/net.d"
"#
    )
}

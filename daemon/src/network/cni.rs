//! Fairway as the CNI plug-in of the node's container runtime: the program and the list that names it, put where the
//! runtime looks. Noted in the run directory for `fairway cleanup`; never removed when the daemon ends, because pods
//! are attached and detached without it.

use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ipnet::IpNet;
use sandbox::{CNI_PROGRAM, CONFLIST, CniConfig};

use crate::cli::{CniArgs, PlaceArgs};

/// In the run directory: the files of this daemon among the runtime's, one path a line.
const NOTE: &str = "cni-files";

/// Whose directories, and which program.
#[derive(Debug)]
pub(super) struct Cni {
    bin_dir: PathBuf,
    conf_dir: PathBuf,
    program: PathBuf,
    note: PathBuf,
}

impl Cni {
    /// None unless the options name the runtime's directories.
    pub(super) fn new(args: &CniArgs, place: &PlaceArgs) -> Result<Option<Self>> {
        let (Some(bin_dir), Some(conf_dir)) = (&args.cni_bin_dir, &args.cni_conf_dir) else {
            return Ok(None);
        };
        let own = std::env::current_exe().context("cannot find this program")?;
        let program = own.with_file_name(CNI_PROGRAM);
        anyhow::ensure!(
            program.is_file(),
            "{} is not there: the CNI plug-in is installed from beside fairway",
            program.display()
        );
        let note = place.run_dir.join(NOTE);
        Ok(Some(Self { bin_dir: bin_dir.clone(), conf_dir: conf_dir.clone(), program, note }))
    }

    /// Puts both in place; what was written, for people. The list comes last: it makes the node ready for pods.
    pub(super) fn install(&self, pod_cidrs: &[IpNet], bpf_dir: &Path) -> Result<Vec<String>> {
        let mut files = vec![self.conf_dir.join(CONFLIST), self.bin_dir.join(CNI_PROGRAM)];
        // Before anything is there that it would have to name.
        self.write_note(&files)?;
        let config = CniConfig {
            pod_cidrs: pod_cidrs.to_vec(),
            mtu: sandbox::node_mtu().context("cannot read the MTU of this node's uplink")?,
            bpf_dir: Some(bpf_dir.to_owned()),
        };
        let mut written = Vec::new();
        if sandbox::install_cni_program(&self.program, &self.bin_dir)? {
            written.push(files[1].display().to_string());
        }
        files.extend(sandbox::install_loopback(&self.program, &self.bin_dir)?);
        self.write_note(&files)?;
        if sandbox::write_conflist(&self.conf_dir, &config)? {
            written.push(files[0].display().to_string());
        }
        Ok(written)
    }

    fn write_note(&self, files: &[PathBuf]) -> Result<()> {
        let lines: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
        if std::fs::read_to_string(&self.note).is_ok_and(|noted| noted == lines) {
            return Ok(());
        }
        std::fs::write(&self.note, lines).with_context(|| format!("cannot write {}", self.note.display()))
    }
}

/// Takes away what a daemon of this run directory has installed, the list first.
pub(super) fn remove(run_dir: &Path) -> Result<()> {
    let note = run_dir.join(NOTE);
    let lines = match std::fs::read_to_string(&note) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        lines => lines.with_context(|| format!("cannot read {}", note.display()))?,
    };
    for path in lines.lines().map(Path::new).chain([note.as_path()]) {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

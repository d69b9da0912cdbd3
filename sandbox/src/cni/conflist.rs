//! How a container runtime learns of the plug-in: the program among the CNI programs, and the network
//! configuration list. Both appear whole or not at all. Called by the daemon once it is ready; neither is removed
//! when it ends, because pods are attached without it.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde_json::{Value, json};

use super::request::Version;

/// The name of the program, which the list gives as the type of the plug-in.
pub const CNI_PROGRAM: &str = "fairway-cni";
/// The plug-in that runtimes run for every pod, whatever the list says.
const LOOPBACK_PROGRAM: &str = "loopback";
/// The name of the list. A runtime takes the first of its folder.
pub const CONFLIST: &str = "10-fairway.conflist";

/// What the plug-in has to know of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CniConfig {
    /// The ranges that pods get their addresses from.
    pub pod_cidrs: Vec<IpNet>,
    /// The MTU of pods' links.
    pub mtu: u32,
    /// Where the daemon pins its maps and programs.
    pub bpf_dir: Option<PathBuf>,
}

/// A file could not be put where the runtime looks for it.
#[derive(Debug, thiserror::Error)]
#[error("installing {path}: {source}")]
pub struct InstallError {
    path: PathBuf,
    source: io::Error,
}

/// Writes the list into `folder`, which is made if it is missing. False if it is there already, word for word:
/// a runtime reads its folder anew at every change.
pub fn write_conflist(folder: &Path, config: &CniConfig) -> Result<bool, InstallError> {
    let mut text = serde_json::to_string_pretty(&conflist(config)).unwrap_or_default();
    text.push('\n');
    install(&folder.join(CONFLIST), text.as_bytes(), 0o644)
}

/// Copies the program at `source` into `folder`. False if it is there already: the running ones keep the file
/// that they were started from.
pub fn install_cni_program(source: &Path, folder: &Path) -> Result<bool, InstallError> {
    let program =
        fs::read(source).map_err(|error| InstallError { path: source.to_owned(), source: error })?;
    install(&folder.join(CNI_PROGRAM), &program, 0o755)
}

/// Puts the program into `folder` a second time, as the plug-in `loopback` that runtimes expect there, unless somebody's
/// is there; where it is ours, its path.
pub fn install_loopback(source: &Path, folder: &Path) -> Result<Option<PathBuf>, InstallError> {
    let path = folder.join(LOOPBACK_PROGRAM);
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| InstallError { path, source }
    };
    let program = fs::read(source).map_err(failed(source))?;
    match fs::read(&path) {
        // An earlier one of ours is replaced: it says what it is.
        Ok(found) if !is_ours(&found) => return Ok(None),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&path)(error)),
        Ok(_) | Err(_) => {}
    }
    install(&path, &program, 0o755)?;
    Ok(Some(path))
}

/// Whether a program is this one, of whatever version.
fn is_ours(program: &[u8]) -> bool {
    const MARK: &[u8] = b"the CNI plug-in of Fairway";
    program.windows(MARK.len()).any(|part| part == MARK)
}

/// A list with cniVersion 1.1.0 alone is not read by containerd 1.6; cniVersions is for those who know more.
fn conflist(config: &CniConfig) -> Value {
    let versions: Vec<_> = Version::ALL.iter().map(|version| version.as_str()).collect();
    let mut plugin = json!({
        "type": CNI_PROGRAM,
        "podCidrs": config.pod_cidrs, "mtu": config.mtu,
        "capabilities": {"portMappings": true},
    });
    if let Some(bpf_dir) = &config.bpf_dir {
        plugin["bpfDir"] = json!(bpf_dir);
    }
    json!({
        "cniVersion": Version::V1_0_0.as_str(),
        "cniVersions": versions,
        "name": "fairway",
        "plugins": [plugin],
    })
}

fn install(path: &Path, content: &[u8], mode: u32) -> Result<bool, InstallError> {
    replace(path, content, mode).map_err(|source| InstallError { path: path.to_owned(), source })
}

fn replace(path: &Path, content: &[u8], mode: u32) -> io::Result<bool> {
    let there = fs::symlink_metadata(path)
        .is_ok_and(|there| there.is_file() && there.permissions().mode() & 0o777 == mode);
    if there && fs::read(path).is_ok_and(|found| found == content) {
        return Ok(false);
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    // No runtime reads a file with this ending. A rename shows the file at once, whole.
    let new = path.with_extension("new");
    let result = write(&new, content, mode).and_then(|()| fs::rename(&new, path));
    if result.is_err() {
        let _ = fs::remove_file(&new);
    }
    result.map(|()| true)
}

fn write(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = File::create_new(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(content)?;
    // Else a loss of power could leave the new name with nothing in it.
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = entries.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_list_is_as_runtimes_want_it() {
        let config = CniConfig {
            pod_cidrs: vec!["10.1.0.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
            mtu: 1450,
            bpf_dir: Some("/sys/fs/bpf/fairway".into()),
        };
        let expected = json!({
            "cniVersion": "1.0.0",
            "cniVersions": ["0.3.1", "0.4.0", "1.0.0", "1.1.0"],
            "name": "fairway",
            "plugins": [{
                "type": "fairway-cni",
                "podCidrs": ["10.1.0.0/24", "fd00:1::/64"],
                "mtu": 1450,
                "capabilities": {"portMappings": true},
                "bpfDir": "/sys/fs/bpf/fairway",
            }],
        });
        assert_eq!(conflist(&config), expected);
        let without = conflist(&CniConfig { bpf_dir: None, ..config });
        assert_eq!(without["plugins"][0].get("bpfDir"), None);
    }

    #[test]
    fn the_list_is_written_when_it_changes() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("net.d");
        let mut config = CniConfig { pod_cidrs: Vec::new(), mtu: 1500, bpf_dir: None };
        assert!(write_conflist(&folder, &config).unwrap(), "the folder is made");
        let file = folder.join(CONFLIST);
        let first = fs::metadata(&file).unwrap();
        assert!(!write_conflist(&folder, &config).unwrap(), "the same again touches nothing");
        assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), first.modified().unwrap());
        config.mtu = 1400;
        let mut reader = File::open(&file).unwrap();
        assert!(write_conflist(&folder, &config).unwrap());
        let mut old = String::new();
        io::Read::read_to_string(&mut reader, &mut old).unwrap();
        assert!(old.contains("1500"), "who has the old file open still reads it whole");
        let new: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        assert_eq!(new["plugins"][0]["mtu"], 1400);
        assert_eq!(names(&folder), [CONFLIST]);
        assert_eq!(first.permissions().mode() & 0o777, 0o644);
    }

    #[test]
    fn the_program_is_replaced_and_whatever_is_in_its_way() {
        let root = tempfile::tempdir().unwrap();
        let (source, folder) = (root.path().join("built"), root.path().join("bin"));
        fs::write(&source, "one").unwrap();
        assert!(install_cni_program(&source, &folder).unwrap());
        let program = folder.join(CNI_PROGRAM);
        assert_eq!(fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
        assert!(!install_cni_program(&source, &folder).unwrap());
        fs::set_permissions(&program, Permissions::from_mode(0o644)).unwrap();
        assert!(install_cni_program(&source, &folder).unwrap(), "it must be executable");
        // What an install that was killed has left, as a link that must not be followed.
        std::os::unix::fs::symlink(&source, folder.join("fairway-cni.new")).unwrap();
        let next = root.path().join("next");
        fs::write(&next, "two").unwrap();
        assert!(install_cni_program(&next, &folder).unwrap());
        assert_eq!(fs::read_to_string(&program).unwrap(), "two");
        assert_eq!(fs::read_to_string(&source).unwrap(), "one");
        assert_eq!(names(&folder), [CNI_PROGRAM]);
    }

    #[test]
    fn what_cannot_be_installed_is_named_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        let missing = root.path().join("missing");
        let error = install_cni_program(&missing, root.path()).unwrap_err();
        let expected = format!("installing {}: No such file or directory (os error 2)", missing.display());
        assert_eq!(error.to_string(), expected);
        fs::create_dir(root.path().join(CONFLIST)).unwrap();
        let config = CniConfig { pod_cidrs: Vec::new(), mtu: 1500, bpf_dir: None };
        assert!(write_conflist(root.path(), &config).is_err());
        assert_eq!(names(root.path()), [CONFLIST], "the unfinished file is gone");
    }
}

//! A container of a Pod made ready to start: its environment, its command, its file tree. Decides what runs;
//! [`crate::launch`] runs it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::directory::{DirectoryError, PodDirectory};
use crate::environment::{Variable, environment, expand};
use crate::launch::{Bind, LaunchError, View, c_path};
use crate::manifest::{Container, HostPath, Metadata, Pod, Volume, VolumeMount};
use crate::settings::Settings;

/// What an image would set.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A container could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// Nothing to run.
    #[error("it has no command: images are not pulled, so there is no default one")]
    NoCommand,
    /// A place for a volume is missing.
    #[error("volume {volume}: {target} is not there in the root; make it, or use --rootfs")]
    NoTarget {
        /// The volume.
        volume: String,
        /// The path inside the container.
        target: String,
    },
    /// A path of the node is not what `hostPath.type` says.
    #[error("volume {volume}: {path} is not there, or is not a {kind}")]
    HostPath {
        /// The volume.
        volume: String,
        /// The path on the node.
        path: PathBuf,
        /// `hostPath.type`.
        kind: String,
    },
    /// A file or directory could not be made.
    #[error("{path}: {source}")]
    Io {
        /// It.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of the pod.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A mount.
    #[error(transparent)]
    Launch(#[from] LaunchError),
}

/// What all containers of a pod share.
pub(crate) struct Surroundings<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) settings: &'a Settings,
    pub(crate) addresses: &'a [IpAddr],
    pub(crate) hostname: &'a str,
    pub(crate) directory: &'a PodDirectory,
    pub(crate) rootfs: Option<&'a Path>,
}

/// The command and the environment of a container.
pub(crate) fn program(
    around: &Surroundings<'_>,
    container: &Container,
) -> Result<(Vec<String>, BTreeMap<String, String>), ContainerError> {
    let own: Vec<Variable> = container
        .env
        .iter()
        .filter_map(|variable| Some((variable.name.clone(), value(around, variable)?)))
        .collect();
    let named = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let base = [named("PATH", PATH), named("HOSTNAME", around.hostname), named("HOME", "/root")];
    let environment = environment(&base, &own, &around.settings.environment);
    let words = container.command.iter().chain(&container.args);
    let command: Vec<String> =
        words.map(|word| expand(word, |name| environment.get(name).cloned())).collect();
    if container.command.is_empty() {
        return Err(ContainerError::NoCommand);
    }
    Ok((command, environment))
}

/// The value of a variable; None where it would come from something that is not there.
fn value(around: &Surroundings<'_>, variable: &crate::manifest::EnvVar) -> Option<String> {
    match &variable.value_from {
        None => Some(variable.value.clone().unwrap_or_default()),
        Some(from) => {
            let path = &from.field_ref.as_ref()?.field_path;
            field(around, path)
        }
    }
}

fn field(around: &Surroundings<'_>, path: &str) -> Option<String> {
    let Metadata { name, namespace, labels, annotations } = &around.pod.metadata;
    let first = |list: &[IpAddr]| list.first().map(ToString::to_string).unwrap_or_default();
    let all = |list: &[IpAddr]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let key = |prefix: &str| path.strip_prefix(prefix)?.strip_prefix("['")?.strip_suffix("']");
    Some(match path {
        "metadata.name" => name.clone(),
        "metadata.namespace" => namespace.clone(),
        "spec.nodeName" => around.settings.node_name.clone(),
        "spec.serviceAccountName" => "default".to_owned(),
        "status.podIP" => first(around.addresses),
        "status.podIPs" => all(around.addresses),
        "status.hostIP" => first(&around.settings.node_addresses),
        "status.hostIPs" => all(&around.settings.node_addresses),
        _ => match (key("metadata.labels"), key("metadata.annotations")) {
            (Some(key), _) => labels.get(key).cloned().unwrap_or_default(),
            (None, Some(key)) => annotations.get(key).cloned().unwrap_or_default(),
            (None, None) => return None,
        },
    })
}

/// The file tree of a container: the root, the pod's own files over those of `/etc`, and the volumes.
pub(crate) fn view(around: &Surroundings<'_>, container: &Container) -> Result<View, ContainerError> {
    if let Some(root) = around.rootfs {
        for directory in ["dev", "etc", "proc", "sys"] {
            make_directory(&root.join(directory))?;
        }
    }
    let mut binds = Vec::new();
    for name in ["hosts", "resolv.conf", "hostname"] {
        let target = format!("/etc/{name}");
        place_file(around, &target)?;
        binds.push(Bind::new(&around.directory.path().join(name), &target, false)?);
    }
    for mount in &container.volume_mounts {
        binds.extend(volume(around, mount)?);
    }
    Ok(View {
        root: around.rootfs.map(c_path).transpose()?,
        own_processes: around.pod.work.share_process_namespace,
        binds,
    })
}

/// None for a volume of a kind that has no effect.
fn volume(around: &Surroundings<'_>, mount: &VolumeMount) -> Result<Option<Bind>, ContainerError> {
    let volumes = &around.pod.work.volumes;
    let Some(volume) = volumes.iter().find(|volume| volume.name == mount.name) else { return Ok(None) };
    let Some(mut source) = source(around, volume)? else { return Ok(None) };
    if !mount.sub_path.is_empty() {
        source.push(&mount.sub_path);
        if !source.exists() {
            make_directory(&source)?;
        }
    }
    let target = inside(around, &mount.mount_path);
    if !target.exists() {
        if around.rootfs.is_none() {
            return Err(ContainerError::NoTarget {
                volume: mount.name.clone(),
                target: mount.mount_path.clone(),
            });
        }
        if source.is_dir() { make_directory(&target)? } else { place_file(around, &mount.mount_path)? }
    }
    Ok(Some(Bind::new(&source, &mount.mount_path, mount.read_only)?))
}

fn source(around: &Surroundings<'_>, volume: &Volume) -> Result<Option<PathBuf>, ContainerError> {
    if volume.empty_dir.is_some() {
        return Ok(Some(around.directory.make(&format!("volumes/{}", volume.name))?));
    }
    volume.host_path.as_ref().map(|host_path| host_directory(&volume.name, host_path)).transpose()
}

fn host_directory(volume: &str, host_path: &HostPath) -> Result<PathBuf, ContainerError> {
    let path = PathBuf::from(&host_path.path);
    let fits = match host_path.kind.as_str() {
        "DirectoryOrCreate" => {
            make_directory(&path)?;
            path.is_dir()
        }
        "FileOrCreate" => {
            make_file(&path)?;
            path.is_file()
        }
        "Directory" => path.is_dir(),
        "File" => path.is_file(),
        _ => path.exists(),
    };
    let kind = if host_path.kind.is_empty() { "path" } else { &host_path.kind };
    if fits {
        Ok(path)
    } else {
        Err(ContainerError::HostPath { volume: volume.to_owned(), path, kind: kind.to_owned() })
    }
}

/// Makes sure that there is a file to place another one over. The node's own root is not touched.
fn place_file(around: &Surroundings<'_>, path: &str) -> Result<(), ContainerError> {
    let target = inside(around, path);
    if around.rootfs.is_some() && fs::symlink_metadata(&target).is_err() {
        make_file(&target)?;
    }
    Ok(())
}

fn inside(around: &Surroundings<'_>, path: &str) -> PathBuf {
    around.rootfs.unwrap_or(Path::new("/")).join(path.trim_start_matches('/'))
}

fn make_directory(path: &Path) -> Result<(), ContainerError> {
    fs::create_dir_all(path).map_err(|source| ContainerError::Io { path: path.to_path_buf(), source })
}

fn make_file(path: &Path) -> Result<(), ContainerError> {
    if let Some(parent) = path.parent() {
        make_directory(parent)?;
    }
    let made = fs::OpenOptions::new().create(true).append(true).open(path);
    made.map(|_| ()).map_err(|source| ContainerError::Io { path: path.to_path_buf(), source })
}

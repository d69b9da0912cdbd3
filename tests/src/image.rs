//! An OCI image of a few files, as an archive that every runtime imports: one layer, made without a container engine.
//!
//! The same files give the same bytes: no time of day, no owner but root, names in order. `cargo xtask image` and the
//! tests with a real runtime make theirs here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An image.
#[derive(Debug)]
pub struct Image {
    /// What runtimes call it: `registry/name:tag`.
    pub reference: String,
    /// The command that a container runs by default.
    pub entrypoint: Vec<String>,
    /// Its files by path, without a leading slash.
    pub files: BTreeMap<String, ImageFile>,
}

/// One file of an image.
#[derive(Debug)]
pub enum ImageFile {
    /// A program.
    Program(Vec<u8>),
    /// A symbolic link.
    Link(String),
}

impl Image {
    /// Writes the archive.
    ///
    /// # Errors
    /// A name is too long for the archive, or the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut archive = Archive::default();
        archive.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
        let layer = self.layer()?;
        let layer = archive.blob("application/vnd.oci.image.layer.v1.tar", &layer)?;
        let config = json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
        });
        let config =
            archive.blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes())?;
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({"schemaVersion": 2, "mediaType": kind, "config": config, "layers": [layer]});
        let mut manifest = archive.blob(kind, manifest.to_string().as_bytes())?;
        let tag = self.reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        manifest["annotations"] = json!({
            "io.containerd.image.name": self.reference,
            "org.opencontainers.image.ref.name": tag,
        });
        let index = json!({"schemaVersion": 2, "manifests": [manifest]});
        archive.file("index.json", index.to_string().as_bytes(), 0o644)?;
        std::fs::write(path, archive.finish()).with_context(|| format!("cannot write {}", path.display()))
    }

    fn layer(&self) -> Result<Vec<u8>> {
        let mut layer = Archive::default();
        let mut folders = BTreeSet::new();
        for (path, file) in &self.files {
            let parents = Path::new(path).ancestors().skip(1).filter_map(Path::to_str);
            let mut missing: Vec<&str> =
                parents.filter(|folder| !folder.is_empty() && folders.insert((*folder).to_owned())).collect();
            missing.sort_unstable();
            for folder in missing {
                layer.entry(&format!("{folder}/"), b'5', 0o755, ("", &[]))?;
            }
            match file {
                ImageFile::Program(content) => layer.file(path, content, 0o755)?,
                ImageFile::Link(target) => layer.entry(path, b'2', 0o777, (target, &[]))?,
            }
        }
        Ok(layer.finish())
    }
}

/// The name of this machine's kind as images have it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// A tar archive (POSIX.1-1988, "ustar").
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    const BLOCK: usize = 512;

    fn file(&mut self, name: &str, content: &[u8], mode: u32) -> Result<()> {
        self.entry(name, b'0', mode, ("", content))
    }

    /// Adds a file under the name of its digest; its descriptor.
    fn blob(&mut self, kind: &str, content: &[u8]) -> Result<Value> {
        let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
        self.file(&format!("blobs/sha256/{digest}"), content, 0o644)?;
        Ok(json!({"mediaType": kind, "digest": format!("sha256:{digest}"), "size": content.len()}))
    }

    fn entry(&mut self, name: &str, kind: u8, mode: u32, (link, content): (&str, &[u8])) -> Result<()> {
        ensure!(name.len() <= 100 && link.len() <= 100, "{name}: the name is too long for the archive");
        let mut header = [0u8; Self::BLOCK];
        let mut put = |at: usize, text: &[u8]| {
            if let Some(place) = header.get_mut(at..at + text.len()) {
                place.copy_from_slice(text);
            }
        };
        put(0, name.as_bytes());
        put(100, format!("{mode:07o}\0{0:07o}\0{0:07o}\0{1:011o}\0{0:011o}\0", 0, content.len()).as_bytes());
        put(148, b"        ");
        put(156, &[kind]);
        put(157, link.as_bytes());
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        if let Some(place) = header.get_mut(148..156) {
            place.copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        self.0.extend(header);
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(Self::BLOCK), 0);
        Ok(())
    }

    /// Two empty blocks end it.
    fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * Self::BLOCK, 0);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tar_reads_the_archive_and_its_layer() {
        let folder = std::env::temp_dir().join(format!("fairway-image-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let image = Image {
            reference: "fairway.local/test:1".to_owned(),
            entrypoint: vec!["/bin/a".to_owned()],
            files: BTreeMap::from([
                ("bin/a".to_owned(), ImageFile::Program(vec![7; 1000])),
                ("bin/b".to_owned(), ImageFile::Link("a".to_owned())),
            ]),
        };
        let path = folder.join("image.tar");
        image.write(&path).unwrap();
        let first = std::fs::read(&path).unwrap();
        image.write(&path).unwrap();
        assert_eq!(first, std::fs::read(&path).unwrap(), "the same files give the same bytes");
        let tar = |words: &[&str]| {
            let output = std::process::Command::new("tar").args(words).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            output.stdout
        };
        let archive = path.display().to_string();
        let index: Value = serde_json::from_slice(&tar(&["-xOf", &archive, "index.json"])).unwrap();
        let digest = |descriptor: &Value| {
            let digest = descriptor["digest"].as_str().unwrap().replace(':', "/");
            tar(&["-xOf", &archive, &format!("blobs/{digest}")])
        };
        let manifest: Value = serde_json::from_slice(&digest(&index["manifests"][0])).unwrap();
        let config: Value = serde_json::from_slice(&digest(&manifest["config"])).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let layer = folder.join("layer.tar");
        std::fs::write(&layer, digest(&manifest["layers"][0])).unwrap();
        let listed = String::from_utf8(tar(&["-tvf", &layer.display().to_string()])).unwrap();
        let words: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!((words[0][0], words[0][5]), ("drwxr-xr-x", "bin/"));
        assert_eq!((words[1][0], words[1][2], words[1][5]), ("-rwxr-xr-x", "1000", "bin/a"));
        assert_eq!(words[2][5..], ["bin/b", "->", "a"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }
}

//! The dependency arrows between crates, and which crate alone may know a foreign library.
//!
//! The tables below are the picture of ARCHITECTURE.md; `cargo metadata` is what is really there.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Finding;
use crate::workspace;

/// A package of the workspace and what its Cargo.toml names.
pub(super) struct Package {
    name: String,
    manifest: PathBuf,
    dependencies: Vec<Dependency>,
}

struct Dependency {
    name: String,
    /// Only for its tests.
    dev: bool,
}

/// What each crate may know of the others.
const ARROWS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("ebpf", &[]),
    ("proxy", &["model", "ebpf"]),
    ("dns", &["model"]),
    ("sandbox", &["model"]),
    ("fairway", &["model", "ebpf", "proxy", "dns", "sandbox"]),
    ("tests", &["model", "ebpf", "proxy", "dns", "sandbox", "fairway"]),
    ("xtask", &["tests"]),
];

/// Who alone may know a foreign library; a name stands for all that begin with it and a dash.
const OWNERS: &[(&str, &[&str])] = &[
    ("aya", &["proxy"]),
    ("aya-ebpf", &["ebpf"]),
    ("hickory", &["dns"]),
    ("netlink", &["sandbox"]),
    ("kube", &["fairway"]),
    ("k8s-openapi", &["fairway"]),
    ("tokio", &["dns", "fairway", "tests"]),
];

/// Asks cargo what depends on what.
pub(super) fn read_metadata() -> Result<Vec<Package>> {
    let output = workspace::cargo()
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: Value = serde_json::from_slice(&output.stdout).context("cargo metadata is no JSON")?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    Ok(packages.iter().map(package).collect())
}

fn package(value: &Value) -> Package {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let dependencies = value["dependencies"].as_array().map_or(&[][..], Vec::as_slice);
    Package {
        name: text(&value["name"]),
        manifest: workspace::relative(&PathBuf::from(text(&value["manifest_path"]))),
        dependencies: dependencies
            .iter()
            .map(|d| Dependency { name: text(&d["name"]), dev: d["kind"] == "dev" })
            .collect(),
    }
}

/// Compares what is there with the tables.
pub(super) fn check(packages: &[Package]) -> Vec<Finding> {
    let ours: Vec<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut findings = Vec::new();
    for package in packages {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == package.name) else {
            findings.push(finding(package, "is not in the picture: say in tidy/arrows.rs what it may know"));
            continue;
        };
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            let itself = dependency.dev && name == package.name;
            if ours.contains(&name) && !allowed.contains(&name) && !itself {
                findings.push(finding(package, &format!("{} may not know {name}", package.name)));
            }
            if let Some((library, owners)) = owners(name).filter(|(_, o)| !o.contains(&&*package.name)) {
                let owners = owners.join(" and ");
                findings.push(finding(
                    package,
                    &format!("only {owners} may know {library}, not {}", package.name),
                ));
            }
        }
    }
    findings
}

/// The most exact entry for a foreign library.
fn owners(name: &str) -> Option<(&'static str, &'static [&'static str])> {
    OWNERS
        .iter()
        .filter(|(library, _)| {
            name == *library || name.strip_prefix(library).is_some_and(|rest| rest.starts_with('-'))
        })
        .max_by_key(|(library, _)| library.len())
        .copied()
}

fn finding(package: &Package, what: &str) -> Finding {
    Finding::new(&package.manifest, 1, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, dependencies: &[(&str, bool)]) -> Vec<String> {
        let empty = |name: &&str| Package {
            name: (*name).to_owned(),
            manifest: PathBuf::from(name).join("Cargo.toml"),
            dependencies: Vec::new(),
        };
        let mut packages: Vec<Package> =
            ["model", "ebpf", "proxy", "dns", "sandbox", "fairway", "tests"].iter().map(empty).collect();
        let mut package = empty(&name);
        package.dependencies = dependencies
            .iter()
            .map(|(name, dev)| Dependency { name: (*name).to_owned(), dev: *dev })
            .collect();
        packages.retain(|other| other.name != name);
        packages.push(package);
        check(&packages).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_arrows_of_the_picture_are_allowed() {
        assert_eq!(found("proxy", &[("model", false), ("ebpf", false), ("aya", false)]), [""; 0]);
        assert_eq!(found("fairway", &[("dns", false), ("kube", false), ("tokio-util", false)]), [""; 0]);
        assert_eq!(found("model", &[("model", true), ("imbl", false)]), [""; 0]);
        assert_eq!(found("ebpf", &[("aya-ebpf", false)]), [""; 0]);
    }

    #[test]
    fn an_arrow_against_the_picture_is_found() {
        assert_eq!(found("model", &[("proxy", false)]), ["model/Cargo.toml:1: model may not know proxy"]);
        assert_eq!(found("ebpf", &[("model", true)]), ["ebpf/Cargo.toml:1: ebpf may not know model"]);
        assert_eq!(found("dns", &[("sandbox", false)]).len(), 1);
    }

    #[test]
    fn a_foreign_library_in_the_wrong_crate_is_found() {
        for (package, library) in [
            ("sandbox", "aya"),
            ("sandbox", "tokio"),
            ("fairway", "aya-obj"),
            ("proxy", "hickory-proto"),
            ("dns", "netlink-sys"),
            ("dns", "kube"),
            ("proxy", "aya-ebpf"),
        ] {
            assert_eq!(found(package, &[(library, false)]).len(), 1, "{package} with {library}");
        }
    }

    #[test]
    fn a_crate_that_the_picture_lacks_is_found() {
        assert_eq!(found("extras", &[]).len(), 1);
    }
}

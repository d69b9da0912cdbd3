//! `cargo xtask image`: the image of the DaemonSet and the image of the pause container, as OCI archives that every
//! runtime imports. No container engine is needed: the programs are static, and there is nothing else in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ::tests::{Image, ImageFile};
use anyhow::{Context, Result, ensure};
use clap::Args;

use crate::{say, setup, workspace};

/// The C library is linked in. Unwind tables are of no use to programs that abort, and without them a backtrace ends
/// at the function that panicked, which the panic itself names by file and line: symbols would tell nothing more.
/// They go by a flag, because cargo forgets `strip` of a profile for a package that has settings of its own.
const FLAGS: &str = "-C target-feature=+crt-static -C relocation-model=static -C force-unwind-tables=no \
                     -C strip=symbols";
/// What a container runtime reads from disk for every pod.
const PLUG_IN_LIMIT: u64 = 2 << 20;

/// The program header that names a dynamic loader.
const PT_INTERP: u32 = 3;

/// What to call it, and where to put it.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Folder of both archives [default: image in the target directory].
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Registry and path in front of both names.
    #[arg(long, value_name = "PREFIX", default_value = "fairway.local")]
    registry: String,
    /// Tag of both [default: the version].
    #[arg(long)]
    tag: Option<String>,
}

/// Builds both archives.
pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode> {
    setup::ensure()?;
    let tag = arguments.tag.as_deref().unwrap_or(env!("CARGO_PKG_VERSION"));
    say::line("building static programs (the first time takes minutes)");
    let plug_in = build("sandbox", "fairway-cni", "small")?;
    let size = std::fs::metadata(&plug_in)?.len();
    ensure!(size < PLUG_IN_LIMIT, "fairway-cni has {size} bytes, and {PLUG_IN_LIMIT} are too many");
    let fairway = build("fairway", "fairway", "release")?;
    let pause = pause(&plug_in)?;
    let folder = match &arguments.output {
        Some(folder) => folder.clone(),
        None => target_folder(&fairway)?.join("image"),
    };
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let program = |path: &Path| -> Result<ImageFile> {
        refuse_dynamic(path)?;
        Ok(ImageFile::Program(std::fs::read(path)?))
    };
    let main = Image {
        reference: format!("{}/fairway:{tag}", arguments.registry),
        entrypoint: vec!["/usr/local/bin/fairway".to_owned(), "run".to_owned()],
        files: BTreeMap::from([
            ("usr/local/bin/fairway".to_owned(), program(&fairway)?),
            ("usr/local/bin/fairway-cni".to_owned(), program(&plug_in)?),
            ("pause".to_owned(), program(&pause)?),
        ]),
    };
    let small = Image {
        reference: format!("{}/fairway-pause:{tag}", arguments.registry),
        entrypoint: vec!["/pause".to_owned()],
        files: BTreeMap::from([("pause".to_owned(), program(&pause)?)]),
    };
    for (name, image) in [("fairway", main), ("fairway-pause", small)] {
        let path = folder.join(format!("{name}-{tag}.tar"));
        image.write(&path)?;
        let kilobytes = std::fs::metadata(&path)?.len() / 1024;
        say::line(format!("{:<40} {kilobytes:>7} KiB  {}", image.reference, path.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// Builds one program without any library beside it.
pub(crate) fn build(package: &str, program: &str, profile: &str) -> Result<PathBuf> {
    let target = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let mut command = workspace::cargo();
    command
        .args(["build", "--package", package, "--bin", program, "--profile", profile])
        // With a target named, the flags are not those of build scripts and macros.
        .args(["--target", &target])
        .env("RUSTFLAGS", FLAGS);
    workspace::executable(&workspace::build(&mut command)?, program)
}

/// The pause program that the build script of `sandbox` made for the plug-in.
fn pause(plug_in: &Path) -> Result<PathBuf> {
    let builds = plug_in.parent().context("a program is in a folder")?.join("build");
    let made = std::fs::read_dir(&builds)?.flatten().map(|entry| entry.path().join("out/pause"));
    let newest = made.filter_map(|path| Some((std::fs::metadata(&path).ok()?.modified().ok()?, path))).max();
    newest.map(|(_, path)| path).with_context(|| format!("no pause program below {}", builds.display()))
}

/// `target` of `target/<triple>/release/fairway`.
fn target_folder(program: &Path) -> Result<PathBuf> {
    Ok(program.ancestors().nth(3).context("cargo puts programs into its target directory")?.to_owned())
}

/// There is no dynamic loader in the image.
fn refuse_dynamic(program: &Path) -> Result<()> {
    let content = std::fs::read(program)?;
    let wants_loader = program_headers(&content).any(|kind| kind == PT_INTERP);
    ensure!(!wants_loader, "{} needs a dynamic loader", program.display());
    Ok(())
}

/// The kinds of the program headers of a 64-bit ELF file.
fn program_headers(content: &[u8]) -> impl Iterator<Item = u32> + '_ {
    let number = |at: usize, length: usize| {
        let bytes = content.get(at..at + length).unwrap_or_default();
        bytes.iter().rev().fold(0usize, |number, byte| number << 8 | usize::from(*byte))
    };
    let (start, size, count) = (number(0x20, 8), number(0x36, 2), number(0x38, 2));
    (0..count).map(move |index| u32::try_from(number(start + index * size, 4)).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_loader_is_refused() {
        let own = std::env::current_exe().unwrap();
        let error = refuse_dynamic(&own).unwrap_err().to_string();
        assert!(error.ends_with("needs a dynamic loader"), "{error}");
        let script = std::env::temp_dir().join(format!("no-elf-{}", std::process::id()));
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        assert!(refuse_dynamic(&script).is_ok());
        std::fs::remove_file(&script).unwrap();
    }
}

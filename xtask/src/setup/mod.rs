//! Set-up: finds what this machine lacks to build and run Fairway, installs only that, and says each step.
//!
//! What is there already is found by looking at files, so a run that has nothing to do takes milliseconds.
//! It never touches the rustup toolchain: Debian's compiler with its library source lives beside it.

mod machine;
mod packages;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};

use crate::{say, shell};
use machine::Machine;

/// The version that reads what LLVM 22 writes; later ones want a newer compiler.
const BPF_LINKER: &str = "0.13.0";
const LLVM: &str = "/usr/lib/llvm-22";

/// `cargo xtask setup`.
pub(crate) fn run() -> Result<ExitCode> {
    let done = ensure()?;
    if done == 0 {
        say::line("set-up: everything is there");
    }
    Ok(ExitCode::SUCCESS)
}

/// Brings the machine into the state that builds, tests and the demo need; returns how many steps it took.
pub(crate) fn ensure() -> Result<usize> {
    let started = Instant::now();
    let machine = Machine::look()?;
    machine.refuse_if_unfit()?;
    let mut steps = 0;
    steps += install_packages(&machine)?;
    steps += install_bpf_linker(&machine)?;
    steps += mount_bpffs(&machine)?;
    for note in machine.notes() {
        say::line(format!("set-up: {note}"));
    }
    if steps > 0 {
        say::line(format!("set-up: done, {steps} steps in {} s", started.elapsed().as_secs()));
    }
    Ok(steps)
}

fn install_packages(machine: &Machine) -> Result<usize> {
    let missing = packages::missing(machine.has_library_source());
    if missing.is_empty() {
        return Ok(0);
    }
    let names: Vec<&str> = missing.iter().map(|package| package.name).collect();
    if !machine.is_debian() {
        let tools: Vec<String> =
            missing.iter().map(|package| format!("{} ({})", package.elsewhere, package.why)).collect();
        bail!("this is not Debian, so install these yourself and run this again: {}", tools.join("; "));
    }
    say::line("set-up: Debian packages that are missing (1 to 4 minutes, once)");
    for package in &missing {
        say::line(format!("    {:<16} {}", package.name, package.why));
    }
    shell::run_quietly(apt(&["update"])).context("apt-get update")?;
    let mut install = apt(&["install", "--yes", "--no-install-recommends"]);
    install.args(&names);
    shell::run_quietly(install).context("apt-get install")?;
    Ok(1)
}

fn apt(arguments: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=120"]);
    if std::env::var_os("CI").is_some() {
        // A machine that is thrown away need not survive a power cut, and syncing each file takes minutes.
        command.args(["-o", "DPkg::Options::=--force-unsafe-io"]);
    }
    command.args(arguments);
    command
}

fn install_bpf_linker(machine: &Machine) -> Result<usize> {
    let wanted = format!("bpf-linker {BPF_LINKER}");
    let found = machine::first_line(Command::new(cargo_home().join("bin/bpf-linker")).arg("--version"));
    if found.as_deref() == Some(wanted.as_str()) {
        return Ok(0);
    }
    say::line(format!(
        "set-up: {wanted}, the linker of the kernel programs, from source (about 1 minute, once)"
    ));
    let mut install = Command::new(&machine.cargo);
    install
        .args(["install", "bpf-linker", "--version", BPF_LINKER, "--locked", "--force"])
        .args(["--no-default-features", "--features", "llvm-22"])
        .env("LLVM_PREFIX", LLVM)
        .env("LIBRARY_PATH", format!("{LLVM}/lib"))
        .env("PATH", format!("{LLVM}/bin:{}", std::env::var("PATH").unwrap_or_default()))
        // Its artefacts are of no use to this workspace.
        .env_remove("CARGO_TARGET_DIR")
        .current_dir("/");
    shell::run_quietly(install).context("cargo install bpf-linker")?;
    Ok(1)
}

fn mount_bpffs(machine: &Machine) -> Result<usize> {
    if machine.has_bpffs() {
        return Ok(0);
    }
    say::line("set-up: mounting the BPF file system at /sys/fs/bpf (where maps outlive the daemon)");
    let mut mount = Command::new("mount");
    mount.args(["-t", "bpf", "bpf", "/sys/fs/bpf"]);
    shell::run_quietly(mount).context("this kernel offers no BPF file system (CONFIG_BPF_SYSCALL)")?;
    Ok(1)
}

fn cargo_home() -> PathBuf {
    std::env::var_os("CARGO_HOME").map_or_else(
        || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cargo"),
        PathBuf::from,
    )
}

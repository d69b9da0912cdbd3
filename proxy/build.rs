//! Builds the kernel programs with a cargo of their own and puts the object where `programs.rs` includes it.
//! The target has no prebuilt `core`, so it needs the compiler's library source and RUSTC_BOOTSTRAP.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// What of the environment a nested cargo may see: the rest is this build's own (clippy's wrappers, flags,
/// the outer target) and must not leak into it.
const FOREIGN: [&str; 8] = ["RUST", "CLIPPY", "TARGET", "HOST", "OUT_DIR", "PROFILE", "OPT_LEVEL", "DEBUG"];
const KEPT: [&str; 4] = ["CARGO_HOME", "CARGO_HTTP", "CARGO_NET", "CARGO_REGISTR"];

struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    linker: PathBuf,
}

fn main() -> ExitCode {
    // Read now, not when this was compiled: a shared target directory serves more than one checkout.
    let package = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
    let root = Path::new(&package).parent().unwrap_or(Path::new("."));
    for path in ["ebpf/src", "ebpf/Cargo.toml", "Cargo.lock", "proxy/build.rs"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    match Toolchain::find().and_then(|toolchain| build(&toolchain, root)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            println!("cargo::error={sentence}");
            ExitCode::FAILURE
        }
    }
}

fn build(toolchain: &Toolchain, root: &Path) -> Result<(), String> {
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo did not set OUT_DIR")?);
    // One directory for every profile and for clippy, because `core` takes long to build.
    let target =
        out.ancestors().find(|path| path.ends_with("build")).and_then(|path| path.ancestors().nth(2));
    let target = target.unwrap_or(&out).join("ebpf");
    let status = command(toolchain, root, &target)
        .status()
        .map_err(|error| format!("{} cannot be started: {error}", toolchain.cargo.display()))?;
    if !status.success() {
        return Err("the kernel programs in ebpf/ did not build; the reason stands above".into());
    }
    let object = target.join("bpfel-unknown-none/release/fairway-ebpf");
    std::fs::copy(&object, out.join("fairway-ebpf"))
        .map_err(|error| format!("{} cannot be copied: {error}", object.display()))?;
    Ok(())
}

fn command(toolchain: &Toolchain, root: &Path, target: &Path) -> Command {
    let mut command = Command::new(&toolchain.cargo);
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let ours = FOREIGN.iter().any(|prefix| text.starts_with(prefix)) || text.starts_with("CARGO");
        if ours && !KEPT.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
        .current_dir(root)
        .env("RUSTC", &toolchain.rustc)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &toolchain.linker)
        // Instructions on 32 bits (v3, Linux 5.1): without them each operation on a word takes two shifts more.
        // BTF is made from debug information; with it `bpftool` shows what a map holds.
        .env("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-cpu=v3\u{1f}-Cdebuginfo=2\u{1f}-Clink-arg=--btf")
        .args(["build", "--package", "ebpf", "--bin", "fairway-ebpf", "--features", "programs"])
        .args(["--target", "bpfel-unknown-none", "-Z", "build-std=core", "--release"]);
    // More than one unit, or less optimisation, overflows the 512 bytes of stack.
    for setting in ["codegen-units=1", "opt-level=3", "debug=2", "lto=false", "strip=false"] {
        command.args(["--config", &format!("profile.release.{setting}")]);
    }
    command.arg("--target-dir").arg(target);
    command
}

impl Toolchain {
    fn find() -> Result<Self, String> {
        let linker = find_linker().ok_or_else(|| missing("bpf-linker"))?;
        let own = (env_path("CARGO"), env_path("RUSTC"));
        let debian = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
        let (cargo, rustc) = [own, debian]
            .into_iter()
            .find(|(cargo, rustc)| cargo.exists() && has_library_source(rustc))
            .ok_or_else(|| missing("the library source of the Rust compiler (rust-src)"))?;
        Ok(Self { cargo, rustc, linker })
    }
}

fn missing(part: &str) -> String {
    format!("{part} is missing, which the kernel programs need; `cargo xtask test` (or demo) installs it")
}

fn has_library_source(rustc: &Path) -> bool {
    let output = Command::new(rustc).args(["--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN").output();
    let Ok(output) = output else { return false };
    let sysroot = String::from_utf8_lossy(&output.stdout);
    Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/src/lib.rs").exists()
}

fn find_linker() -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let folders = env::split_paths(&path).chain(home.map(|home| home.join("bin")));
    folders.map(|folder| folder.join("bpf-linker")).find(|file| file.exists())
}

fn env_path(name: &str) -> PathBuf {
    env::var_os(name).map(PathBuf::from).unwrap_or_default()
}

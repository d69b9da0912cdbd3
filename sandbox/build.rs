//! Builds `pause/pause.rs` into a static file without libc, for `src/pause.rs` to embed. One call of the same
//! compiler: a package of its own would need a nightly artifact dependency to be embedded.

use std::env;
use std::path::PathBuf;
use std::process::Command;

fn main() {
    let source = "pause/pause.rs";
    println!("cargo::rerun-if-changed={source}");
    println!("cargo::rerun-if-changed=build.rs");
    let target = variable("TARGET");
    let output = PathBuf::from(variable("OUT_DIR")).join("pause");

    let mut rustc = Command::new(variable("RUSTC"));
    rustc.args(["--edition=2024", "--crate-name=pause", "--crate-type=bin", "--target", &target]);
    rustc.args(["-Copt-level=s", "-Cpanic=abort", "-Crelocation-model=static", "-Cstrip=symbols"]);
    rustc.args(["-Ctarget-feature=+crt-static", "-Cforce-unwind-tables=no"]);
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
        rustc.arg(format!("-Clink-arg={argument}"));
    }
    // Pages need not be separate by permission in a file of 2 KiB: it would be 12 KiB of padding.
    rustc.arg("-Clink-arg=-Wl,--build-id=none,-z,noseparate-code,--no-eh-frame-hdr");
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        rustc.arg(format!("-Clinker={linker}"));
    }
    let status = rustc.arg("-o").arg(&output).arg(source).status();
    match status {
        Ok(status) if status.success() => {}
        Ok(status) => fail(&format!("rustc could not build {source}: {status}")),
        Err(error) => fail(&format!("rustc did not start: {error}")),
    }
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| fail(&format!("cargo did not set {name}")))
}

fn fail(message: &str) -> ! {
    println!("cargo::error={message}");
    std::process::exit(1)
}

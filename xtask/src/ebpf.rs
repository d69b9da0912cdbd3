//! `cargo xtask ebpf`: builds the kernel programs, lists their sizes, and lets this kernel's verifier judge them.
//!
//! The object is what proxy's build script made; sizes are those of its symbols, before the verifier.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use tests::{Node, Options};

use crate::{say, setup, workspace};

const READELF: &str = "/usr/lib/llvm-22/bin/llvm-readelf";
/// Every instruction of BPF.
const INSTRUCTION_BYTES: u64 = 8;

/// Builds, lists and loads.
pub(crate) fn run() -> Result<ExitCode> {
    setup::ensure()?;
    let object = build()?;
    let output = Command::new(READELF)
        .args(["--symbols", "--wide"])
        .arg(&object)
        .output()
        .with_context(|| format!("cannot start {READELF} (package llvm-22)"))?;
    if !output.status.success() {
        bail!("{READELF} failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    say::line(format!("{:<20} instructions", "program"));
    for (name, instructions) in functions(&String::from_utf8_lossy(&output.stdout)) {
        say::line(format!("{name:<20} {instructions:>12}"));
    }
    load()
}

/// Builds what the daemon needs, and returns the object.
fn build() -> Result<PathBuf> {
    let mut command = workspace::cargo();
    command.args(["build", "--package", "fairway", "--package", "tests", "--bins"]);
    workspace::build(&mut command)?
        .iter()
        .filter(|message| message["reason"] == "build-script-executed")
        .filter_map(|message| message["out_dir"].as_str().map(|out| Path::new(out).join("fairway-ebpf")))
        .find(|object| object.exists())
        .context("no build script made the kernel programs")
}

/// A daemon that becomes ready has loaded and attached every program.
fn load() -> Result<ExitCode> {
    let mut node = Node::create(Options::default())?;
    node.start_daemon().context("this kernel does not take the programs")?;
    say::line("this kernel's verifier takes all of them, and they are attached in a namespace of their own");
    Ok(ExitCode::SUCCESS)
}

/// The global functions of a symbol table with their instructions, largest first.
fn functions(symbols: &str) -> Vec<(String, u64)> {
    let mut found: Vec<(String, u64)> = symbols
        .lines()
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [_, _, size, "FUNC", "GLOBAL", _, _, name] = words.as_slice() else { return None };
            Some(((*name).to_owned(), size.parse::<u64>().ok()? / INSTRUCTION_BYTES))
        })
        .collect();
    found.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    found
}

#[cfg(test)]
mod parsing {
    use super::functions;

    #[test]
    fn global_functions_are_listed_by_size() {
        let table = "   Num:    Value          Size Type    Bind   Vis       Ndx Name\n\
                        5: 0000000000000000    80 FUNC    GLOBAL DEFAULT     3 recvmsg4\n\
                        6: 0000000000000000  8512 FUNC    GLOBAL DEFAULT     5 connect4\n\
                        7: 0000000000000000    16 OBJECT  GLOBAL DEFAULT     9 NODE\n";
        assert_eq!(functions(table), [("connect4".to_owned(), 1064), ("recvmsg4".to_owned(), 10)]);
    }
}

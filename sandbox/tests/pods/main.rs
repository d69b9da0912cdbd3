//! Standalone pods from their first process to their last, each on a node of the test's own: a network namespace,
//! a cgroup and a directory. The runner is this test program, started again for the test `runner`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the helpers of tests are tests too")]

mod inside;
mod life;
mod node;

use node::{DETACH, JOB, Job, id};
use sandbox::{
    Detached, ExecOptions, NetworkNamespace, RunOptions, exec, is_detached, read_pod, run_detached, run_with,
};

/// Not a test of its own: the process that runs a pod for the others.
#[test]
fn runner() {
    let Ok(job) = std::env::var(JOB) else { return };
    if std::env::var_os(DETACH).is_some() && !is_detached() {
        let arguments: Vec<_> = std::env::args_os().skip(1).collect();
        match run_detached(&std::env::current_exe().unwrap(), &arguments).unwrap() {
            Detached::Up(_) => std::process::exit(0),
            Detached::Ended(code) => std::process::exit(code),
        }
    }
    let job: Job = serde_json::from_str(&job).unwrap();
    let node = NetworkNamespace::open(&job.node).unwrap();
    let result = match job.manifest {
        Some(text) => {
            let pod = read_pod("pod.yaml", &text).unwrap().pod;
            let options = RunOptions { run_dir: job.run_dir, pod, rootfs: job.rootfs, publish: Vec::new() };
            run_with(&options, &job.settings, Some(&node)).map_err(|error| error.to_string())
        }
        None => {
            let options =
                ExecOptions { run_dir: job.run_dir, pod: id("web"), container: None, command: job.exec };
            exec(&options).map_err(|error| error.to_string())
        }
    };
    let code = result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        99
    });
    std::process::exit(code.into());
}

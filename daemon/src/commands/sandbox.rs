//! `fairway sandbox`: pods without a container runtime. Puts together what was typed; the sandbox crate does
//! the work.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use sandbox::{Detached, DnsPolicy, ExecOptions, HostAlias, HostPort, Manifest, Pod, PodId, RunOptions};

use crate::cli::{Output, SandboxCommand, SandboxExecArgs, SandboxListArgs, SandboxRunArgs};
use crate::views::sandboxes;

/// Carries out one of the sandbox commands.
///
/// # Errors
/// One sentence for the person who typed it.
pub(super) fn sandbox(command: SandboxCommand) -> Result<ExitCode> {
    match command {
        SandboxCommand::Run(args) => run(&args),
        SandboxCommand::List(args) => super::print(&list(&args)?),
        SandboxCommand::Exec(args) => exec(args),
        SandboxCommand::Delete(args) => {
            sandbox::delete(&args.place.run_dir, &pod_id(&args.pod)?)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn run(args: &SandboxRunArgs) -> Result<ExitCode> {
    if args.detach && !sandbox::is_detached() {
        return detach();
    }
    let Manifest { mut pod, without_effect } = manifest(args)?;
    for alias in &args.host_alias {
        pod.naming.host_aliases.push(
            alias.parse::<HostAlias>().map_err(|error| anyhow::anyhow!("--host-alias {alias}: {error}"))?,
        );
    }
    if let Some(policy) = &args.dns_policy {
        pod.naming.dns_policy =
            policy.parse::<DnsPolicy>().map_err(|error| anyhow::anyhow!("--dns-policy {policy}: {error}"))?;
    }
    for line in sandbox::notices(&pod, &without_effect, args.rootfs.as_deref()) {
        eprintln!("fairway: pod {}: {line}", pod.id());
    }
    let publish = args
        .publish
        .iter()
        .map(|text| text.parse::<HostPort>().map_err(|error| anyhow::anyhow!("--publish {error}")));
    let options = RunOptions {
        publish: publish.collect::<Result<_>>()?,
        run_dir: args.place.run_dir.clone(),
        pod,
        rootfs: args.rootfs.clone(),
    };
    Ok(sandbox::run(&options)?.into())
}

/// The same command once more, in a session of its own; returns once its pod is up.
fn detach() -> Result<ExitCode> {
    let program = std::env::current_exe().context("cannot find this program")?;
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    match sandbox::run_detached(&program, &arguments).context("cannot start the pod's process")? {
        Detached::Up(_) => Ok(ExitCode::SUCCESS),
        Detached::Ended(code) => Ok(u8::try_from(code).unwrap_or(u8::MAX).into()),
    }
}

fn manifest(args: &SandboxRunArgs) -> Result<Manifest> {
    if let Some(file) = &args.file {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        return Ok(sandbox::read_pod(&file.display().to_string(), &text)?);
    }
    let Some(name) = &args.name else { bail!("say which pod with -f FILE or --name NAME") };
    let id = PodId { namespace: args.namespace.clone(), name: name.clone() };
    Ok(Manifest { pod: Pod::named(id, args.command.clone()), without_effect: Vec::new() })
}

fn list(args: &SandboxListArgs) -> Result<String> {
    let rows = sandboxes::rows(&sandbox::records(&args.place.run_dir));
    match args.output {
        Output::Json => Ok(serde_json::to_string(&rows)? + "\n"),
        Output::Table => Ok(sandboxes::text_by_hand(&rows)),
    }
}

fn exec(args: SandboxExecArgs) -> Result<ExitCode> {
    let pod = pod_id(&args.pod)?;
    let options =
        ExecOptions { run_dir: args.place.run_dir, pod, container: args.container, command: args.command };
    Ok(sandbox::exec(&options)?.into())
}

fn pod_id(text: &str) -> Result<PodId> {
    text.parse().map_err(|error| anyhow::anyhow!("{text:?} is no pod: {error}"))
}

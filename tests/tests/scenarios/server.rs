//! What the server of names does beside answering: it logs questions on demand, connection tracking does not see them,
//! and each costs few system calls.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use tests::{Background, Node, Options, Pod, until};

use crate::names::{NAME, SERVER, told};

/// How many questions of a pod were answered, of so many a second for a second.
fn answered(node: &Node, pod: &Pod, server: &str, rate: u32) -> Result<u64> {
    let rate = rate.to_string();
    let mut asking = pod.background(node, &["resolve", server, NAME, "--rate", &rate, "--seconds", "1"])?;
    let (answered, failed, _) = told(&mut asking)?;
    ensure!(failed == 0, "{failed} were not answered");
    Ok(answered)
}

#[test]
fn one_question_in_so_many_is_logged() {
    let options =
        Options { flags: ["--dns-log", "10"].map(str::to_owned).to_vec(), log: "info", ..Options::default() };
    Node::run(options, |node| {
        let pod = Pod::client(node, "t/a")?;
        let asked = answered(node, &pod, SERVER, 95)?;
        let daemon = node.daemon()?;
        let log = daemon.log();
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(" asked ")).collect();
        ensure!(lines.len() as u64 == asked.div_ceil(10), "of {asked} questions {}", lines.len());
        let client = format!("client={}:", pod.ip4()?);
        for word in [
            &client,
            "name=kubernetes.default.svc.cluster.local.",
            "type=A",
            "rcode=\"NOERROR\"",
            "transport=Udp",
        ] {
            ensure!(lines.iter().all(|line| line.contains(word)), "no {word} in {lines:?}");
        }
        Ok(())
    });
}

#[test]
fn no_question_is_logged_unasked() {
    Node::run(Options { log: "info", ..Options::default() }, |node| {
        let pod = Pod::client(node, "t/a")?;
        answered(node, &pod, SERVER, 20)?;
        let log = node.daemon()?.log();
        ensure!(!log.contains(" asked "), "{log}");
        Ok(())
    });
}

/// Rules of somebody else that make the kernel track connections, and count what reaches a server of names.
const TRACKING: &str = "table inet others {
    chain input {
        type filter hook input priority 0;
        udp dport 53 ct state untracked counter comment \"untracked\"
        udp dport 53 ct state new,established counter comment \"tracked\"
    }
}";

#[test]
fn connection_tracking_does_not_see_questions_to_this_node() {
    Node::run(Options::default(), |node| {
        let file = node.folder().join("others.nft");
        std::fs::write(&file, TRACKING)?;
        node.command(&["nft", "-f", &file.display().to_string()])?.success()?;
        let pod = Pod::client(node, "t/a")?;
        let counted = |kind: &str| -> Result<u64> {
            let listed =
                node.command(&["nft", "list", "chain", "inet", "others", "input"])?.success()?.stdout;
            let line = listed.lines().find(|line| line.contains(&format!("\"{kind}\"")));
            let words = line.and_then(|line| line.split_once("packets "));
            let number = words.and_then(|(_, rest)| rest.split(' ').next()).context(listed.clone())?;
            Ok(number.parse()?)
        };
        let mut asked = 0;
        for server in [SERVER, "169.254.20.10:53"] {
            asked += answered(node, &pod, server, 50)?;
        }
        ensure!(
            (counted("untracked")?, counted("tracked")?) == (asked, 0),
            "of {asked} questions some are tracked"
        );
        // The node's own address is for pods of other nodes, which are few: those are tracked, so the rules do count.
        let asked = answered(node, &pod, "192.0.2.10:53", 20)?;
        ensure!(counted("tracked")? == asked, "the rules count nothing");
        Ok(())
    });
}

/// The threads of the daemon that answer datagrams.
fn workers(daemon: u32) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for task in std::fs::read_dir(format!("/proc/{daemon}/task"))? {
        let task = task?.path();
        if std::fs::read_to_string(task.join("comm"))?.trim() == "dns-udp" {
            found.push(task.file_name().context("a task has a number")?.to_string_lossy().into_owned());
        }
    }
    ensure!(!found.is_empty(), "no thread answers datagrams");
    Ok(found)
}

/// The system calls of these threads while something is done, by name.
fn traced(
    node: &Node,
    threads: &[String],
    run: impl FnOnce() -> Result<()>,
) -> Result<BTreeMap<String, usize>> {
    let file = node.folder().join("calls");
    let shown = file.display().to_string();
    let mut words = vec!["strace", "-qq", "-o", &shown];
    threads.iter().for_each(|thread| words.extend(["-p", thread]));
    let tracer: Background = node.background(&words)?;
    until("every thread to be traced", || {
        for thread in threads {
            let status = std::fs::read_to_string(format!("/proc/{thread}/status"))?;
            ensure!(!status.contains("TracerPid:\t0"), "{thread} is not traced");
        }
        Ok(())
    })?;
    run()?;
    let pid = rustix::process::Pid::from_raw(i32::try_from(tracer.id())?).context("a process")?;
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    until("the tracer to end", || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", tracer.id()))?;
        ensure!(status.contains("State:\tZ"), "it runs");
        Ok(())
    })?;
    let mut calls = BTreeMap::new();
    for line in std::fs::read_to_string(file)?.lines() {
        // What waits in vain has taken no question; it looks four times a second whether it is to end.
        let idle = ["EAGAIN", "EINTR", "ERESTART", "<unfinished", "<detached"]
            .iter()
            .any(|word| line.contains(word));
        let mut words = line.split(['(', ' ']).filter(|word| !word.is_empty() && *word != "<...");
        if let Some(name) = words.find(|word| word.parse::<u32>().is_err()).filter(|_| !idle) {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    Ok(calls)
}

#[test]
fn a_question_costs_two_system_calls() {
    Node::run(Options { log: "info", ..Options::default() }, |node| {
        let pod = Pod::client(node, "t/a")?;
        let threads = workers(node.daemon()?.id())?;
        let mut asked = 0;
        let calls = traced(node, &threads, || {
            asked = usize::try_from(answered(node, &pod, SERVER, 200)?)?;
            Ok(())
        })?;
        let names: Vec<&str> = calls.keys().map(String::as_str).collect();
        ensure!(names == ["recvmmsg", "sendmmsg"], "{calls:?}");
        ensure!(calls.values().all(|count| *count <= asked), "{asked} questions cost {calls:?}");
        Ok(())
    });
}

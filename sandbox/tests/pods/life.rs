//! How pods begin and end: in order, by a signal, by accident, in the background, by name. Afterwards nothing is
//! left.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;
use sandbox::{Pod, delete};

use crate::node::{DETACH, Killed, await_that, finish, id, manifest, node, script, send};

#[test]
fn init_containers_run_in_order_before_the_others() {
    let Some(node) = node() else { return };
    let (code, text) = node.run(manifest(
        "  initContainers:\n  - {name: a, command: [echo, first]}\n  - {name: b, command: [echo, second]}\n\
         \x20 containers: [{name: c, command: [echo, third]}]\n",
    ));
    assert_eq!((code, text.as_str()), (0, "first\nsecond\nthird"));
}

#[test]
fn a_failing_init_container_ends_the_pod_with_its_name_and_code() {
    let Some(node) = node() else { return };
    let (code, text) = node.run(manifest(
        "  initContainers: [{name: migrate, command: [sh, -c, 'exit 7']}]\n  containers: [{name: c, command: [echo, never]}]\n",
    ));
    let expected = "error: pod default/web: init container migrate ended with exit code 7";
    assert_eq!((code, text.as_str()), (99, expected));
    node.assert_empty();
}

#[test]
fn init_containers_that_stay_end_after_the_others() {
    let Some(node) = node() else { return };
    let (side, side_up) = node.goodbye("side");
    let (main, main_up) = node.goodbye("main");
    let [side, main] = [side, main].map(|text| serde_json::to_string(&text).unwrap());
    let runner = node.start(manifest(&format!(
        "  initContainers: [{{name: side, restartPolicy: Always, command: [sh, -c, {side}]}}]\n\
         \x20 containers: [{{name: main, command: [sh, -c, {main}]}}]\n"
    )));
    await_that("both containers to be up", || side_up.exists() && main_up.exists());
    send(runner.id(), Signal::TERM);
    assert_eq!(finish(runner), (0, "main\nside".to_owned()));
    node.assert_empty();
}

#[test]
fn a_command_that_is_not_there_is_named() {
    let Some(node) = node() else { return };
    let (_, text) = node.run(manifest("  containers: [{name: c, command: [/no/such/thing]}]\n"));
    let expected =
        "error: pod default/web: container c: /no/such/thing: No such file or directory (os error 2)";
    assert_eq!(text, expected);
    let (_, text) = node.run(manifest("  containers: [{name: c, image: nginx}]\n"));
    let expected = "error: pod default/web: container c: it has no command: images are not pulled, \
        so there is no default one";
    assert_eq!(text, expected);
    let (_, text) = node.run(manifest("  containers: [{name: c, command: [pwd], workingDir: /no/such}]\n"));
    let expected = "error: pod default/web: container c: working directory /no/such: No such file or directory (os error 2)";
    assert_eq!(text, expected);
    node.assert_empty();
}

#[test]
fn an_interrupt_ends_the_pod_in_order_and_leaves_nothing() {
    let Some(node) = node() else { return };
    for signal in [Signal::INT, Signal::TERM] {
        let (text, up) = node.goodbye("bye");
        let runner = node.start(script(&text));
        let record = node.await_ready();
        await_that("the container to be up", || up.exists());
        fs::remove_file(up).unwrap();
        assert_eq!((record.pod, record.addresses.len(), record.terminating), (id("web"), 1, false));
        send(runner.id(), signal);
        assert_eq!(finish(runner), (0, "bye".to_owned()));
        node.assert_empty();
    }
}

#[test]
fn a_container_that_does_not_end_is_killed_after_the_grace_period() {
    let Some(node) = node() else { return };
    let runner = node.start(manifest(
        "  terminationGracePeriodSeconds: 0\n  containers: [{name: c, command: [sh, -c, 'trap \"\" TERM; sleep 60']}]\n",
    ));
    node.await_ready();
    send(runner.id(), Signal::TERM);
    assert_eq!(finish(runner).0, 0);
    node.assert_empty();
}

#[test]
fn a_killed_runner_takes_the_pod_with_it() {
    let Some(node) = node() else { return };
    let mut runner = node.start(script("sleep 60 & wait"));
    let record = node.await_ready();
    send(runner.id(), Signal::KILL);
    runner.wait().unwrap();
    await_that("the pause process to die", || !Path::new(&format!("/proc/{}", record.pause)).exists());
    assert_eq!(node.pods(), [], "its record is void");
    let run_dir = node.folder.path();
    node.namespace.enter(|| delete(run_dir, &id("web"))).unwrap().unwrap();
    node.assert_empty();
}

#[test]
fn the_next_run_of_a_name_removes_what_a_killed_runner_left() {
    let Some(node) = node() else { return };
    let mut runner = node.start(script("sleep 60 & wait"));
    node.await_ready();
    send(runner.id(), Signal::KILL);
    runner.wait().unwrap();
    assert_eq!(node.run(script("echo again")), (0, "again".to_owned()));
    node.assert_empty();
}

#[test]
fn a_pod_that_lost_its_pause_process_ends() {
    let Some(node) = node() else { return };
    let runner = node.start(script("sleep 60"));
    send(node.await_ready().pause, Signal::KILL);
    assert_eq!(finish(runner), (99, "error: pod default/web: its pause process is gone".to_owned()));
    node.assert_empty();
}

#[test]
fn a_name_runs_once() {
    let Some(node) = node() else { return };
    let _runner = Killed(node.start(script("sleep 60")));
    node.await_ready();
    assert_eq!(node.run(script("echo no")), (99, "error: pod default/web runs already".to_owned()));
    assert_eq!(node.pods().len(), 1, "the first lives on");
}

#[test]
fn a_pod_that_is_deleted_ends_in_order() {
    let Some(node) = node() else { return };
    let (text, up) = node.goodbye("bye");
    let runner = node.start(script(&text));
    node.await_ready();
    await_that("the container to be up", || up.exists());
    let run_dir = node.folder.path();
    node.namespace.enter(|| delete(run_dir, &id("web"))).unwrap().unwrap();
    assert_eq!(finish(runner), (0, "bye".to_owned()));
    node.assert_empty();
    let error = delete(run_dir, &id("web")).unwrap_err();
    assert_eq!(error.to_string(), "there is no pod default/web on this node");
}

#[test]
fn a_detached_pod_is_up_when_the_command_returns() {
    let Some(node) = node() else { return };
    let command = |text: &str| {
        let mut command = node.job(Some(script(text)), Vec::new());
        // The harness' own output stays with the process that goes on.
        command.env(DETACH, "1").stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().code()
    };
    assert_eq!(command("echo hello; sleep 60"), Some(0));
    assert!(node.pods()[0].ready, "no waiting");
    let log = node.folder.path().join("pods/default_web/log");
    await_that("its output", || fs::read_to_string(&log).is_ok_and(|text| text.contains("hello")));
    let run_dir = node.folder.path();
    node.namespace.enter(|| delete(run_dir, &id("web"))).unwrap().unwrap();
    node.assert_empty();
    let mut failing =
        node.job(Some(manifest("  containers: [{name: c, command: [/no/such]}]\n")), Vec::new());
    failing.env(DETACH, "1").stdout(Stdio::null()).stderr(Stdio::null());
    assert_eq!(failing.status().unwrap().code(), Some(99));
}

#[test]
fn a_named_pod_without_a_command_has_no_containers() {
    let pod = Pod::named(id("web"), Vec::new());
    assert!(pod.work.containers.is_empty());
    let pod = Pod::named(id("web"), vec!["true".into()]);
    assert_eq!(pod.work.containers[0].command, ["true"]);
}

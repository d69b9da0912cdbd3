//! `fairway top` in a terminal, beside a daemon that hangs. What it draws of one that answers is a scenario of the
//! package `tests`; here nothing needs root.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on must fail")]

use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The next question of a program that runs.
fn accept(listener: &UnixListener, program: &mut Child) -> UnixStream {
    loop {
        match listener.accept() {
            Ok((stream, _)) => return stream,
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        assert_eq!(program.try_wait().unwrap(), None, "it asks no more");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_daemon_that_hangs_does_not_keep_the_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("admin.sock")).unwrap();
    listener.set_nonblocking(true).unwrap();
    let screen = folder.path().join("screen");
    let line = format!("exec {} top --run-dir {}", env!("CARGO_BIN_EXE_fairway"), folder.path().display());
    let mut terminal = Command::new("script")
        .args(["--flush", "--return", "--command", &line])
        .arg(&screen)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    for _ in 0..2 {
        let mut stream = accept(&listener, &mut terminal);
        BufReader::new(&stream).lines().map(Result::unwrap).find(String::is_empty).unwrap();
        stream.write_all(b"HTTP/1.0 200 OK\r\n\r\n[]").unwrap();
    }
    // Somebody listens, and nobody answers.
    let _asked = accept(&listener, &mut terminal);
    terminal.stdin.as_mut().unwrap().write_all(b"\x03").unwrap();
    let status = terminal.wait().unwrap();
    let drawn = std::fs::read_to_string(&screen).unwrap();
    assert!(status.success(), "{status}: {drawn}");
    assert!(drawn.contains("0 services in use") && drawn.contains("\x1b[?1049l"), "{drawn}");
}

//! `fairway top` of a daemon that serves: as JSON, as a table into a pipe, and drawn in a terminal, which it gives
//! back. Beside a daemon that hangs it is tested in the package of the daemon.

use anyhow::{Context, Result, ensure};
use tests::{Kind, Node, Options, until};

use crate::balancing::settled;
use crate::termination::{VIP, manifest};
use crate::yaml::service;

#[test]
fn top_shows_what_is_open_and_gives_the_terminal_back() {
    Node::run(Options::default(), |node| {
        node.serve("a", &["198.18.0.1"], &[(Kind::Tcp, 53), (Kind::Udp, 53)])?;
        node.write("dns.yaml", &manifest("198.18.0.1"))?;
        settled(node, Kind::Udp, VIP, &["a"])?;
        node.write("none.yaml", &service("none", "10.96.1.2", "{port: 80}", ""))?;
        settled_refusal(node, "10.96.1.2:80")?;
        let _flows = [node.flow(&["keep", "--udp", VIP])?, node.flow(&["keep", "--udp", VIP])?];

        let sample: serde_json::Value =
            serde_json::from_str(&node.fairway(&["top", "-o", "json"])?.success()?.stdout)?;
        let row = |name: &str| {
            let mut rows = sample.as_array().into_iter().flatten();
            rows.find(|row| row["service"] == name).with_context(|| format!("{name} in {sample}"))
        };
        ensure!(row("dns")?["open"] == 2 && row("dns")?["backends"][0]["open"] == 2, "{sample}");
        ensure!(row("none")?["failed"].as_u64() >= Some(1), "{sample}");
        let table = node.fairway(&["top"])?.success()?.stdout;
        ensure!(table.contains("t/dns") && !table.contains('\u{1b}'), "{table}");

        // In a terminal, until Ctrl-C.
        let (screen, place) = (node.folder().join("screen"), node.place_flags().join(" "));
        let line = format!("exec {} top {place}", node.program().display());
        let words = ["script", "--flush", "--return", "--command", &line, &screen.display().to_string()];
        let mut terminal = node.start(&words)?;
        until("a drawing", || {
            let drawn = std::fs::read_to_string(&screen)?;
            ensure!(drawn.contains("\u{1b}[?1049h") && drawn.contains("t/dns"), "{drawn}");
            Ok(())
        })?;
        terminal.write_line("\u{3}")?;
        while terminal.read_line().is_ok() {}
        let drawn = std::fs::read_to_string(&screen)?;
        let end = drawn.rsplit("\u{1b}[?25h\u{1b}[?1049l").next().unwrap_or_default();
        ensure!(end.len() < drawn.len() && !end.contains("SERVICE"), "the screen was given back: {end}");
        ensure!(end.contains("COMMAND_EXIT_CODE=\"0\""), "{end}");
        Ok(())
    });
}

/// Waits until a service that has no endpoint refuses.
fn settled_refusal(node: &Node, target: &str) -> Result<()> {
    until("the service to refuse", || {
        node.ask(Kind::Tcp, target, &["--timeout", "200"])?.only_error("ECONNREFUSED")
    })
}

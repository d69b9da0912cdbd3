//! `cargo xtask demo`: a node from a folder of manifests, real pods, `curl` and `dig` inside them, and a table of
//! what came back. Exit 0 only if every line is right and nothing is left behind, also after Ctrl-C.
//!
//! The node is a network namespace, a cgroup and directories of its own: this machine's network stays as it is.

mod expect;
mod table;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tests::{NODE4, Node, OUTSIDE4, Options, Pod, ROUTER4, until};

use crate::{say, setup, workspace};
use expect::Expect;
use table::Table;

const WEBS: &[&str] = &["web-1", "web-2", "web-3"];
const PODS: &[&str] = &["web-1", "web-2", "web-3", "db-0", "db-1", "cart"];
/// Enough that each of three backends is hit: one is missed by all once in 60,000 demos.
const MANY: &str = "[1-30]";

/// What a shell says of a command that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Runs the demo.
pub(crate) fn run() -> Result<ExitCode> {
    let stopped = catch_signals()?;
    let ready = setup::ensure().and_then(|_| build());
    if stopped.load(Ordering::Relaxed) {
        say::line("interrupted before anything was made");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    ready?;
    let started = Instant::now();
    let node = Node::create(options()?);
    if stopped.load(Ordering::Relaxed) {
        say::line("interrupted while the node was made; what was made is gone");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    let node = node?;
    let name = node.name().to_owned();
    let mut demo = Demo { node, pods: Vec::new(), table: Table::default(), stopped };
    let played = demo.play();
    let (right, wrong) = (demo.table.right, demo.table.wrong);
    let interrupted = demo.stopped.load(Ordering::Relaxed);
    let log = demo.node.daemon.as_ref().map(tests::Daemon::log_tail).unwrap_or_default();
    drop(demo);

    let traces = Node::traces(&name);
    say::line(format!("\n{right} lines right, {wrong} wrong, {} s", started.elapsed().as_secs()));
    if traces.is_empty() {
        say::line(
            "left behind: nothing (namespaces, cgroup, pins, mounts, directories and processes are gone)",
        );
    } else {
        say::line(format!("left behind: {}", traces.join(", ")));
    }
    if interrupted {
        say::line("interrupted");
        return Ok(ExitCode::from(INTERRUPTED));
    }
    if wrong > 0 || played.is_err() {
        say::line(format!("\nthe daemon's log ends:\n{log}"));
    }
    played?;
    Ok(if wrong == 0 && traces.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Ctrl-C ends the running command, which comes from the same terminal; the flag tells why.
fn catch_signals() -> Result<Arc<AtomicBool>> {
    let stopped = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&stopped)).context("cannot catch Ctrl-C")?;
    }
    Ok(stopped)
}

fn build() -> Result<()> {
    say::line("building fairway (the first time takes minutes)");
    let status = workspace::cargo()
        .args(["build", "--quiet", "--package", "fairway", "--package", "tests", "--bins"])
        .status()
        .context("cannot start cargo")?;
    if !status.success() {
        bail!("`cargo build` failed");
    }
    Ok(())
}

fn options() -> Result<Options> {
    let folder = folder("cluster");
    let mut manifests = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let entry = entry?;
        manifests
            .push((entry.file_name().to_string_lossy().into_owned(), std::fs::read_to_string(entry.path())?));
    }
    Ok(Options { manifests, ..Options::default() })
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo").join(name)
}

struct Demo {
    node: Node,
    pods: Vec<Pod>,
    table: Table,
    stopped: Arc<AtomicBool>,
}

impl Demo {
    fn play(&mut self) -> Result<()> {
        self.start()?;
        self.services()?;
        self.names()?;
        self.removal()
    }

    fn start(&mut self) -> Result<()> {
        let begun = Instant::now();
        let upstream = format!("{ROUTER4}:53");
        self.node.serve_outside(&["upstream", &upstream])?;
        let (web, legacy) = (format!("{OUTSIDE4}:80"), format!("{OUTSIDE4}:8000"));
        self.node.serve_outside(&["serve", "--name", "api.example.com", "--tcp", &web])?;
        self.node.serve_outside(&["serve", "--name", "legacy-box", "--tcp", &legacy])?;
        self.node.start_daemon()?;
        let millis = begun.elapsed().as_millis();
        say::line(format!(
            "node {}: fairway run --manifests xtask/demo/cluster, ready in {millis} ms",
            self.node.name()
        ));
        for name in PODS {
            self.go_on()?;
            let begun = Instant::now();
            let text = std::fs::read_to_string(folder("pods").join(format!("{name}.yaml")))?;
            let text = text.replace("PROBE", &self.node.probe().display().to_string());
            let pod = Pod::run(&self.node, &format!("shop/{name}"), &text)?;
            let (address, millis) = (pod.ip4()?, begun.elapsed().as_millis());
            say::line(format!("pod {name:6} {address:14} fairway sandbox run -f {name}.yaml ({millis} ms)"));
            self.pods.push(pod);
        }
        // A pod is an endpoint as soon as the daemon has seen it run.
        let wanted = self.addresses(&["db-0", "db-1"])?;
        until("the last pods to be endpoints", || {
            let came = self.come_back("cart", &["dig", "+short", "+search", "db"])?;
            Expect::Lines(wanted.clone()).judge(&came).map_err(anyhow::Error::msg)
        })?;
        Ok(())
    }

    fn services(&mut self) -> Result<()> {
        self.table.head("Services, balanced in the kernel");
        let many = |host: &str| format!("http://{host}/{MANY}");
        self.curl("cart", "http://web", &Expect::OneOf(WEBS))?;
        self.curl("cart", &many("web"), &Expect::From(WEBS))?;
        self.curl("cart", "http://web.shop:90", &Expect::OneOf(WEBS))?;
        self.curl("cart", &many("sticky"), &Expect::OneOf(WEBS))?;
        self.curl("cart", &many(&format!("{NODE4}:30080")), &Expect::From(WEBS))?;
        self.curl("node", &many(&format!("{NODE4}:30080")), &Expect::From(WEBS))?;
        self.curl("node", &many("127.0.0.1:30080"), &Expect::From(WEBS))?;
        self.curl("web-1", &many("web"), &Expect::From(WEBS))?;
        self.curl("cart", "http://db-1.db:5432", &Expect::OneOf(&["db-1"]))?;
        self.curl("cart", "http://legacy", &Expect::OneOf(&["legacy-box"]))?;
        self.curl("cart", "http://partner", &Expect::OneOf(&["api.example.com"]))
    }

    fn names(&mut self) -> Result<()> {
        self.table.head("Names, from the same picture of the cluster");
        let web = self.come_back("cart", &["dig", "+short", "web.shop.svc.cluster.local"])?.trim().to_owned();
        let is_web = || Expect::Lines(vec![web.clone()]);
        self.dig("+short +search web", &Expect::Prefix("10.96."))?;
        self.dig("+short web.shop.svc", &is_web())?;
        self.dig("+short web.shop.svc.cluster.local", &is_web())?;
        self.dig("+short AAAA web.shop.svc.cluster.local", &Expect::Lines(Vec::new()))?;
        let target = "web.shop.svc.cluster.local.";
        self.dig("+short +search SRV _http._tcp.web", &Expect::Lines(vec![format!("0 100 80 {target}")]))?;
        self.dig(&format!("+short -x {web}"), &Expect::Lines(vec![target.to_owned()]))?;
        let both = self.addresses(&["db-0", "db-1"])?;
        self.dig("+short +search db", &Expect::Lines(both))?;
        let one = self.addresses(&["db-0"])?;
        self.dig("+short +search db-0.db", &Expect::Lines(one.clone()))?;
        let name = |n| format!("0 50 5432 db-{n}.db.shop.svc.cluster.local.");
        self.dig("+short +search SRV _sql._tcp.db", &Expect::Lines(vec![name(0), name(1)]))?;
        let pointer = one.first().map(|ip| format!("+short -x {ip}")).context("db-0 has an address")?;
        self.dig(&pointer, &Expect::Lines(vec!["db-0.db.shop.svc.cluster.local.".to_owned()]))?;
        self.dig("+short +search CNAME partner", &Expect::Lines(vec!["api.example.com.".to_owned()]))?;
        self.dig("+short api.example.com", &Expect::Lines(vec![OUTSIDE4.to_owned()]))?;
        self.dig("+noall +comments no.shop.svc.cluster.local", &Expect::Status("NXDOMAIN"))?;
        self.dig("+noall +comments MX web.shop.svc.cluster.local", &Expect::Status("NOERROR"))?;
        self.dig("+short TXT dns-version.cluster.local", &Expect::Lines(vec!["\"1.1.0\"".to_owned()]))
    }

    fn removal(&mut self) -> Result<()> {
        self.table.head("A backend is removed: fairway sandbox delete shop/web-2");
        let pod = self.pod("web-2")?.clone();
        let begun = Instant::now();
        pod.delete(&self.node)?;
        let url = format!("http://web/{MANY}");
        until("traffic to move", || {
            let came = self.come_back("cart", &["curl", "-sS", "--max-time", "5", &url])?;
            Expect::From(&["web-1", "web-3"]).judge(&came).map_err(anyhow::Error::msg)
        })?;
        say::line(format!("  deleted, and traffic moved, within {} ms", begun.elapsed().as_millis()));
        let left: &[&str] = &["web-1", "web-3"];
        self.curl("cart", &url, &Expect::From(left))?;
        self.curl("cart", &format!("http://{NODE4}:30080/{MANY}"), &Expect::From(left))?;
        self.curl("cart", &format!("http://sticky/{MANY}"), &Expect::OneOf(left))?;
        self.dig("+short +search web", &Expect::Prefix("10.96."))
    }

    fn curl(&mut self, from: &str, url: &str, expect: &Expect) -> Result<()> {
        self.row(from, &["curl", "-sS", "--max-time", "5", url], &format!("curl {url}"), expect)
    }

    fn dig(&mut self, question: &str, expect: &Expect) -> Result<()> {
        let words: Vec<&str> = ["dig", "+tries=1"].into_iter().chain(question.split(' ')).collect();
        self.row("cart", &words, &format!("dig {question}"), expect)
    }

    fn row(&mut self, from: &str, words: &[&str], shown: &str, expect: &Expect) -> Result<()> {
        self.go_on()?;
        let came = self.come_back(from, words);
        // A command that Ctrl-C ended says nothing about Fairway.
        self.go_on()?;
        let judged = came
            .map_err(|error| format!("{error:#}").replace('\n', " "))
            .and_then(|text| expect.judge(&text));
        self.table.row(from, shown, &judged);
        Ok(())
    }

    /// Runs a command in a pod or on the node; what it printed.
    fn come_back(&self, from: &str, words: &[&str]) -> Result<String> {
        let finished = if from == "node" {
            self.node.command(words)?
        } else {
            self.pod(from)?.exec(&self.node, words)?
        };
        Ok(finished.success()?.stdout)
    }

    fn pod(&self, name: &str) -> Result<&Pod> {
        let full = format!("shop/{name}");
        self.pods.iter().find(|pod| pod.name == full).with_context(|| format!("no pod {name}"))
    }

    fn addresses(&self, names: &[&str]) -> Result<Vec<String>> {
        names.iter().map(|name| Ok(self.pod(name)?.ip4()?.to_string())).collect()
    }

    fn go_on(&self) -> Result<()> {
        if self.stopped.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }
}

//! The manifest source with real files and real processes: whatever happens to the folder, the snapshot
//! follows. Conditions are awaited; nothing sleeps.

use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;

use fairway::source::{Connection, Part, Reports, SourceConfig, manifests, run};
use model::{Node, ObjectName, Snapshot};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::listener::Listener;

/// A folder and a source that reads it.
struct Bench {
    root: tempfile::TempDir,
    source: Listener,
}

impl Bench {
    /// Starts on a folder with these files.
    fn start(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let config = config(root.path());
        fs::create_dir(&config.folder).unwrap();
        for (name, text) in files {
            fs::write(config.folder.join(name), text).unwrap();
        }
        Self { root, source: Listener::start(SourceConfig::Manifests(config)) }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join("manifests").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    async fn until_port(&mut self, name: &str, port: u16) -> Arc<Snapshot> {
        let what = format!("{name} with port {port}");
        self.source.until(&what, |snapshot| port_of(snapshot, name) == Some(port)).await
    }

    /// Waits until everything that was done before this call has been seen.
    async fn settle(&mut self) -> Arc<Snapshot> {
        let port = 10_000 + u16::try_from(self.source.log.len()).unwrap();
        self.write("zz-mark.yaml", &service("mark", port));
        self.until_port("mark", port).await
    }
}

/// The source's configuration, with everything below `root`.
fn config(root: &Path) -> manifests::Config {
    let node = Node { name: "a".into(), zone: None, addresses: vec![], pod_cidrs: vec![], leaving: false };
    let service_cidrs = vec!["10.96.0.0/16".parse().unwrap()];
    manifests::Config {
        folder: root.join("manifests"),
        run_dir: root.join("run"),
        cluster: manifests::Cluster { service_cidrs, cluster_dns: None, node },
    }
}

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: shop}}\n\
         spec: {{selector: {{app: {name}}}, ports: [{{port: {port}}}]}}\n"
    )
}

fn port_of(snapshot: &Snapshot, name: &str) -> Option<u16> {
    let member = snapshot.services.get(&ObjectName::new("shop", name))?;
    member.service.ports.first().map(|port| port.port)
}

fn endpoints_of(snapshot: &Snapshot, name: &str) -> Vec<String> {
    let member = snapshot.services.get(&ObjectName::new("shop", name));
    member
        .iter()
        .flat_map(|member| member.all_endpoints())
        .map(|endpoint| endpoint.address.to_string())
        .collect()
}

#[tokio::test]
async fn the_first_events_are_complete_lists() {
    let mut bench = Bench::start(&[("web.yaml", &service("web", 80))]);
    let snapshot = bench
        .source
        .until("all lists", |snapshot| model::Kind::ALL.iter().all(|kind| snapshot.listed.contains(*kind)))
        .await;
    assert_eq!(port_of(&snapshot, "web"), Some(80));
    assert!(bench.source.log.iter().all(|event| event.starts_with("Replace")), "{:?}", bench.source.log);
    assert_eq!(*bench.source.reports.connection().borrow(), Connection::Connected);
    bench.source.cancel.cancel();
    let ended = (&mut bench.source.task).await.unwrap();
    assert!(ended.is_ok());
}

#[tokio::test]
async fn a_changed_file_is_a_changed_object_and_a_removed_file_a_removed_one() {
    let mut bench = Bench::start(&[("web.yaml", &service("web", 80))]);
    bench.until_port("web", 80).await;
    bench.write("web.yaml", &service("web", 81));
    bench.until_port("web", 81).await;
    bench.write("db.yml", &service("db", 5432));
    bench.until_port("db", 5432).await;
    fs::rename(bench.path("db.yml"), bench.path("db.yaml.old")).unwrap();
    bench.source.until("the renamed file's end", |snapshot| port_of(snapshot, "db").is_none()).await;
    fs::remove_file(bench.path("web.yaml")).unwrap();
    bench.source.until("the removed file's end", |snapshot| port_of(snapshot, "web").is_none()).await;
    assert_eq!(bench.source.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_file_is_not_read_before_its_writer_has_closed_it() {
    let mut bench = Bench::start(&[("web.yaml", &service("web", 80))]);
    bench.until_port("web", 80).await;
    let text = service("web", 81);
    let (half, rest) = text.split_at(text.len() / 2);
    let mut file = fs::File::create(bench.path("web.yaml")).unwrap();
    file.write_all(half.as_bytes()).unwrap();
    let snapshot = bench.settle().await;
    assert_eq!(port_of(&snapshot, "web"), Some(80));
    assert_eq!(bench.source.problems(), Vec::<String>::new());
    file.write_all(rest.as_bytes()).unwrap();
    drop(file);
    bench.until_port("web", 81).await;
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_is_reported_until_it_is_whole() {
    let mut bench = Bench::start(&[("web.yaml", &service("web", 80))]);
    bench.until_port("web", 80).await;
    bench.write("web.yaml", "apiVersion: v1\nkind: {Service\n");
    let snapshot = bench.settle().await;
    assert_eq!(port_of(&snapshot, "web"), Some(80));
    let problems = bench.source.problems();
    assert!(problems.len() == 1 && problems[0].starts_with("web.yaml, document 1, line"), "{problems:?}");
    fs::write(bench.path("web.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    bench.settle().await;
    assert_eq!(bench.source.problems(), ["web.yaml: is not text in UTF-8"]);
    bench.write("web.yaml", &service("web", 82));
    bench.until_port("web", 82).await;
    assert_eq!(bench.source.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn an_editor_that_moves_files_into_place_never_makes_an_object_vanish() {
    let mut bench = Bench::start(&[("web.yaml", &service("web", 80))]);
    bench.until_port("web", 80).await;
    for port in 81..91 {
        bench.write(".web.yaml.swp", &service("web", port));
        fs::rename(bench.path(".web.yaml.swp"), bench.path("web.yaml")).unwrap();
        bench.until_port("web", port).await;
    }
    assert!(!bench.source.log.iter().any(|event| event.starts_with("Delete")), "{:?}", bench.source.log);
}

#[tokio::test]
async fn links_count_as_soon_as_they_are_made() {
    let mut bench = Bench::start(&[]);
    fs::create_dir(bench.path("store")).unwrap();
    fs::write(bench.path("store/one"), service("one", 80)).unwrap();
    fs::write(bench.path("store/two"), service("two", 80)).unwrap();
    symlink("store/one", bench.path("one.yaml")).unwrap();
    bench.until_port("one", 80).await;
    fs::hard_link(bench.path("store/two"), bench.path("two.yaml")).unwrap();
    bench.until_port("two", 80).await;
}

#[tokio::test]
async fn a_config_map_volume_changes_all_of_its_files_at_once() {
    let mut bench = Bench::start(&[]);
    for (version, port) in [("..v1", 80), ("..v2", 81)] {
        fs::create_dir(bench.path(version)).unwrap();
        fs::write(bench.path(version).join("web.yaml"), service("web", port)).unwrap();
    }
    symlink("..v1", bench.path("..data")).unwrap();
    symlink("..data/web.yaml", bench.path("web.yaml")).unwrap();
    bench.until_port("web", 80).await;
    symlink("..v2", bench.path("..data_tmp")).unwrap();
    fs::rename(bench.path("..data_tmp"), bench.path("..data")).unwrap();
    bench.until_port("web", 81).await;
}

#[tokio::test]
async fn a_folder_that_is_replaced_is_followed() {
    let mut bench = Bench::start(&[("web.yaml", &service("web", 80)), ("db.yaml", &service("db", 5432))]);
    bench.until_port("web", 80).await;
    let root = bench.root.path().to_owned();
    fs::create_dir(root.join("next")).unwrap();
    fs::write(root.join("next/web.yaml"), service("web", 81)).unwrap();
    fs::rename(root.join("manifests"), root.join("before")).unwrap();
    fs::rename(root.join("next"), root.join("manifests")).unwrap();
    bench.until_port("web", 81).await;
    bench
        .source
        .until("the end of what the new folder lacks", |snapshot| port_of(snapshot, "db").is_none())
        .await;
    // The old folder is no longer looked at, the new one is.
    fs::write(root.join("before/db.yaml"), service("db", 1)).unwrap();
    bench.write("db.yaml", &service("db", 2));
    bench.until_port("db", 2).await;
    assert_eq!(bench.source.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn a_folder_that_is_gone_changes_nothing_until_it_is_back() {
    let mut bench = Bench::start(&[("web.yaml", &service("web", 80))]);
    bench.until_port("web", 80).await;
    let root = bench.root.path().to_owned();
    fs::rename(root.join("manifests"), root.join("away")).unwrap();
    // A sandbox's directory makes an event of its own, by which the loss has been seen.
    let mut pause = Pause::start();
    pause.record(&bench, "web-1", "web", "10.1.0.2");
    let snapshot =
        bench.source.until("the endpoint", |snapshot| endpoints_of(snapshot, "web") == ["10.1.0.2"]).await;
    assert_eq!(port_of(&snapshot, "web"), Some(80));
    let problems = bench.source.problems();
    assert!(problems.len() == 1 && problems[0].contains("what it said last stays"), "{problems:?}");
    fs::create_dir(root.join("manifests")).unwrap();
    bench.write("web.yaml", &service("web", 82));
    bench.until_port("web", 82).await;
    assert_eq!(bench.source.problems(), Vec::<String>::new());
}

/// A process that stands for a pause process, with its record.
struct Pause {
    child: Child,
}

impl Pause {
    fn start() -> Self {
        Self { child: Command::new("sleep").arg("1000").spawn().unwrap() }
    }

    fn record(&mut self, bench: &Bench, pod: &str, app: &str, address: &str) {
        let directory = bench.root.path().join("run/pods").join(format!("shop_{pod}"));
        fs::create_dir_all(&directory).unwrap();
        let record = serde_json::json!({
            "pod": {"namespace": "shop", "name": pod}, "labels": {"app": app}, "addresses": [address],
            "ports": [], "hostname": null, "subdomain": null, "hostNetwork": false,
            "ready": true, "terminating": false, "pause": self.child.id(),
        });
        fs::write(directory.join("pod.json.new"), record.to_string()).unwrap();
        fs::rename(directory.join("pod.json.new"), directory.join("pod.json")).unwrap();
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn a_killed_sandbox_leaves_the_endpoints_at_once() {
    let mut bench = Bench::start(&[("web.yaml", &service("web", 80))]);
    bench.until_port("web", 80).await;
    let (mut one, mut two) = (Pause::start(), Pause::start());
    one.record(&bench, "web-1", "web", "10.1.0.2");
    two.record(&bench, "web-2", "web", "10.1.0.3");
    let both = |snapshot: &Snapshot| {
        endpoints_of(snapshot, "web") == ["10.1.0.2", "10.1.0.3"] && snapshot.pods.len() == 2
    };
    bench.source.until("both endpoints and pods", both).await;
    // Not waited for: a zombie counts as gone.
    one.child.kill().unwrap();
    bench.source.until("one endpoint", |snapshot| endpoints_of(snapshot, "web") == ["10.1.0.3"]).await;
    // A record whose process is gone stays void when records are read again.
    two.record(&bench, "web-2", "web", "10.1.0.4");
    let moved =
        |snapshot: &Snapshot| endpoints_of(snapshot, "web") == ["10.1.0.4"] && snapshot.pods.len() == 1;
    bench.source.until("the new address", moved).await;
    fs::remove_dir_all(bench.root.path().join("run/pods/shop_web-2")).unwrap();
    bench.source.until("no endpoint", |snapshot| endpoints_of(snapshot, "web").is_empty()).await;
}

#[tokio::test]
async fn what_a_killed_runner_left_behind_is_void() {
    let mut bench = Bench::start(&[("web.yaml", &service("web", 80))]);
    bench.until_port("web", 80).await;
    // The process number belongs to somebody else by now: nobody holds the lock.
    let (mut reused, mut alive) = (Pause::start(), Pause::start());
    let directory = bench.root.path().join("run/pods/shop_web-1");
    fs::create_dir_all(&directory).unwrap();
    fs::write(directory.join("lock"), "").unwrap();
    reused.record(&bench, "web-1", "web", "10.1.0.2");
    alive.record(&bench, "web-2", "web", "10.1.0.3");
    bench.source.until("the living one", |snapshot| endpoints_of(snapshot, "web") == ["10.1.0.3"]).await;
    assert!(!bench.source.log.iter().any(|event| event.contains("10.1.0.2")), "{:?}", bench.source.log);
}

#[tokio::test]
async fn a_record_that_is_half_written_stays_as_it_was() {
    let mut bench = Bench::start(&[("web.yaml", &service("web", 80))]);
    let mut pause = Pause::start();
    pause.record(&bench, "web-1", "web", "10.1.0.2");
    bench.source.until("the endpoint", |snapshot| endpoints_of(snapshot, "web") == ["10.1.0.2"]).await;
    fs::write(bench.root.path().join("run/pods/shop_web-1/pod.json"), "{\"pod\": ").unwrap();
    let snapshot = bench.settle().await;
    assert_eq!(endpoints_of(&snapshot, "web"), ["10.1.0.2"]);
    assert!(
        bench.source.problems().iter().any(|problem| problem.contains("pod.json")),
        "{:?}",
        bench.source.problems()
    );
    pause.record(&bench, "web-1", "web", "10.1.0.9");
    bench.source.until("the new address", |snapshot| endpoints_of(snapshot, "web") == ["10.1.0.9"]).await;
}

#[tokio::test]
async fn a_folder_that_is_not_there_at_the_start_is_an_error() {
    let bench = Bench::start(&[]);
    let config = manifests::Config { folder: bench.path("none"), ..config(bench.root.path()) };
    let (sender, _events) = mpsc::channel(1);
    let error = run(SourceConfig::Manifests(config), sender, Reports::new(), CancellationToken::new()).await;
    let text = error.unwrap_err().to_string();
    assert!(
        text.starts_with("cannot read the folder of manifests") && text.ends_with("(os error 2)"),
        "{text}"
    );
}

#[test]
fn a_problem_is_counted_once_for_as_long_as_it_stands() {
    use fairway::source::{Problem, Reason};
    let reports = Reports::new();
    let mut registry = prometheus_client::registry::Registry::default();
    reports.register(&mut registry);
    let problem = || Problem::new(Reason::Syntax, "a.yaml: broken");
    reports.replace(Part::Manifests, vec![problem()]);
    reports.replace(Part::Manifests, vec![problem(), Problem::new(Reason::Conflict, "b.yaml: twice")]);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("source_problems_total{reason=\"Syntax\"} 1"), "{text}");
    assert!(text.contains("source_problems_open 2"), "{text}");
    reports.replace(Part::Manifests, vec![]);
    assert_eq!(reports.list(), []);

    // More than can be kept are not told again and again either.
    let many = || (0..1_100).map(|n| Problem::new(Reason::BadObject, format!("object {n}"))).collect();
    for _ in 0..3 {
        reports.replace(Part::Manifests, many());
    }
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    assert!(text.contains("source_problems_total{reason=\"BadObject\"} 1000"), "{text}");
}

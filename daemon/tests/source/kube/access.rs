//! How the server is found: the option before the kubeconfig, and the kubeconfig before nothing. Where one of them
//! is of no use, that is one sentence.

use std::path::PathBuf;

use fairway::source::{Reports, SourceConfig, kube, run};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Bench, config, small_server, web};

/// Why the source does not even start.
async fn refusal(config: kube::Config) -> String {
    let (sender, _events) = mpsc::channel(1);
    let result = run(SourceConfig::Kube(config), sender, Reports::new(), CancellationToken::new()).await;
    result.unwrap_err().to_string()
}

#[tokio::test]
async fn the_option_says_better_than_the_kubeconfig_where_the_server_is() {
    let server = small_server().await;
    let url = format!("http://{}", server.address());
    let nowhere = server.kubeconfig().replace(&url, "http://127.0.0.1:1");
    let mut bench = Bench::reach(server, &nowhere, |config| config.api_server = Some(url));
    bench.source.until("the service", |snapshot| web(snapshot, 80)).await;
}

#[tokio::test]
async fn a_url_that_is_none_is_one_sentence() {
    for url in ["192.0.2.1:6443", "https://[::"] {
        let server = small_server().await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        std::fs::write(&path, server.kubeconfig()).unwrap();
        let text = refusal(kube::Config { api_server: Some(url.to_owned()), ..config(path) }).await;
        assert_eq!(text, format!("--api-server {url:?} is not a URL such as https://192.0.2.1:6443"));
    }
}

#[tokio::test]
async fn a_kubeconfig_that_cannot_be_used_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken");
    std::fs::write(&broken, "clusters: 5\n").unwrap();
    let none: PathBuf = folder.path().join("none");
    for (path, end) in [(none, "No such file or directory (os error 2)"), (broken, "")] {
        let text = refusal(config(path.clone())).await;
        assert!(text.starts_with(&format!("cannot use the kubeconfig {}: ", path.display())), "{text}");
        assert!(text.ends_with(end) && !text.contains('\n'), "{text}");
    }
}

#[tokio::test]
async fn a_token_file_may_end_with_a_newline() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "se.cr.et\n").unwrap();
    let server = small_server().await;
    server.demand_token("se.cr.et");
    let kubeconfig =
        server.kubeconfig().replace("user: {}", &format!("user: {{tokenFile: {}}}", file.display()));
    let mut bench = Bench::reach(server, &kubeconfig, |_| {});
    bench.source.until("the service", |snapshot| web(snapshot, 80)).await;
}

#[tokio::test]
async fn a_token_file_that_cannot_be_used_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let (none, empty) = (folder.path().join("none"), folder.path().join("empty"));
    std::fs::write(&empty, "\n").unwrap();
    for (file, end) in [(none, "No such file or directory (os error 2)"), (empty, "there is no token in it")]
    {
        let server = small_server().await;
        let path = folder.path().join("config");
        let user = format!("user: {{tokenFile: {}}}", file.display());
        std::fs::write(&path, server.kubeconfig().replace("user: {}", &user)).unwrap();
        let text = refusal(config(path)).await;
        assert_eq!(text, format!("cannot use the token file {}: {end}", file.display()));
    }
}

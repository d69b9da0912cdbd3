//! The client of the API server: where the server is and who asks, from the options, the kubeconfig or the service
//! account. Called once, when the source starts.

use std::path::{Path, PathBuf};
use std::time::Instant;

use ::kube::Client;
use ::kube::client::ClientBuilder;
use ::kube::config::{KubeConfigOptions, Kubeconfig};

use super::token::Token;
use super::{Config, Error};

/// A client that has asked nobody yet.
pub(super) async fn client(config: &Config) -> Result<Client, Error> {
    let mut access = access(config.kubeconfig.as_deref()).await?;
    if let Some(url) = &config.api_server {
        let refused = || Error::ApiServer(url.clone());
        access.cluster_url = url.parse().map_err(|_| refused())?;
        if access.cluster_url.scheme().is_none() {
            return Err(refused());
        }
    }
    let token = access.auth_info.token_file.take().map(|path| token(path.into())).transpose()?;
    let builder = ClientBuilder::try_from(access).map_err(|error| Error::NoCluster(error.to_string()))?;
    Ok(match token {
        Some(token) => builder.with_layer(&token.layer()).build(),
        None => builder.build(),
    })
}

fn token(path: PathBuf) -> Result<Token, Error> {
    Token::open(path.clone(), Instant::now()).map_err(|error| Error::Token { path, error })
}

/// Where the server is and who asks.
async fn access(kubeconfig: Option<&Path>) -> Result<::kube::Config, Error> {
    match kubeconfig {
        Some(path) => {
            let refused =
                |error: String| Error::Kubeconfig { path: path.to_owned(), error: first_line(&error) };
            // The crate's own words for this name the file once more.
            std::fs::File::open(path).map_err(|error| refused(error.to_string()))?;
            let read = Kubeconfig::read_from(path).map_err(|error| refused(error.to_string()))?;
            ::kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
                .await
                .map_err(|error| refused(error.to_string()))
        }
        None => ::kube::Config::infer().await.map_err(|error| Error::NoCluster(error.to_string())),
    }
}

/// The sentence of an error that goes on with an excerpt.
fn first_line(error: &str) -> String {
    error.lines().next().unwrap_or_default().to_owned()
}

//! Clients of a control plane, each made from a kubeconfig as a program's would be.

use std::path::Path;

use kube::config::{KubeConfigOptions, Kubeconfig};

use super::ControlPlaneError;

/// A client in the runtime of the caller.
pub(super) async fn client_of(path: &Path) -> Result<kube::Client, ControlPlaneError> {
    let config = config_of(path).await?;
    kube::Client::try_from(config).map_err(client_error(path))
}

/// A client without retries: kube's own would outlast the start.
pub(super) async fn probing_client(path: &Path) -> Result<kube::Client, ControlPlaneError> {
    let mut config = config_of(path).await?;
    config.default_retry = false;
    kube::Client::try_from(config).map_err(client_error(path))
}

async fn config_of(path: &Path) -> Result<kube::Config, ControlPlaneError> {
    let file = Kubeconfig::read_from(path).map_err(client_error(path))?;
    kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
        .await
        .map_err(client_error(path))
}

fn client_error<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    path: &Path,
) -> impl FnOnce(E) -> ControlPlaneError {
    move |error| ControlPlaneError::Client {
        path: path.to_path_buf(),
        source: error.into(),
    }
}

pub(super) async fn is_ready(client: &kube::Client) -> Result<(), String> {
    let request = http::Request::get("/readyz")
        .body(Vec::new())
        .map_err(|error| error.to_string())?;
    client
        .request_text(request)
        .await
        .map(drop)
        .map_err(|error| error.to_string())
}

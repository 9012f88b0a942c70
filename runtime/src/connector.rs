//! Builds the client of the API server, and builds it again when requests fail.
//!
//! kube itself re-reads the token and the CA of a service account. It reads a kubeconfig, and the
//! certificates and keys that it names, only when a client is built.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use kube::client::Body;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tokio::time::Instant;
use tower::service_fn;

use crate::error::chain;

/// Time without data after which a connection counts as dead. A watch lives up to 50 minutes, but the
/// API server sends a bookmark on it about once a minute.
const READ_TIMEOUT: Duration = Duration::from_secs(150);

/// The shortest time between two builds: a kubeconfig may name a program that gets the token.
const REBUILD_INTERVAL: Duration = Duration::from_secs(10);

/// Why a client cannot be built. The files may be fixed or may appear later, so that trying again helps.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("cannot use the kubeconfig {}", path.display())]
    Kubeconfig {
        path: PathBuf,
        #[source]
        source: Box<KubeconfigError>,
    },
    #[error("no kubeconfig given, and no service account found: not running in a pod?")]
    InCluster(#[source] InClusterError),
    /// For example because a certificate is invalid.
    #[error("cannot build a client for {cluster_url}")]
    Client {
        cluster_url: String,
        #[source]
        source: Box<kube::Error>,
    },
}

/// Builds a client that retries nothing. After a request without an answer, or with 401, the next ones
/// use a new client.
pub(crate) async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ApiError> {
    connect_with(kubeconfig, REBUILD_INTERVAL).await
}

async fn connect_with(
    kubeconfig: Option<&Path>,
    rebuild_interval: Duration,
) -> Result<Client, ApiError> {
    let client = build(kubeconfig).await?;
    let namespace = client.default_namespace().to_owned();
    let connector = Arc::new(Connector {
        kubeconfig: kubeconfig.map(Path::to_owned),
        rebuild_interval,
        current: Mutex::new(Current {
            client,
            built: Instant::now(),
        }),
    });
    let service = service_fn(move |request| Arc::clone(&connector).send(request));
    Ok(Client::new(service, namespace))
}

struct Connector {
    kubeconfig: Option<PathBuf>,
    rebuild_interval: Duration,
    current: Mutex<Current>,
}

struct Current {
    client: Client,
    /// When it was built, or the last attempt to build another one began.
    built: Instant,
}

impl Connector {
    async fn send(self: Arc<Self>, request: Request<Body>) -> kube::Result<Response<Body>> {
        let client = self.current().client.clone();
        let response = client.send(request).await;
        let has_failed = response.as_ref().map_or(true, |response| {
            response.status() == StatusCode::UNAUTHORIZED
        });
        if has_failed {
            self.rebuild();
        }
        response
    }

    /// Builds another client in the background: requests have deadlines, and a program that gets a token
    /// may take longer.
    fn rebuild(self: Arc<Self>) {
        let mut current = self.current();
        if current.built.elapsed() < self.rebuild_interval {
            return;
        }
        current.built = Instant::now();
        drop(current);
        tokio::spawn(async move {
            match build(self.kubeconfig.as_deref()).await {
                Ok(client) => self.current().client = client,
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(error, "cannot reload credentials; keeping the current ones");
                }
            }
        });
    }

    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn build(kubeconfig: Option<&Path>) -> Result<Client, ApiError> {
    let mut config = match kubeconfig {
        Some(path) => from_kubeconfig(path).await?,
        None => Config::incluster().map_err(ApiError::InCluster)?,
    };
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    config.default_retry = false;
    let cluster_url = config.cluster_url.to_string();
    // Where the kubeconfig names a program that gets the token, this blocks until the program ends.
    let built = tokio::task::spawn_blocking(move || Client::try_from(config)).await;
    let built = built.unwrap_or_else(|error| Err(kube::Error::Service(Box::new(error))));
    built.map_err(|source| ApiError::Client {
        cluster_url,
        source: Box::new(source),
    })
}

async fn from_kubeconfig(path: &Path) -> Result<Config, ApiError> {
    let failed = |source| ApiError::Kubeconfig {
        path: path.to_owned(),
        source: Box::new(source),
    };
    let kubeconfig = Kubeconfig::read_from(path).map_err(failed)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(failed)
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use http::{HeaderMap, header};
    use tokio::net::TcpListener;

    use super::*;

    /// A server that accepts the token `two`.
    async fn server() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let authorize = |headers: HeaderMap| async move {
            let token = headers.get(header::AUTHORIZATION);
            if token.is_some_and(|token| token == "Bearer two") {
                StatusCode::OK
            } else {
                StatusCode::UNAUTHORIZED
            }
        };
        let router = Router::new().route("/", get(authorize));
        tokio::spawn(async move { axum::serve(listener, router).await });
        port
    }

    fn kubeconfig(port: u16, token: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n\
             users: [{{name: u, user: {{token: {token}}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        )
    }

    async fn status(client: &Client) -> Option<StatusCode> {
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = client.send(request).await;
        response.ok().map(|response| response.status())
    }

    /// Sends requests until one succeeds.
    async fn succeeds(client: &Client) {
        let success = async {
            while status(client).await != Some(StatusCode::OK) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let success = tokio::time::timeout(Duration::from_secs(30), success);
        success.await.unwrap();
    }

    #[tokio::test]
    async fn rotated_token_is_used_after_401() {
        crate::tls::install();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        let port = server().await;
        std::fs::write(&path, kubeconfig(port, "one")).unwrap();
        let client = connect_with(Some(&path), Duration::ZERO).await.unwrap();
        assert_eq!(status(&client).await, Some(StatusCode::UNAUTHORIZED));
        std::fs::write(&path, "clusters: [").unwrap();
        assert_eq!(status(&client).await, Some(StatusCode::UNAUTHORIZED));
        std::fs::write(&path, kubeconfig(port, "two")).unwrap();
        succeeds(&client).await;
    }

    #[tokio::test]
    async fn server_that_moved_is_found_after_a_failed_request() {
        crate::tls::install();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        std::fs::write(&path, kubeconfig(1, "two")).unwrap();
        let client = connect_with(Some(&path), Duration::ZERO).await.unwrap();
        assert_eq!(status(&client).await, None);
        std::fs::write(&path, kubeconfig(server().await, "two")).unwrap();
        succeeds(&client).await;
    }

    #[tokio::test]
    async fn client_is_not_rebuilt_more_often_than_the_interval() {
        crate::tls::install();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        let port = server().await;
        std::fs::write(&path, kubeconfig(port, "one")).unwrap();
        let client = connect(Some(&path)).await.unwrap();
        std::fs::write(&path, kubeconfig(port, "two")).unwrap();
        for _ in 0..3 {
            assert_eq!(status(&client).await, Some(StatusCode::UNAUTHORIZED));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn missing_kubeconfig_is_named() {
        let error = connect(Some(Path::new("/nonexistent/kubeconfig"))).await;
        let error = error.err().unwrap();
        assert_eq!(
            error.to_string(),
            "cannot use the kubeconfig /nonexistent/kubeconfig"
        );
    }
}

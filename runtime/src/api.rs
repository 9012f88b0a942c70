//! The way to the API server: a client.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request, Response};
use kube::client::Body;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tokio::sync::Notify;
use tower::service_fn;

use crate::error::chain;
use crate::not_before::{NotBefore, throttle_pause};
use crate::renewal::Renewal;

/// How long a connection may be unresponsive before it counts as dead. A watch lives up to 50 minutes,
/// but the API server sends a bookmark on it about once a minute.
const READ_TIMEOUT: Duration = Duration::from_secs(150);

/// How often a throttled read is retried, each time after a pause of at most 10 s.
const READ_RETRIES: u32 = 5;

/// Why there is no client. None of these is cured by waiting for the server, but a file that is not
/// there yet may come.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The kubeconfig cannot be used.
    #[error("cannot use the kubeconfig {}", path.display())]
    Kubeconfig {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<KubeconfigError>,
    },
    /// Neither a kubeconfig nor a service account.
    #[error("no kubeconfig was given, and this is no pod with a service account")]
    InCluster(#[source] InClusterError),
    /// The client could not be made, for example because a certificate is none.
    #[error("cannot make a client for {cluster_url}")]
    Client {
        /// The server.
        cluster_url: String,
        /// What is wrong.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A client from a kubeconfig, or from the pod's service account where none is given. Nothing is
/// sent yet: whether the server is there is another question.
///
/// Keys, certificates and tokens that are renewed are read again: within a minute from a service
/// account, within ten seconds from a kubeconfig. Reads that the server throttles are retried a few
/// times; writes are not.
///
/// # Errors
/// When the kubeconfig or the service account cannot be used.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ApiError> {
    Ok(around(renewed(kubeconfig).await?, retry_reads))
}

/// A client that retries nothing and sets `not_before` when the server throttles a request. The caller
/// waits for it before the next request.
///
/// # Errors
/// When the kubeconfig or the service account cannot be used.
pub async fn no_retry_client(
    kubeconfig: Option<&Path>,
    not_before: NotBefore,
) -> Result<Client, ApiError> {
    let client = renewed(kubeconfig).await?;
    Ok(around(client, move |client, request| {
        let not_before = not_before.clone();
        async move {
            let response = client.send(request).await?;
            not_before.observe(&response);
            Ok(response)
        }
    }))
}

/// A client as of [`client`], and `stands` is told of each watch that the API server has begun to answer: a
/// watcher of kube's says that a watch has failed, and of one that stands again nothing until it brings
/// something, which on a quiet cluster may take hours.
///
/// # Errors
/// When the kubeconfig or the service account cannot be used.
pub async fn watching_client(
    kubeconfig: Option<&Path>,
    stands: Arc<Notify>,
) -> Result<Client, ApiError> {
    Ok(telling(client(kubeconfig).await?, stands))
}

fn telling(client: Client, stands: Arc<Notify>) -> Client {
    around(client, move |client, request| {
        let stands = Arc::clone(&stands);
        let mut parameters = request.uri().query().unwrap_or_default().split('&');
        let is_watch = parameters.any(|parameter| parameter == "watch=true");
        async move {
            let response = client.send(request).await?;
            if is_watch && response.status().is_success() {
                stands.notify_one();
            }
            Ok(response)
        }
    })
}

/// A client whose requests go through this on their way, and their answers on the way back.
fn around<Sent>(
    client: Client,
    send: impl Fn(Client, Request<Body>) -> Sent + Send + 'static,
) -> Client
where
    Sent: Future<Output = kube::Result<Response<Body>>> + Send + 'static,
{
    let namespace = client.default_namespace().to_owned();
    let service = service_fn(move |request| send(client.clone(), request));
    Client::new(service, namespace)
}

async fn renewed(kubeconfig: Option<&Path>) -> Result<Client, ApiError> {
    match kubeconfig {
        Some(path) => Renewal::begin(path).await,
        None => make(None).await,
    }
}

/// Sends a request, and a read again while the server throttles it.
async fn retry_reads(client: Client, request: Request<Body>) -> kube::Result<Response<Body>> {
    if request.method() != Method::GET {
        return client.send(request).await;
    }
    let (parts, _) = request.into_parts();
    for _ in 0..READ_RETRIES {
        let request = Request::from_parts(parts.clone(), Body::empty());
        let response = client.send(request).await?;
        match throttle_pause(&response) {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Ok(response),
        }
    }
    client.send(Request::from_parts(parts, Body::empty())).await
}

/// A client of what the files say now. It retries nothing.
pub(crate) async fn make(kubeconfig: Option<&Path>) -> Result<Client, ApiError> {
    let mut config = match kubeconfig {
        Some(path) => from_kubeconfig(path).await?,
        None => Config::incluster().map_err(ApiError::InCluster)?,
    };
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    config.default_retry = false;
    let cluster_url = config.cluster_url.to_string();
    // Where the kubeconfig names a program that prints the token, this blocks until it ends.
    let made = tokio::task::spawn_blocking(move || Client::try_from(config)).await;
    let made = made.unwrap_or_else(|error| Err(kube::Error::Service(Box::new(error))));
    made.map_err(|source| ApiError::Client {
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

/// An error with its causes, where an answer of the API server is told by its code and message: the
/// client's own text is the whole object, as Rust prints it.
#[must_use]
pub fn in_words(error: &(dyn Error + 'static)) -> String {
    let mut cause = Some(error);
    while let Some(source) = cause {
        if let Some(kube::Error::Api(status)) = source.downcast_ref() {
            return format!("it answers {}: {}", status.code, status.message);
        }
        cause = source.source();
    }
    chain(error)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::FutureExt;

    use super::*;

    #[test]
    fn an_answer_of_the_server_is_told_by_its_code_and_message() {
        #[derive(Debug, thiserror::Error)]
        #[error("the list failed")]
        struct Outer(#[source] kube::Error);

        let status = kube::core::Status::failure("not you", "Forbidden").with_code(403);
        let error = Outer(kube::Error::Api(status.boxed()));
        assert_eq!(in_words(&error), "it answers 403: not you");
    }

    /// A client of a server that throttles all requests, and how many it got.
    fn throttled() -> (Client, Arc<AtomicU32>) {
        let requests = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&requests);
        let answers = move |_: Request<Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let response = Response::builder().status(429);
            std::future::ready(response.header("Retry-After", "86400").body(Body::empty()))
        };
        (Client::new(service_fn(answers), "default"), requests)
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_read_is_retried_and_write_is_not() {
        for (method, requests, seconds) in [("GET", 6, 50), ("PATCH", 1, 0), ("POST", 1, 0)] {
            let (client, counted) = throttled();
            let request = Request::builder().method(method).uri("/");
            let began = tokio::time::Instant::now();
            let response = retry_reads(client, request.body(Body::empty()).unwrap()).await;
            assert_eq!(response.unwrap().status(), 429, "{method}");
            assert_eq!(counted.load(Ordering::Relaxed), requests, "{method}");
            assert_eq!(began.elapsed().as_secs(), seconds, "{method}");
        }
    }

    #[tokio::test]
    async fn only_a_watch_that_is_answered_is_told() {
        let answers = |request: Request<Body>| async move {
            let is_good = request.uri().path() == "/good";
            let response = Response::builder().status(if is_good { 200 } else { 500 });
            response.body(Body::empty())
        };
        let stands = Arc::new(Notify::new());
        let client = telling(
            Client::new(service_fn(answers), "default"),
            Arc::clone(&stands),
        );
        for (uri, told) in [
            ("/good?watch=true&timeoutSeconds=9", true),
            ("/good?limit=500&watch=true", true),
            ("/good?limit=500", false),
            ("/good", false),
            ("/bad?watch=true", false),
        ] {
            let request = Request::get(uri).body(Body::empty()).unwrap();
            client.send(request).await.unwrap();
            assert_eq!(stands.notified().now_or_never().is_some(), told, "{uri}");
        }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_is_not_there_is_named() {
        let error = client(Some(Path::new("/nonexistent/kubeconfig"))).await;
        let error = error.err().unwrap();
        assert_eq!(
            error.to_string(),
            "cannot use the kubeconfig /nonexistent/kubeconfig"
        );
    }
}

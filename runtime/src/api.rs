//! The way to the API server: a client.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use kube::client::Body;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tokio::sync::Notify;
use tower::service_fn;

use crate::error::chain;
use crate::renewal::Renewal;
use crate::retry_after::told;

/// How long a connection may be unresponsive before it counts as dead. A watch lives up to 50 minutes,
/// but the API server sends a bookmark on it about once a minute.
const READ_TIMEOUT: Duration = Duration::from_secs(150);

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

/// What a client does when the API server is busy: answers 429, 503 or 504.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Busy {
    /// Asks again by itself, when the server says.
    WaitFor,
    /// Gives the answer at once; when the server wants to be asked again is in its details.
    Tell,
}

/// A client from a kubeconfig, or from the pod's service account where none is given. Nothing is
/// sent yet: whether the server is there is another question.
///
/// Keys, certificates and tokens that are renewed are read again: within a minute from a service
/// account, within ten seconds from a kubeconfig. When the server is busy it waits as long as it is
/// told to, and asks again.
///
/// # Errors
/// When the kubeconfig or the service account cannot be used.
pub async fn client(kubeconfig: Option<&Path>) -> Result<Client, ApiError> {
    renewed(kubeconfig, Busy::WaitFor).await
}

/// The same, for those who pace themselves: a busy server's answer comes at once, and says in
/// `details.retryAfterSeconds` when it wants to be asked again.
///
/// # Errors
/// When the kubeconfig or the service account cannot be used.
pub async fn impatient_client(kubeconfig: Option<&Path>) -> Result<Client, ApiError> {
    renewed(kubeconfig, Busy::Tell).await
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

async fn renewed(kubeconfig: Option<&Path>, busy: Busy) -> Result<Client, ApiError> {
    match kubeconfig {
        Some(path) => Renewal::begin(path, busy).await,
        None => make(None, busy).await,
    }
}

/// A client of what the files say now.
pub(crate) async fn make(kubeconfig: Option<&Path>, busy: Busy) -> Result<Client, ApiError> {
    let mut config = match kubeconfig {
        Some(path) => from_kubeconfig(path).await?,
        None => Config::incluster().map_err(ApiError::InCluster)?,
    };
    config.read_timeout = Some(READ_TIMEOUT);
    config.reset_reader_on_write = true;
    config.default_retry = busy == Busy::WaitFor;
    let cluster_url = config.cluster_url.to_string();
    // In a thread of its own: where the kubeconfig names a program that gets the token, this waits for
    // its end, and all else must go on meanwhile.
    let made = tokio::task::spawn_blocking(move || Client::try_from(config)).await;
    let made = made.unwrap_or_else(|error| Err(kube::Error::Service(Box::new(error))));
    let client = made.map_err(|source| ApiError::Client {
        cluster_url,
        source: Box::new(source),
    })?;
    Ok(match busy {
        Busy::WaitFor => client,
        Busy::Tell => around(client, |client, request| async move {
            told(client.send(request).await?).await
        }),
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

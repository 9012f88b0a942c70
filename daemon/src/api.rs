//! The way to the API server: a client, and patience while the server is away.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{Stream, StreamExt, future};
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::runtime::utils::{Backoff, StreamBackoff};
use kube::runtime::watcher;
use kube::{Client, Config};

use crate::error::chain;
use crate::renewal::Renewal;
use crate::retry_after;

/// How long a connection may be silent before it counts as dead. A watch lives up to 50 minutes,
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
/// sent yet: whether the server is there is another question, see [`wait_until_reachable`].
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

async fn renewed(kubeconfig: Option<&Path>, busy: Busy) -> Result<Client, ApiError> {
    match (kubeconfig, busy) {
        (Some(path), _) => Renewal::begin(path, busy).await,
        (None, Busy::WaitFor) => make(None, busy).await,
        (None, Busy::Tell) => {
            let client = make(None, busy).await?;
            let namespace = client.default_namespace().to_owned();
            let send = move |request| {
                let client = client.clone();
                async move { retry_after::told(client.send(request).await?).await }
            };
            Ok(Client::new(tower::service_fn(send), namespace))
        }
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

/// Waits, with a growing pause of at most 30 s, until the server answers.
pub async fn wait_until_reachable(client: &Client, outage: &Outage) {
    let mut pauses = pauses();
    loop {
        match client.apiserver_version().await {
            Ok(_) => return outage.over(),
            Err(error) => outage.noticed(&error),
        }
        tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
    }
}

/// The longest pause between two tries to reach the server.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Pauses between tries: 250 ms, doubling, each made longer by chance, up to 30 s.
pub fn pauses() -> impl Iterator<Item = Duration> + Send + 'static {
    pauses_up_to(LONGEST_PAUSE)
}

fn pauses_up_to(longest: Duration) -> impl Iterator<Item = Duration> + Send + 'static {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(longest)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Pauses between tries of a watch. Each try to list looks like a sign of life to the client library,
/// which would start with the shortest pause again after it: here only calm does.
struct Patience {
    longest: Duration,
    pauses: Mutex<Box<dyn Iterator<Item = Duration> + Send>>,
    last: Option<Instant>,
}

/// A watch that has not failed for this long starts with the shortest pause again.
const CALM: Duration = Duration::from_secs(60);

impl Patience {
    /// Pauses that double up to the longest, each made longer by chance.
    fn up_to(longest: Duration) -> Self {
        Self {
            longest,
            pauses: Mutex::new(Box::new(pauses_up_to(longest))),
            last: None,
        }
    }
}

/// What a watch brings, tried again after a pause where it fails. One that the API server does not remember far
/// enough back for (410: it was restarted, or etcd was compacted) has not failed: it begins anew at once.
pub fn patiently<T: Send>(
    watch: impl Stream<Item = watcher::Result<T>> + Send,
    longest: Duration,
) -> impl Stream<Item = watcher::Result<T>> + Send {
    let is_failure = |event: &watcher::Result<T>| {
        let is_expired =
            matches!(event, Err(watcher::Error::WatchError(status)) if status.code == 410);
        future::ready(!is_expired)
    };
    StreamBackoff::new(watch.filter(is_failure), Patience::up_to(longest))
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let pauses = self.pauses.get_mut();
        let pauses = pauses.unwrap_or_else(PoisonError::into_inner);
        if self.last.is_some_and(|last| now > last + CALM) {
            *pauses = Box::new(pauses_up_to(self.longest));
        }
        self.last = Some(now);
        pauses.next()
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {}
}

/// Says once that the API server cannot be reached, and once that it can again; clones share it.
#[derive(Debug, Clone, Default)]
pub struct Outage {
    since: Arc<Mutex<Option<Instant>>>,
}

impl Outage {
    /// A request failed.
    pub fn noticed(&self, error: &(dyn Error + 'static)) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if since.is_none() {
            *since = Some(Instant::now());
            tracing::warn!(
                error = in_words(error),
                "cannot talk to the API server; trying on"
            );
        }
    }

    /// A request went through.
    pub fn over(&self) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(began) = since.take() {
            let seconds = began.elapsed().as_secs();
            tracing::info!(seconds, "the API server answers again");
        }
    }

    /// Whether the last request failed.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.since
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_some()
    }
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
    use super::*;

    #[test]
    fn pauses_grow_and_never_pass_their_limit_by_more_than_its_jitter() {
        let pauses: Vec<Duration> = pauses().take(50).collect();
        assert_eq!(pauses.len(), 50);
        assert!(pauses[0] < Duration::from_secs(1));
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE * 2));
        assert!(pauses[49] >= LONGEST_PAUSE);
    }

    #[test]
    fn a_mere_try_does_not_shorten_the_pauses_of_a_watch() {
        let mut patience = Patience::up_to(LONGEST_PAUSE);
        let mut grown = Duration::ZERO;
        for _ in 0..10 {
            patience.reset();
            grown = patience.next().unwrap();
        }
        assert!(grown >= LONGEST_PAUSE, "{grown:?}");
        patience.last = Instant::now().checked_sub(CALM * 2);
        assert!(patience.next().unwrap() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_too_old_begins_anew_at_once_and_one_that_fails_after_a_pause() {
        let error = |code| {
            let status = kube::core::Status::failure("too old", "Expired").with_code(code);
            Err(watcher::Error::WatchError(status.boxed()))
        };
        for (code, errors, pauses) in [(410, 0, false), (500, 1, true)] {
            let began = tokio::time::Instant::now();
            let watch = futures::stream::iter([error(code), Ok("listed")]);
            let events: Vec<_> = patiently(watch, LONGEST_PAUSE).collect().await;
            assert_eq!(events.iter().filter(|event| event.is_err()).count(), errors);
            assert_eq!(events.last().unwrap().as_ref().unwrap(), &"listed");
            assert_eq!(!began.elapsed().is_zero(), pauses, "{code}");
        }
    }

    #[test]
    fn an_outage_is_on_until_a_request_goes_through() {
        let outage = Outage::default();
        assert!(!outage.is_on());
        outage.noticed(&std::io::Error::other("refused"));
        outage.clone().noticed(&std::io::Error::other("refused"));
        assert!(outage.is_on());
        outage.over();
        assert!(!outage.is_on());
    }

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
    async fn a_kubeconfig_that_is_not_there_is_named() {
        let error = client(Some(Path::new("/nonexistent/kubeconfig"))).await;
        let error = error.err().unwrap();
        assert_eq!(
            error.to_string(),
            "cannot use the kubeconfig /nonexistent/kubeconfig"
        );
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_waited_for() {
        crate::tls::install();
        let dir = tempfile::tempdir().unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        let path = dir.path().join("kubeconfig");
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}]\n\
             users: [{{name: u, user: {{}}}}]\ncontexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n"
        );
        std::fs::write(&path, text).unwrap();
        let client = client(Some(&path)).await.unwrap();
        let outage = Outage::default();
        let waited = tokio::time::timeout(
            Duration::from_millis(400),
            wait_until_reachable(&client, &outage),
        );
        assert!(waited.await.is_err(), "nothing listens there");
        assert!(outage.is_on());
    }
}

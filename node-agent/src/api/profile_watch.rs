//! Watches the node's own profile, passes it to the agent, and has its status written.

use std::iter::once;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use kube::ResourceExt;
use kube::api::{Api, DynamicObject};
use kube::runtime::watcher;
use nettune_runtime::backoff::{LONGEST_PAUSE, pauses, with_backoff};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::agent::ProfileUpdate;
use crate::api::connectivity::Connectivity;
use crate::api::profiles;
use crate::api::status_writer::StatusWriter;
use crate::metrics::Metrics;
use crate::status::NodeReport;

/// How long connecting may take before a warning is logged. Only a credential plugin takes long.
const SLOW_CONNECT: Duration = Duration::from_secs(5);

/// How long after a deletion a list checks it: an API server that loses its kind deletes the objects
/// first, and the kind a moment later.
const CHECK_AFTER: Duration = Duration::from_secs(5);

/// The agent's connection to its profile.
pub struct ProfileWatch {
    kubeconfig: Option<PathBuf>,
    node: String,
    updates: watch::Sender<Option<ProfileUpdate>>,
    connectivity: Connectivity,
    writer: StatusWriter,
}

/// The watch cannot go on.
#[derive(Debug, thiserror::Error)]
#[error("the watch of the profile of node {node} has ended")]
pub struct WatchEnded {
    node: String,
}

impl ProfileWatch {
    /// Without a kubeconfig, the pod's service account is used.
    #[must_use]
    pub fn new(
        kubeconfig: Option<PathBuf>,
        node: &str,
        updates: watch::Sender<Option<ProfileUpdate>>,
        reports: watch::Receiver<Option<Arc<NodeReport>>>,
        metrics: Metrics,
    ) -> Self {
        Self {
            kubeconfig,
            node: node.to_owned(),
            updates,
            connectivity: Connectivity::new(metrics.clone()),
            writer: StatusWriter::new(node, reports, metrics),
        }
    }

    /// Watches and reports until shutdown.
    ///
    /// # Errors
    /// When the watch ends, which it never should: it restarts by itself.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), WatchEnded> {
        let api = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            api = self.connect() => api,
        };
        let session = Session {
            watch: self,
            api,
            listed: false,
            check: None,
        };
        session.run(shutdown).await
    }

    /// A kubeconfig or a token may appear after the agent has started; until then the agent works on
    /// what it has saved.
    async fn connect(&mut self) -> Api<DynamicObject> {
        let mut pauses = pauses();
        loop {
            let kubeconfig = self.kubeconfig.clone();
            let mut connecting = pin!(profiles::connect(kubeconfig.as_deref()));
            let connected = match timeout(SLOW_CONNECT, &mut connecting).await {
                Ok(connected) => connected,
                // Not canceled: the plugin would be started again and again.
                Err(_) => {
                    tracing::warn!(
                        node = self.node,
                        kubeconfig = kubeconfig.as_ref().map(|path| path.display().to_string()),
                        "the kubeconfig's credential plugin has not answered within {} s; still waiting",
                        SLOW_CONNECT.as_secs()
                    );
                    connecting.await
                }
            };
            match connected {
                Ok(api) => return api,
                Err(error) => self.connectivity.noticed(&error),
            }
            sleep(pauses.next().unwrap_or_default()).await;
        }
    }

    fn send(&self, update: ProfileUpdate) {
        self.updates.send_if_modified(|last| {
            let differs = last.as_ref() != Some(&update);
            *last = Some(update);
            differs
        });
    }
}

/// A connected watch.
struct Session {
    watch: ProfileWatch,
    api: Api<DynamicObject>,
    /// Whether the list that is being received has the profile.
    listed: bool,
    /// While the profile seems to be gone or the watch has failed.
    check: Option<Check>,
}

/// Lists the profile, until that succeeds.
struct Check {
    pauses: Box<dyn Iterator<Item = Duration> + Send>,
    list: BoxFuture<'static, kube::Result<Option<DynamicObject>>>,
}

impl Session {
    async fn run(mut self, shutdown: CancellationToken) -> Result<(), WatchEnded> {
        let config = profiles::watch_of(&self.watch.node);
        let mut events = pin!(with_backoff(
            watcher(self.api.clone(), config),
            LONGEST_PAUSE
        ));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                event = events.next() => match event {
                    Some(event) => self.handle(event),
                    None => return Err(WatchEnded { node: self.watch.node }),
                },
                written = self.watch.writer.write(&self.api) => match written {
                    Ok(()) => self.watch.connectivity.over(),
                    Err(error) => self.watch.connectivity.noticed(&error),
                },
                found = checked(&mut self.check) => self.finish_check(found),
            }
        }
    }

    fn handle(&mut self, event: Result<watcher::Event<DynamicObject>, watcher::Error>) {
        match event {
            Err(error) => {
                self.watch.connectivity.noticed(&error);
                // A watch that resumes returns nothing on a quiet cluster: a list shows that the API server
                // answers again.
                if self.check.is_none() {
                    self.begin_check();
                }
                return;
            }
            // Comes before each attempt to list.
            Ok(watcher::Event::Init) => {
                self.listed = false;
                return;
            }
            Ok(watcher::Event::InitApply(object) | watcher::Event::Apply(object)) => {
                self.listed = true;
                self.take(&object);
            }
            Ok(watcher::Event::Delete(object)) => {
                let uid = object.metadata.uid.unwrap_or_default();
                if self.watch.writer.is_of(&uid) {
                    self.gone();
                }
            }
            Ok(watcher::Event::InitDone) => {
                if !self.listed {
                    self.gone();
                }
            }
        }
        self.watch.connectivity.over();
    }

    fn take(&mut self, object: &DynamicObject) {
        if object.name_any() != self.watch.node {
            return;
        }
        self.check = None;
        self.watch.writer.take(object);
        let source = Arc::new(profiles::source(object));
        self.watch.send(ProfileUpdate::Profile(source));
    }

    /// The profile seems to be gone. Deleting a CustomResourceDefinition deletes its objects with the same
    /// events as deleting the profile alone, so a list has to confirm it.
    fn gone(&mut self) {
        self.watch.writer.forget();
        self.begin_check();
    }

    fn begin_check(&mut self) {
        self.list_after(Box::new(once(CHECK_AFTER).chain(pauses())));
    }

    fn list_after(&mut self, mut pauses: Box<dyn Iterator<Item = Duration> + Send>) {
        let pause = pauses.next().unwrap_or_default();
        let (api, node) = (self.api.clone(), self.watch.node.clone());
        let list = async move {
            sleep(pause).await;
            profiles::of(&api, &node).await
        };
        let list = list.boxed();
        self.check = Some(Check { pauses, list });
    }

    fn finish_check(&mut self, found: kube::Result<Option<DynamicObject>>) {
        let check = self.check.take();
        match found {
            Ok(found) => {
                self.watch.connectivity.over();
                match found {
                    Some(profile) => self.take(&profile),
                    None if self.watch.writer.has_profile() => self.gone(),
                    None => self.watch.send(ProfileUpdate::NoProfile),
                }
            }
            Err(error) => {
                self.watch.connectivity.noticed(&error);
                if let Some(Check { pauses, .. }) = check {
                    self.list_after(pauses);
                }
            }
        }
    }
}

/// Waits for a check's list; forever if there is no check.
async fn checked(check: &mut Option<Check>) -> kube::Result<Option<DynamicObject>> {
    match check {
        Some(check) => (&mut check.list).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    /// Time passes while there is nothing to do but wait.
    #[tokio::test(start_paused = true)]
    async fn renewed_kubeconfig_is_read_while_the_server_is_unreachable() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kubeconfig");
        let names = |address: &str| {
            let text = format!(
                "{{apiVersion: v1, kind: Config, current-context: x, \
                  clusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}], \
                  users: [{{name: u, user: {{}}}}], \
                  contexts: [{{name: x, context: {{cluster: c, user: u}}}}]}}"
            );
            std::fs::write(&path, text).unwrap();
        };
        names("127.0.0.1:9");
        let metrics = Metrics::register(&mut Registry::default());
        let (updates, reports) = (watch::channel(None).0, watch::channel(None).1);
        let watch = ProfileWatch::new(Some(path.clone()), "n1", updates, reports, metrics);
        let shutdown = CancellationToken::new();
        let running = tokio::spawn(watch.run(shutdown.clone()));
        sleep(Duration::from_secs(10)).await;
        names(&address.to_string());
        let renewed = timeout(LONGEST_PAUSE * 4, server.accept()).await;
        renewed.unwrap().unwrap();
        shutdown.cancel();
        running.await.unwrap().unwrap();
    }
}

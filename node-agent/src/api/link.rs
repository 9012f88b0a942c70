//! The link to the API: the node's own profile is watched, and its status is written when it differs.

use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use kube::runtime::watcher;
use nettune_crds::NodeNetworkProfileStatus;
use nettune_runtime::patience::{LONGEST_PAUSE, patiently, pauses};
use nettune_runtime::shutdown::Shutdown;
use nettune_sizing::Mono;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::agent::ProfileUpdate;
use crate::api::connectivity::Connectivity;
use crate::api::merge_patch::difference;
use crate::api::profiles;
use crate::api::rate_limit::RateLimiter;
use crate::clock;
use crate::metrics::Metrics;
use crate::status::NodeReport;
use nettune_reconcile::desired::Revision;

/// How long a write of the status may take; the client repeats it for much longer by itself.
const PATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the way to the API server may take to be set up before that is said: the one thing in it
/// that can take long is a program that gets the token.
const PROGRAM_PATIENCE: Duration = Duration::from_secs(5);

/// How long after a profile seems to be gone a list is asked: an API server that loses its kind deletes
/// the objects first, and the kind a moment later.
const DOUBT: Duration = Duration::from_secs(5);

/// The field manager of the status.
const MANAGER: &str = "nettune-agent";

/// The agent's way to its profile.
pub struct Link {
    kubeconfig: Option<PathBuf>,
    node: String,
    orders: watch::Sender<Option<ProfileUpdate>>,
    findings: watch::Receiver<Option<Arc<NodeReport>>>,
    metrics: Metrics,
    connectivity: Connectivity,
    profile: Option<Profile>,
    /// The profile was brought by the watch, or by a list, after the write that is under way was begun.
    brought_since: bool,
    /// The profile seems to be gone, or the watch has failed: a list has to say what is there.
    doubts: bool,
    /// Pauses between tries to confirm it, once one has failed.
    doubt_pauses: Option<Box<dyn Iterator<Item = Duration> + Send>>,
    /// What was written last: where the API server keeps less of it than was sent, sending it again
    /// would change nothing.
    acknowledged: Option<(Value, String)>,
    /// Pauses between writes while they fail.
    pauses: Option<Box<dyn Iterator<Item = Duration> + Send>>,
    started: Instant,
    limiter: RateLimiter,
}

/// The profile as the API server has it.
struct Profile {
    revision: Revision,
    resource_version: String,
    status: Value,
}

/// A list that will say whether the profile is gone.
type Confirming = BoxFuture<'static, kube::Result<Option<DynamicObject>>>;

type Patching = BoxFuture<'static, Result<DynamicObject, PatchError>>;

/// A status that was sent, and what came of it.
type Answer = (Value, Result<DynamicObject, PatchError>);

/// The profile cannot be watched any more.
#[derive(Debug, thiserror::Error)]
#[error("the watch of the profile of node {node} has ended for good")]
pub struct WatchEnded {
    node: String,
}

#[derive(Debug, thiserror::Error)]
enum PatchError {
    #[error("the status was not written")]
    Api(#[source] Box<kube::Error>),
    #[error("the status was not written within {} s", PATCH_TIMEOUT.as_secs())]
    Timeout,
}

impl Link {
    /// A link for one node, by a kubeconfig or else by the pod's service account.
    #[must_use]
    pub fn new(
        kubeconfig: Option<PathBuf>,
        node: &str,
        orders: watch::Sender<Option<ProfileUpdate>>,
        findings: watch::Receiver<Option<Arc<NodeReport>>>,
        metrics: Metrics,
    ) -> Self {
        Self {
            kubeconfig,
            node: node.to_owned(),
            orders,
            findings,
            connectivity: Connectivity::new(metrics.clone()),
            metrics,
            profile: None,
            brought_since: false,
            doubts: false,
            doubt_pauses: None,
            acknowledged: None,
            pauses: None,
            started: Instant::now(),
            limiter: RateLimiter::new(Mono::default()),
        }
    }

    /// Watches and reports until the end is asked for.
    ///
    /// # Errors
    /// When the watch ends, which it never should: it begins anew by itself.
    pub async fn run(mut self, mut shutdown: Shutdown) -> Result<(), WatchEnded> {
        let api = tokio::select! {
            () = shutdown.requested() => return Ok(()),
            api = self.connect() => api,
        };
        let watch = watcher(api.clone(), profiles::watch_of(&self.node));
        let mut events = pin!(patiently(watch, LONGEST_PAUSE));
        let mut patching: Option<(Value, Patching)> = None;
        let mut next_patch = Instant::now();
        let mut listed = false;
        let mut may_find = true;
        let mut confirming: Option<Confirming> = None;
        loop {
            if !self.doubts {
                confirming = None;
            } else if confirming.is_none() {
                confirming = Some(self.look_again(&api).boxed());
            }
            // By one look at the clock: between two it could come to neither a write nor a wait for it.
            let is_early = patching.is_none() && Instant::now() < next_patch;
            if patching.is_none() && !is_early {
                patching = self.patch(&api);
            }
            tokio::select! {
                () = shutdown.requested() => return Ok(()),
                event = events.next() => match event {
                    Some(event) => self.watched(event, &mut listed),
                    None => return Err(WatchEnded { node: self.node }),
                },
                found = self.findings.changed(), if may_find => may_find = found.is_ok(),
                patched = patched(&mut patching) => {
                    next_patch = self.patched(patched);
                }
                found = under_way(&mut confirming) => {
                    confirming = None;
                    self.confirmed(found);
                }
                () = sleep_until(next_patch), if is_early => {}
            }
        }
    }

    /// A kubeconfig or a token may come later than the agent, which works on what it knows meanwhile.
    async fn connect(&mut self) -> Api<DynamicObject> {
        let mut pauses = pauses();
        loop {
            let kubeconfig = self.kubeconfig.clone();
            let mut connecting = pin!(profiles::connect(kubeconfig.as_deref()));
            let connected = match timeout(PROGRAM_PATIENCE, &mut connecting).await {
                Ok(connected) => connected,
                // Not given up: it would be started again, and again.
                Err(_) => {
                    tracing::warn!(
                        node = self.node,
                        kubeconfig = kubeconfig.as_ref().map(|path| path.display().to_string()),
                        "the program that the kubeconfig names for the token has not answered for {} s; \
                         waiting for it",
                        PROGRAM_PATIENCE.as_secs()
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

    /// The profile as a list has it, a while from now.
    fn look_again(
        &mut self,
        api: &Api<DynamicObject>,
    ) -> impl Future<Output = kube::Result<Option<DynamicObject>>> + use<> {
        let wait = match &mut self.doubt_pauses {
            None => DOUBT,
            Some(pauses) => pauses.next().unwrap_or_default(),
        };
        let (api, node) = (api.clone(), self.node.clone());
        async move {
            sleep(wait).await;
            profiles::of(&api, &node).await
        }
    }

    fn confirmed(&mut self, found: kube::Result<Option<DynamicObject>>) {
        match &found {
            Ok(_) => self.connectivity.over(),
            Err(error) => self.connectivity.noticed(error),
        }
        match found {
            Ok(Some(profile)) => self.take(&profile),
            Ok(None) if self.profile.is_some() => self.gone(),
            Ok(None) => {
                self.doubts = false;
                self.order(ProfileUpdate::NoProfile);
            }
            Err(_) => {
                self.doubt_pauses.get_or_insert_with(|| Box::new(pauses()));
            }
        }
    }

    fn watched(
        &mut self,
        event: Result<watcher::Event<DynamicObject>, watcher::Error>,
        listed: &mut bool,
    ) {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                self.connectivity.noticed(&error);
                // A watch that resumes brings nothing on a quiet cluster: a list shows that the API server
                // answers again.
                if !self.doubts {
                    self.doubts = true;
                    self.doubt_pauses = None;
                }
                return;
            }
        };
        match event {
            watcher::Event::Init => {
                *listed = false;
                return;
            }
            watcher::Event::InitApply(object) | watcher::Event::Apply(object) => {
                *listed = true;
                self.take(&object);
            }
            watcher::Event::Delete(object) => {
                let uid = object.metadata.uid.unwrap_or_default();
                if self
                    .profile
                    .as_ref()
                    .is_some_and(|own| own.revision.uid == uid)
                {
                    self.gone();
                }
            }
            watcher::Event::InitDone if !*listed => self.gone(),
            watcher::Event::InitDone => {}
        }
        self.connectivity.over();
    }

    /// It seems to be gone. A CustomResourceDefinition that is deleted takes its objects with it, by
    /// events like those of a profile that is not wanted any more: a list has to confirm it.
    fn gone(&mut self) {
        self.profile = None;
        self.doubts = true;
        self.doubt_pauses = None;
    }

    fn take(&mut self, object: &DynamicObject) {
        if object.name_any() != self.node {
            return;
        }
        self.profile = Some(Profile::of(object));
        self.brought_since = true;
        self.doubts = false;
        self.order(ProfileUpdate::Profile(Arc::new(profiles::source(object))));
    }

    fn order(&self, order: ProfileUpdate) {
        self.orders.send_if_modified(|last| {
            let differs = last.as_ref() != Some(&order);
            *last = Some(order);
            differs
        });
    }

    /// The write that brings the status up to date; `None` where it is, or where what was found is
    /// not about this profile.
    fn patch(&mut self, api: &Api<DynamicObject>) -> Option<(Value, Patching)> {
        let profile = self.profile.as_ref()?;
        let findings = self.findings.borrow_and_update().clone()?;
        if findings.speaks_of().map(|revision| &revision.uid) != Some(&profile.revision.uid) {
            return None;
        }
        let previous: NodeNetworkProfileStatus =
            serde_json::from_value(profile.status.clone()).unwrap_or_default();
        let status = findings.status(&previous, clock::wall());
        let status = serde_json::to_value(status).ok()?;
        let changed = difference(&profile.status, &status)?;
        let acknowledged = self.acknowledged.as_ref();
        if acknowledged.is_some_and(|(written, version)| {
            *written == status && *version == profile.resource_version
        }) {
            return None;
        }
        // With the version that it was compared with: the profile may be another one by now.
        let version = &profile.resource_version;
        let body = json!({"metadata": {"resourceVersion": version}, "status": changed});
        self.brought_since = false;
        let (api, node) = (api.clone(), self.node.clone());
        let patching = async move {
            let params = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let patch = Patch::Merge(&body);
            match timeout(PATCH_TIMEOUT, api.patch_status(&node, &params, &patch)).await {
                Ok(patched) => patched.map_err(|error| PatchError::Api(Box::new(error))),
                Err(_) => Err(PatchError::Timeout),
            }
        };
        Some((status, patching.boxed()))
    }

    /// Takes the answer to a write, and says when the next one may follow.
    fn patched(&mut self, (status, answer): Answer) -> Instant {
        let now = Mono::at(self.started.elapsed());
        let next = self.started + self.limiter.take(now).since(Mono::default());
        self.metrics.status_patch(answer.is_ok());
        match answer {
            Ok(object) => {
                let profile = Profile::of(&object);
                self.acknowledged = Some((status, profile.resource_version.clone()));
                let own = self.profile.as_ref().map(|own| &own.revision.uid);
                // The watch brings the spec. What it has brought meanwhile may be later than this answer, and it
                // would not be brought again: each further write would be refused for the old version.
                if own == Some(&profile.revision.uid) && !self.brought_since {
                    self.profile = Some(profile);
                }
                self.connectivity.over();
                self.pauses = None;
                next
            }
            // Another version is there, or none: the watch brings it.
            Err(PatchError::Api(error)) if is_overtaken(&error) => next,
            Err(error) => {
                self.connectivity.noticed(&error);
                let pauses = self.pauses.get_or_insert_with(|| Box::new(pauses()));
                next.max(Instant::now() + pauses.next().unwrap_or_default())
            }
        }
    }
}

/// Waits for a list that is under way; for ever where none is.
async fn under_way(confirming: &mut Option<Confirming>) -> kube::Result<Option<DynamicObject>> {
    match confirming {
        Some(confirming) => confirming.await,
        None => std::future::pending().await,
    }
}

/// Waits for a write that is under way; for ever where none is.
async fn patched(patching: &mut Option<(Value, Patching)>) -> Answer {
    let Some((_, under_way)) = patching else {
        return std::future::pending().await;
    };
    let answer = under_way.await;
    let status = patching.take().map(|(status, _)| status);
    (status.unwrap_or_default(), answer)
}

fn is_overtaken(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 404 | 409))
}

impl Profile {
    fn of(object: &DynamicObject) -> Self {
        Self {
            revision: profiles::revision(object),
            resource_version: object.resource_version().unwrap_or_default(),
            status: object.data.get("status").cloned().unwrap_or(Value::Null),
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::api::ApiResource;
    use nettune_crds::conditions::reasons;
    use nettune_crds::{NodeNetworkProfile, ProfileFacts};
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::kernel::facts::Identity;
    use crate::pressure::conditions::PressureCondition;
    use crate::pressure::monitor;
    use nettune_reconcile::desired::Task;

    fn object(generation: i64, version: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "nettune.dev/v1alpha1", "kind": "NodeNetworkProfile",
            "metadata": {"name": "n1", "uid": "u", "generation": generation, "resourceVersion": version},
            "spec": {},
        }))
        .unwrap()
    }

    fn findings(generation: i64) -> Arc<NodeReport> {
        let calm = || PressureCondition {
            status: Some(false),
            reason: reasons::NO_PRESSURE,
            message: String::new(),
        };
        let uid = "u".to_owned();
        Arc::new(NodeReport {
            revision: Some(Revision { uid, generation }),
            task: Task::Enforce,
            keys: Vec::new(),
            released: false,
            malformed: None,
            tables: None,
            signals: monitor::TableConditions {
                neighbors: calm(),
                conntrack: calm(),
            },
            facts: ProfileFacts::default(),
            identity: Arc::new(Identity {
                boot_id: "boot".to_owned(),
                kernel_release: "6.1.0".to_owned(),
                base_kernel: None,
                cores: 1,
            }),
        })
    }

    struct Scene {
        link: Link,
        api: Api<DynamicObject>,
        found: watch::Sender<Option<Arc<NodeReport>>>,
    }

    impl Scene {
        /// The profile is there, and its first status is being written.
        fn new() -> Self {
            let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
            let client = kube::Client::try_from(config).unwrap();
            let resource = ApiResource::erase::<NodeNetworkProfile>(&());
            let (found, findings) = watch::channel(Some(findings(1)));
            let metrics = Metrics::register(&mut Registry::default());
            let link = Link::new(None, "n1", watch::channel(None).0, findings, metrics);
            let api = Api::all_with(client, &resource);
            let mut scene = Self { link, api, found };
            scene.brings(object(1, "10"));
            scene
        }

        fn brings(&mut self, object: DynamicObject) {
            let event = watcher::Event::Apply(object);
            self.link.watched(Ok(event), &mut true);
        }

        /// Begins a write, and says which version it is for.
        fn writes(&mut self) -> (Value, String) {
            let (status, _) = self.link.patch(&self.api).unwrap();
            let profile = self.link.profile.as_ref().unwrap();
            (status, profile.resource_version.clone())
        }
    }

    #[tokio::test]
    async fn an_answer_that_comes_after_a_later_version_does_not_hide_it() {
        let mut scene = Scene::new();
        let (status, version) = scene.writes();
        assert_eq!(version, "10");
        // The write was version 11. The operator has written since, and the watch was faster than the answer.
        scene.brings(object(1, "11"));
        scene.brings(object(2, "12"));
        scene.link.patched((status, Ok(object(1, "11"))));
        scene.found.send_replace(Some(findings(2)));
        assert_eq!(scene.writes().1, "12");
    }

    #[tokio::test]
    async fn an_answer_that_is_faster_than_the_watch_is_what_the_next_write_is_for() {
        let mut scene = Scene::new();
        let (status, _) = scene.writes();
        scene.link.patched((status, Ok(object(1, "11"))));
        scene.found.send_replace(Some(findings(2)));
        assert_eq!(scene.writes().1, "11");
    }

    /// Half a minute passes when there is nothing to do but wait.
    #[tokio::test(start_paused = true)]
    async fn a_kubeconfig_that_is_renewed_is_read_again_while_the_server_is_away() {
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
        let (orders, findings) = (watch::channel(None).0, watch::channel(None).1);
        let link = Link::new(Some(path.clone()), "n1", orders, findings, metrics);
        let (end, shutdown) = Shutdown::manual();
        let linked = tokio::spawn(link.run(shutdown));
        sleep(Duration::from_secs(10)).await;
        names(&address.to_string());
        let renewed = timeout(LONGEST_PAUSE * 4, server.accept()).await;
        renewed.unwrap().unwrap();
        end.send_replace(true);
        linked.await.unwrap().unwrap();
    }
}

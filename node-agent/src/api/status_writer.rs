//! Writes the profile's status whenever it differs from what the API server has.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kube::ResourceExt;
use kube::api::{Api, DynamicObject, Patch, PatchParams};
use nettune_crds::NodeNetworkProfileStatus;
use nettune_runtime::backoff::pauses;
use nettune_sizing::Mono;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::api::merge_patch::difference;
use crate::api::profiles;
use crate::api::rate_limit::RateLimiter;
use crate::clock;
use crate::metrics::Metrics;
use crate::status::NodeReport;
use nettune_reconcile::desired::Revision;

/// How long a write may take; the client itself would retry for much longer.
const PATCH_TIMEOUT: Duration = Duration::from_secs(10);

/// The field manager of the status.
const MANAGER: &str = "nettune-agent";

/// The status was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("cannot write the status")]
    Api(#[source] Box<kube::Error>),
    #[error("cannot write the status: no answer within {} s", PATCH_TIMEOUT.as_secs())]
    Timeout,
}

type Answer = Result<DynamicObject, WriteError>;

pub(crate) struct StatusWriter {
    node: String,
    reports: watch::Receiver<Option<Arc<NodeReport>>>,
    metrics: Metrics,
    profile: Option<Profile>,
    /// Whether the profile was received after the write in flight was begun.
    received_since: bool,
    in_flight: Option<(Value, BoxFuture<'static, Answer>)>,
    /// The status that was written last, and the resourceVersion that it got: if the API server keeps
    /// less than was sent, sending it again changes nothing.
    acknowledged: Option<(Value, String)>,
    /// No write before this.
    next: Instant,
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

impl StatusWriter {
    pub(crate) fn new(
        node: &str,
        reports: watch::Receiver<Option<Arc<NodeReport>>>,
        metrics: Metrics,
    ) -> Self {
        let started = Instant::now();
        Self {
            node: node.to_owned(),
            reports,
            metrics,
            profile: None,
            received_since: false,
            in_flight: None,
            acknowledged: None,
            next: started,
            pauses: None,
            started,
            limiter: RateLimiter::new(Mono::default()),
        }
    }

    /// Takes the profile that a watch or a list returned.
    pub(crate) fn take(&mut self, object: &DynamicObject) {
        self.profile = Some(Profile::of(object));
        self.received_since = true;
    }

    /// The profile is gone: no write until there is one again.
    pub(crate) fn forget(&mut self) {
        self.profile = None;
    }

    pub(crate) fn has_profile(&self) -> bool {
        self.profile.is_some()
    }

    /// Whether a uid is that of the profile.
    pub(crate) fn is_of(&self, uid: &str) -> bool {
        let profile = self.profile.as_ref();
        profile.is_some_and(|profile| profile.revision.uid == uid)
    }

    /// Waits until the status differs, and writes it. Cancel safe.
    pub(crate) async fn write(&mut self, api: &Api<DynamicObject>) -> Result<(), WriteError> {
        loop {
            if self.in_flight.is_none() {
                sleep_until(self.next).await;
                self.in_flight = self.begin(api);
            }
            if let Some((_, answer)) = &mut self.in_flight {
                let answer = answer.await;
                let written = self.in_flight.take();
                let status = written.map(|(status, _)| status).unwrap_or_default();
                return self.finish(status, answer);
            }
            if self.reports.changed().await.is_err() {
                // The agent is ending.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The write that brings the status up to date; `None` if it is, or if the last report is about
    /// another profile.
    fn begin(&mut self, api: &Api<DynamicObject>) -> Option<(Value, BoxFuture<'static, Answer>)> {
        let profile = self.profile.as_ref()?;
        let report = self.reports.borrow_and_update().clone()?;
        let reported = report.reported_revision();
        if reported.map(|revision| &revision.uid) != Some(&profile.revision.uid) {
            return None;
        }
        let previous: NodeNetworkProfileStatus =
            serde_json::from_value(profile.status.clone()).unwrap_or_default();
        let status = report.status(&previous, clock::wall());
        let status = serde_json::to_value(status).ok()?;
        let changed = difference(&profile.status, &status)?;
        let acknowledged = self.acknowledged.as_ref();
        if acknowledged.is_some_and(|(written, version)| {
            *written == status && *version == profile.resource_version
        }) {
            return None;
        }
        // With the version that it was compared with: the profile may have changed since.
        let version = &profile.resource_version;
        let body = json!({"metadata": {"resourceVersion": version}, "status": changed});
        self.received_since = false;
        let (api, node) = (api.clone(), self.node.clone());
        let answer = async move {
            let params = PatchParams {
                field_manager: Some(MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let patch = Patch::Merge(&body);
            match timeout(PATCH_TIMEOUT, api.patch_status(&node, &params, &patch)).await {
                Ok(patched) => patched.map_err(|error| WriteError::Api(Box::new(error))),
                Err(_) => Err(WriteError::Timeout),
            }
        };
        Some((status, answer.boxed()))
    }

    fn finish(&mut self, status: Value, answer: Answer) -> Result<(), WriteError> {
        let now = Mono::at(self.started.elapsed());
        self.next = self.started + self.limiter.take(now).since(Mono::default());
        self.metrics.status_patch(answer.is_ok());
        match answer {
            Ok(object) => {
                let profile = Profile::of(&object);
                self.acknowledged = Some((status, profile.resource_version.clone()));
                // What the watch returned meanwhile may be newer than this answer, and the watch will not
                // return it again: with the older version each further write would be a conflict.
                if self.is_of(&profile.revision.uid) && !self.received_since {
                    self.profile = Some(profile);
                }
                self.pauses = None;
                Ok(())
            }
            // The profile has another version, or is gone: the watch returns it.
            Err(WriteError::Api(error)) if is_overtaken(&error) => Ok(()),
            Err(error) => {
                let pauses = self.pauses.get_or_insert_with(|| Box::new(pauses()));
                let pause = pauses.next().unwrap_or_default();
                self.next = self.next.max(Instant::now() + pause);
                Err(error)
            }
        }
    }
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
    use crate::pressure::monitor::TableConditions;
    use nettune_reconcile::desired::Task;

    fn object(generation: i64, version: &str) -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "nettune.dev/v1alpha1", "kind": "NodeNetworkProfile",
            "metadata": {"name": "n1", "uid": "u", "generation": generation, "resourceVersion": version},
            "spec": {},
        }))
        .unwrap()
    }

    fn report(generation: i64) -> Arc<NodeReport> {
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
            table_conditions: TableConditions {
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
        writer: StatusWriter,
        api: Api<DynamicObject>,
        reports: watch::Sender<Option<Arc<NodeReport>>>,
    }

    impl Scene {
        /// The profile exists as version 10 and has no status yet.
        fn new() -> Self {
            let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
            let client = kube::Client::try_from(config).unwrap();
            let resource = ApiResource::erase::<NodeNetworkProfile>(&());
            let (reports, receiver) = watch::channel(Some(report(1)));
            let metrics = Metrics::register(&mut Registry::default());
            let mut writer = StatusWriter::new("n1", receiver, metrics);
            writer.take(&object(1, "10"));
            Self {
                writer,
                api: Api::all_with(client, &resource),
                reports,
            }
        }

        /// Begins a write, and returns the version that it is for.
        fn begin(&mut self) -> (Value, String) {
            let (status, _) = self.writer.begin(&self.api).unwrap();
            let profile = self.writer.profile.as_ref().unwrap();
            (status, profile.resource_version.clone())
        }
    }

    #[tokio::test]
    async fn answer_older_than_the_watch_does_not_replace_its_version() {
        let mut scene = Scene::new();
        let (status, version) = scene.begin();
        assert_eq!(version, "10");
        // The write made version 11. The operator has written since, and the watch was faster than the answer.
        scene.writer.take(&object(1, "11"));
        scene.writer.take(&object(2, "12"));
        scene.writer.finish(status, Ok(object(1, "11"))).unwrap();
        scene.reports.send_replace(Some(report(2)));
        assert_eq!(scene.begin().1, "12");
    }

    #[tokio::test]
    async fn answer_faster_than_the_watch_gives_the_version_of_the_next_write() {
        let mut scene = Scene::new();
        let (status, _) = scene.begin();
        scene.writer.finish(status, Ok(object(1, "11"))).unwrap();
        scene.reports.send_replace(Some(report(2)));
        assert_eq!(scene.begin().1, "11");
    }
}

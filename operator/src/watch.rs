//! The watches, as one stream of changes.

use std::time::Duration;

use futures::future;
use futures::stream::{self, BoxStream, SelectAll, StreamExt};
use kube::api::{ApiResource, DynamicObject};
use kube::runtime::watcher as watch;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use nettune_crds::{
    NodeNetworkProfile, NodeNetworkProfileSpec, NodeNetworkProfileStatus, NodeNetworkTuning,
};
use nettune_planner::{Cache, Kind, ObservedNode, ObservedPod, PlannedProfile, PlannedTuning};
use nettune_runtime::api::in_words;
use nettune_runtime::patience::patiently;
use serde_json::Value;
use tracing::{info, warn};

use crate::agents::AgentSelector;

/// What one watch has brought. Tunings and profiles come as they are: spec and status are parsed
/// each on its own, so that one that cannot be read does not take the other with it.
#[allow(
    clippy::large_enum_variant,
    reason = "a change lives until it is taken; boxing each would only cost"
)]
pub(crate) enum Change {
    Node(Event<ObservedNode>),
    Tuning(Event<DynamicObject>),
    Profile(Event<DynamicObject>),
    Agent(Event<ObservedPod>),
    /// A watch failed and is tried again with back-off.
    Failed(Kind, watcher::Error),
    /// A watch has ended, which it never should.
    Ended(Kind),
}

/// All changes of Nodes, tunings and profiles, and of the agents' Pods where those are known by a
/// selector; from complete lists on.
pub(crate) fn changes(
    client: &Client,
    agents: Option<&AgentSelector>,
) -> SelectAll<BoxStream<'static, Change>> {
    let all = watcher::Config::default;
    let agents = agents.map(|AgentSelector { namespace, labels }| {
        let pods = Api::namespaced(client.clone(), namespace);
        watched(pods, all().labels(labels), Kind::Agent, Change::Agent)
    });
    let nodes = Api::all(client.clone());
    let others = [
        watched(nodes, all(), Kind::Node, Change::Node),
        watched(tunings(client), all(), Kind::Tuning, Change::Tuning),
        watched(profiles(client), all(), Kind::Profile, Change::Profile),
    ];
    stream::select_all(others.into_iter().chain(agents))
}

/// The tunings as they are.
pub(crate) fn tunings(client: &Client) -> Api<DynamicObject> {
    Api::all_with(
        client.clone(),
        &ApiResource::erase::<NodeNetworkTuning>(&()),
    )
}

/// The profiles as they are.
pub(crate) fn profiles(client: &Client) -> Api<DynamicObject> {
    Api::all_with(
        client.clone(),
        &ApiResource::erase::<NodeNetworkProfile>(&()),
    )
}

fn watched<K>(
    api: Api<K>,
    config: watcher::Config,
    kind: Kind,
    change: fn(Event<K>) -> Change,
) -> BoxStream<'static, Change>
where
    K: Resource + Clone + std::fmt::Debug + Send + 'static,
    K: for<'de> k8s_openapi::serde::Deserialize<'de>,
{
    patiently(watch(api, config), LONGEST_PAUSE)
        .map(move |event| match event {
            Ok(event) => change(event),
            Err(error) => Change::Failed(kind, error),
        })
        .chain(stream::once(future::ready(Change::Ended(kind))))
        .boxed()
}

/// The longest pause before a watch is tried again: an operator that is blind for longer is worse than
/// one request in ten seconds.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Takes changes into the world, and says once when a watch fails, when it fails in another way, and
/// when it works again.
#[derive(Default)]
pub(crate) struct Intake {
    pub(crate) watched: Cache,
    failing: [Option<Failure>; 4],
    /// The last tuning went by the watch: until a list confirms that there is none, this is not known.
    pub(crate) doubts_tunings: bool,
}

/// What kind of failure was last said: the API server's status code, or that it was not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Refused(u16),
    NotReached,
}

impl Intake {
    /// Takes one change.
    ///
    /// # Errors
    /// The kind whose watch has ended.
    pub(crate) fn take(&mut self, change: Change) -> Result<(), Kind> {
        match change {
            Change::Node(event) => self.event(Kind::Node, event, |watched, node| {
                watched.node(&node);
            }),
            Change::Tuning(event) => {
                let is_end = matches!(event, Event::Delete(_));
                self.event(Kind::Tuning, event, |watched, object| {
                    watched.tuning(&object.name_any(), tuning(&object));
                });
                self.doubt(is_end);
            }
            Change::Profile(event) => self.event(Kind::Profile, event, |watched, object| {
                watched.profile(&object.name_any(), profile(&object));
            }),
            Change::Agent(event) => self.event(Kind::Agent, event, |watched, pod| {
                watched.agent(&pod);
            }),
            Change::Failed(kind, error) => {
                let (failure, hint) = explain(kind, &error);
                if self.failing(kind).replace(failure) != Some(failure) {
                    let error = in_words(&error);
                    warn!(?kind, error, "cannot watch{hint}; trying again");
                }
            }
            Change::Ended(kind) => return Err(kind),
        }
        Ok(())
    }

    /// A CRD that is deleted takes its objects with it, one DELETED event each: that is no administrator
    /// who wants nothing tuned any more. So the end of the last tuning is doubted until a list confirms
    /// it; a tuning that comes, or a list of the watch's own, ends the doubt as well.
    fn doubt(&mut self, is_end: bool) {
        if is_end && self.watched.has_lost_the_last_tuning() {
            self.doubts_tunings = true;
            self.watched.list_begins(Kind::Tuning);
        } else if !is_end && self.watched.has_tunings() {
            self.no_tuning_is_confirmed();
        }
    }

    /// The doubt is over: what the watch has brought is all there is.
    pub(crate) fn no_tuning_is_confirmed(&mut self) {
        if std::mem::take(&mut self.doubts_tunings) {
            self.watched.list_ends(Kind::Tuning);
        }
    }

    fn event<K: Resource>(
        &mut self,
        kind: Kind,
        event: Event<K>,
        take: impl FnOnce(&mut Cache, K),
    ) {
        // `Init` tells of a try, not of a success.
        if !matches!(event, Event::Init) && self.failing(kind).take().is_some() {
            info!(?kind, "watching again");
        }
        match event {
            Event::Init => self.list_begins(kind),
            Event::InitApply(object) | Event::Apply(object) => take(&mut self.watched, object),
            Event::InitDone => self.watched.list_ends(kind),
            Event::Delete(object) => self.watched.gone(kind, object.meta()),
        }
    }

    fn list_begins(&mut self, kind: Kind) {
        if kind == Kind::Tuning {
            self.doubts_tunings = false;
        }
        self.watched.list_begins(kind);
    }

    fn failing(&mut self, kind: Kind) -> &mut Option<Failure> {
        let [node, tuning, profile, agent] = &mut self.failing;
        match kind {
            Kind::Agent => agent,
            Kind::Node => node,
            Kind::Tuning => tuning,
            Kind::Profile => profile,
        }
    }
}

/// What of a tuning can be read.
pub(crate) fn tuning(object: &DynamicObject) -> PlannedTuning {
    let status = part(object, "status").unwrap_or_default();
    match part(object, "spec") {
        Ok(spec) => PlannedTuning::new(&NodeNetworkTuning {
            metadata: object.metadata.clone(),
            spec,
            status: Some(status),
        }),
        Err(error) => PlannedTuning::unreadable(&object.metadata, status, &error.to_string()),
    }
}

/// What of a profile can be read.
pub(crate) fn profile(object: &DynamicObject) -> PlannedProfile {
    let spec: Option<NodeNetworkProfileSpec> = part(object, "spec").ok();
    let status: Option<NodeNetworkProfileStatus> = part(object, "status").ok();
    PlannedProfile::of(&object.metadata, spec, status.as_ref())
}

fn part<T: serde::de::DeserializeOwned>(
    object: &DynamicObject,
    name: &str,
) -> serde_json::Result<T> {
    let value = object.data.get(name).unwrap_or(&Value::Null);
    T::deserialize(value)
}

/// Which failure it is, and what to do about those that an administrator can mend.
fn explain(kind: Kind, error: &watcher::Error) -> (Failure, &'static str) {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        _ => return (Failure::NotReached, ""),
    };
    let hint = match status.code {
        403 if kind == Kind::Agent => {
            " (a Role has to let it list and watch pods in the namespace of --agent-selector)"
        }
        404 => " (the CRDs are not installed: kubectl apply -f crds/manifests)",
        403 => " (the operator's ClusterRole does not let it)",
        _ => "",
    };
    (Failure::Refused(status.code), hint)
}

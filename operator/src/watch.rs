//! The watches, as one stream of changes, and what they put into the cache.

use std::str::FromStr;
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
use nettune_runtime::backoff::with_backoff;
use serde_json::Value;
use tracing::{info, warn};

/// Where the agents' Pods are: a namespace and a label selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSelector {
    namespace: String,
    labels: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "expected NAMESPACE/LABELS, for example nettune/app.kubernetes.io/name=nettune-agent, found {0:?}"
)]
pub struct InvalidSelector(String);

impl FromStr for AgentSelector {
    type Err = InvalidSelector;

    /// The first slash ends the namespace: labels may have more.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, labels)) if !namespace.is_empty() && !labels.is_empty() => Ok(Self {
                namespace: namespace.to_owned(),
                labels: labels.to_owned(),
            }),
            _ => Err(InvalidSelector(text.to_owned())),
        }
    }
}

/// A change from one watch. Tunings and profiles are not parsed yet: spec and status are parsed separately, so
/// that one that is malformed does not hide the other.
#[allow(clippy::large_enum_variant, reason = "each change is handled at once")]
pub(crate) enum Change {
    Node(Event<ObservedNode>),
    Tuning(Event<DynamicObject>),
    Profile(Event<DynamicObject>),
    Agent(Event<ObservedPod>),
    /// A watch failed and is retried.
    Failed(Kind, watcher::Error),
    /// A watch ended, which it never should.
    Ended(Kind),
}

/// All changes of Nodes, tunings, profiles, and of the agents' Pods if there is a selector. Each watch
/// starts with a complete list.
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

pub(crate) fn tunings(client: &Client) -> Api<DynamicObject> {
    Api::all_with(
        client.clone(),
        &ApiResource::erase::<NodeNetworkTuning>(&()),
    )
}

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
    with_backoff(watch(api, config), LONGEST_PAUSE)
        .map(move |event| match event {
            Ok(event) => change(event),
            Err(error) => Change::Failed(kind, error),
        })
        .chain(stream::once(future::ready(Change::Ended(kind))))
        .boxed()
}

/// The longest pause before a watch is retried. Old data is worse than a request every 10 s.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Puts changes into the cache. Logs when a watch fails, when it fails in another way, and when it recovers.
#[derive(Default)]
pub(crate) struct WatchHandler {
    pub(crate) cache: Cache,
    failing: [Option<Failure>; 4],
    /// The watch has deleted the last tuning, and no list has confirmed it.
    pub(crate) is_last_deletion_unconfirmed: bool,
}

/// The last failure that was logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// With the status code.
    Rejected(u16),
    Unreachable,
}

impl WatchHandler {
    /// # Errors
    /// The kind whose watch ended.
    pub(crate) fn take(&mut self, change: Change) -> Result<(), Kind> {
        match change {
            Change::Node(event) => self.event(Kind::Node, event, |cache, node| {
                cache.node(&node);
            }),
            Change::Tuning(event) => {
                let is_deletion = matches!(event, Event::Delete(_));
                self.event(Kind::Tuning, event, |cache, object| {
                    cache.tuning(&object.name_any(), tuning(&object));
                });
                self.check_last_deletion(is_deletion);
            }
            Change::Profile(event) => self.event(Kind::Profile, event, |cache, object| {
                cache.profile(&object.name_any(), profile(&object));
            }),
            Change::Agent(event) => self.event(Kind::Agent, event, |cache, pod| {
                cache.agent(&pod);
            }),
            Change::Failed(kind, error) => {
                let (failure, hint) = explain(kind, &error);
                if self.failing(kind).replace(failure) != Some(failure) {
                    let error = in_words(&error);
                    warn!(?kind, error, "cannot watch{hint}; retrying");
                }
            }
            Change::Ended(kind) => return Err(kind),
        }
        Ok(())
    }

    /// Deleting a CRD sends a DELETED event for each object too, but must not release all nodes. So the
    /// deletion of the last tuning waits until a list confirms it, or another tuning or list arrives.
    fn check_last_deletion(&mut self, is_deletion: bool) {
        if is_deletion && self.cache.has_lost_the_last_tuning() {
            self.is_last_deletion_unconfirmed = true;
            self.cache.list_begins(Kind::Tuning);
        } else if !is_deletion && self.cache.has_tunings() {
            self.confirm_last_deletion();
        }
    }

    /// What the watch has brought is complete.
    pub(crate) fn confirm_last_deletion(&mut self) {
        if std::mem::take(&mut self.is_last_deletion_unconfirmed) {
            self.cache.list_ends(Kind::Tuning);
        }
    }

    fn event<K: Resource>(
        &mut self,
        kind: Kind,
        event: Event<K>,
        take: impl FnOnce(&mut Cache, K),
    ) {
        // `Init` is an attempt, not a success.
        if !matches!(event, Event::Init) && self.failing(kind).take().is_some() {
            info!(?kind, "watch recovered");
        }
        match event {
            Event::Init => self.list_begins(kind),
            Event::InitApply(object) | Event::Apply(object) => take(&mut self.cache, object),
            Event::InitDone => self.cache.list_ends(kind),
            Event::Delete(object) => self.cache.gone(kind, object.meta()),
        }
    }

    fn list_begins(&mut self, kind: Kind) {
        if kind == Kind::Tuning {
            self.is_last_deletion_unconfirmed = false;
        }
        self.cache.list_begins(kind);
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

/// The kind of failure, and a hint for those that an administrator can fix.
fn explain(kind: Kind, error: &watcher::Error) -> (Failure, &'static str) {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        _ => return (Failure::Unreachable, ""),
    };
    let hint = match status.code {
        403 if kind == Kind::Agent => {
            " (the operator needs a Role to list and watch pods in the namespace of --agent-selector)"
        }
        404 => " (the CRDs are not installed: kubectl apply -f crds/manifests)",
        403 => " (the operator's ClusterRole does not allow it)",
        _ => "",
    };
    (Failure::Rejected(status.code), hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_slash_ends_the_namespace() {
        let selector: AgentSelector = "nettune/app.kubernetes.io/name=agent,x!=y".parse().unwrap();
        assert_eq!(selector.namespace, "nettune");
        assert_eq!(selector.labels, "app.kubernetes.io/name=agent,x!=y");
    }

    #[test]
    fn namespace_and_labels_are_required() {
        for text in ["app=agent", "/app=agent", "nettune/", ""] {
            let error = text.parse::<AgentSelector>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}

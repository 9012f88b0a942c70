//! The three watches, as one stream of changes.

use futures::stream::{BoxStream, SelectAll, StreamExt};
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, Resource, ResourceExt};
use nettune_crds::{NodeNetworkProfile, NodeNetworkTuning};
use nettune_daemon::error::chain;
use nettune_planner::{Kind, ObservedNode, PlannedProfile, PlannedTuning, Watched};
use tracing::{info, warn};

/// What one watch has brought.
pub(crate) enum Change {
    Node(Event<ObservedNode>),
    Tuning(Event<DeserializeGuard<NodeNetworkTuning>>),
    Profile(Event<DeserializeGuard<NodeNetworkProfile>>),
    /// A watch failed and is tried again with back-off.
    Failed(Kind, watcher::Error),
}

/// All changes of Nodes, tunings and profiles, from complete lists on.
pub(crate) fn changes(client: &Client) -> SelectAll<BoxStream<'static, Change>> {
    futures::stream::select_all([
        watched(Api::all(client.clone()), Kind::Node, Change::Node),
        watched(Api::all(client.clone()), Kind::Tuning, Change::Tuning),
        watched(Api::all(client.clone()), Kind::Profile, Change::Profile),
    ])
}

fn watched<K>(api: Api<K>, kind: Kind, change: fn(Event<K>) -> Change) -> BoxStream<'static, Change>
where
    K: Resource + Clone + std::fmt::Debug + Send + 'static,
    K: for<'de> k8s_openapi::serde::Deserialize<'de>,
{
    watch(api, watcher::Config::default())
        .default_backoff()
        .map(move |event| match event {
            Ok(event) => change(event),
            Err(error) => Change::Failed(kind, error),
        })
        .boxed()
}

/// Takes changes into the world, and says once when a watch fails, when it fails in another way, and
/// when it works again.
#[derive(Default)]
pub(crate) struct Intake {
    pub(crate) watched: Watched,
    failing: [Option<Failure>; 3],
}

/// What kind of failure was last said: the API server's status code, or that it was not reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    Refused(u16),
    NotReached,
}

impl Intake {
    pub(crate) fn take(&mut self, change: Change) {
        match change {
            Change::Node(event) => self.event(Kind::Node, event, |watched, node| {
                watched.node(&node);
            }),
            Change::Tuning(event) => self.event(Kind::Tuning, event, take_tuning),
            Change::Profile(event) => self.event(Kind::Profile, event, take_profile),
            Change::Failed(kind, error) => {
                let (failure, hint) = explain(&error);
                if self.failing(kind).replace(failure) != Some(failure) {
                    let error = chain(&error);
                    warn!(?kind, error, "cannot watch{hint}; trying again");
                }
            }
        }
    }

    fn event<K: Resource>(
        &mut self,
        kind: Kind,
        event: Event<K>,
        take: impl FnOnce(&mut Watched, K),
    ) {
        // `Init` tells of a try, not of a success.
        if !matches!(event, Event::Init) && self.failing(kind).take().is_some() {
            info!(?kind, "watching again");
        }
        match event {
            Event::Init => self.watched.list_begins(kind),
            Event::InitApply(object) | Event::Apply(object) => take(&mut self.watched, object),
            Event::InitDone => self.watched.list_ends(kind),
            Event::Delete(object) => self.watched.gone(kind, &object.name_any()),
        }
    }

    fn failing(&mut self, kind: Kind) -> &mut Option<Failure> {
        let [node, tuning, profile] = &mut self.failing;
        match kind {
            Kind::Node => node,
            Kind::Tuning => tuning,
            Kind::Profile => profile,
        }
    }
}

/// Takes a tuning that a watch or a write has brought.
pub(crate) fn take_tuning(watched: &mut Watched, object: DeserializeGuard<NodeNetworkTuning>) {
    match object.0 {
        Ok(tuning) => watched.tuning(&tuning.name_any(), PlannedTuning::new(&tuning)),
        Err(invalid) => {
            let name = invalid.metadata.name.clone().unwrap_or_default();
            warn!(
                tuning = name,
                error = invalid.error,
                "cannot read this tuning; its nodes stay as they are"
            );
            watched.tuning(
                &name,
                PlannedTuning::unreadable(&invalid.metadata, &invalid.error),
            );
        }
    }
}

/// Takes a profile that a watch or a write has brought.
pub(crate) fn take_profile(watched: &mut Watched, object: DeserializeGuard<NodeNetworkProfile>) {
    match object.0 {
        Ok(profile) => watched.profile(&profile.name_any(), PlannedProfile::new(&profile)),
        Err(invalid) => {
            let name = invalid.metadata.name.clone().unwrap_or_default();
            warn!(
                node = name,
                error = invalid.error,
                "cannot read this profile; it is written anew"
            );
            watched.profile(&name, PlannedProfile::unreadable(&invalid.metadata));
        }
    }
}

/// Which failure it is, and what to do about those that an administrator can mend.
fn explain(error: &watcher::Error) -> (Failure, &'static str) {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        _ => return (Failure::NotReached, ""),
    };
    let hint = match status.code {
        404 => " (the CRDs are not installed: kubectl apply -f crds/manifests)",
        403 => " (the operator's ClusterRole does not let it)",
        _ => "",
    };
    (Failure::Refused(status.code), hint)
}

//! The parts of a profile that decisions use: its spec, and what its node's agent reports.

use std::sync::Arc;

use jiff::Timestamp;
use kube::api::ObjectMeta;
use nettune_crds::conditions::{
    self, CONNTRACK_PRESSURE, DRIFTED, NEIGHBOR_PRESSURE, READY, RELEASED, reasons,
};
use nettune_crds::{
    NodeNetworkProfile, NodeNetworkProfileSpec, NodeNetworkProfileStatus, ProfileFacts,
};

use crate::cluster::node::PlannedNode;
use crate::cluster::peaks::Peaks;

/// A profile in the [`ClusterState`](crate::ClusterState): a digest, not the whole object.
#[derive(Debug)]
pub struct PlannedProfile {
    pub(crate) uid: Arc<str>,
    pub(crate) resource_version: Arc<str>,
    pub(crate) generation: Option<i64>,
    pub(crate) owner_uid: Arc<str>,
    /// Its spec without the reasons and the canary mark; `None` if it cannot be read.
    pub(crate) normalized: Option<Arc<NodeNetworkProfileSpec>>,
    /// Whether a rollout wrote it to a Ready node.
    pub(crate) canary: bool,
    pub(crate) reported: Option<Reported>,
    pub(crate) facts: Option<ProfileFacts>,
    pub(crate) peaks: Peaks,
}

/// What a node's agent has reported, as far as decisions use it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    pub(crate) observed_generation: Option<i64>,
    pub(crate) boot_id: Arc<str>,
    pub(crate) ready: bool,
    pub(crate) drifted: bool,
    released: bool,
    /// The original values that were not restored, after a release.
    pub(crate) left: Option<Arc<str>>,
    /// Whether a table of its node overflows now.
    overflows: bool,
    /// Whether `Ready` exists and is not `Unknown`.
    pub(crate) speaks: bool,
    /// When `Ready` changed last, by the clock of the writer.
    pub(crate) turned: Option<Timestamp>,
    /// Whether the operator has reported the agent as unresponsive.
    pub(crate) is_silenced: bool,
    /// The message of `Ready`, if a sysctl has failed.
    pub(crate) failure: Option<Arc<str>>,
}

/// A node and its profile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProfiledNode<'a> {
    pub(crate) name: &'a Arc<str>,
    pub(crate) node: &'a PlannedNode,
    pub(crate) profile: &'a PlannedProfile,
}

impl<'a> ProfiledNode<'a> {
    /// What the agent reports about the current generation and boot.
    pub(crate) fn reported(self) -> Option<&'a Reported> {
        self.profile.reported_now(self.node)
    }
}

impl PlannedProfile {
    /// From a profile that could be read.
    #[must_use]
    pub fn new(profile: &NodeNetworkProfile) -> Self {
        Self::of(
            &profile.metadata,
            Some(profile.spec.clone()),
            profile.status.as_ref(),
        )
    }

    /// From a profile that could be read only in part. An unreadable spec is written again if a tuning selects the
    /// node; an unreadable status counts as none.
    #[must_use]
    pub fn of(
        meta: &ObjectMeta,
        spec: Option<NodeNetworkProfileSpec>,
        status: Option<&NodeNetworkProfileStatus>,
    ) -> Self {
        let owner = meta
            .owner_references
            .iter()
            .flatten()
            .find(|owner| owner.kind == "Node");
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            resource_version: meta.resource_version.as_deref().unwrap_or_default().into(),
            generation: meta.generation,
            owner_uid: owner.map_or("", |owner| owner.uid.as_str()).into(),
            canary: spec.as_ref().is_some_and(|spec| spec.canary),
            normalized: spec.map(|spec| Arc::new(normalized(spec))),
            reported: status.map(Reported::new),
            facts: status.and_then(|status| status.facts.clone()),
            peaks: status.map(Peaks::of).unwrap_or_default(),
        }
    }
}

impl PlannedProfile {
    /// Whether a table of its node overflows.
    pub(crate) fn overflows(&self) -> bool {
        let reported = self.reported.as_ref();
        reported.is_some_and(|reported| reported.overflows)
    }

    /// Whether it has the same effect on the node as this spec.
    #[must_use]
    pub fn says(&self, spec: &NodeNetworkProfileSpec) -> bool {
        let own = self.normalized.as_ref();
        own.is_some_and(|own| **own == normalized(spec.clone()))
    }

    /// What the agent reports, if that is about this generation of the profile and this boot.
    pub(crate) fn reported_now(&self, node: &PlannedNode) -> Option<&Reported> {
        self.reported.as_ref().filter(|reported| {
            let this_boot = node.boot_id.is_empty() || reported.boot_id == node.boot_id;
            this_boot && reported.observed_generation == self.generation
        })
    }
}

/// Whether two specs have the same effect on a node, whatever their reasons and canary marks.
#[must_use]
pub fn eq_ignoring_reasons(one: &NodeNetworkProfileSpec, other: &NodeNetworkProfileSpec) -> bool {
    normalized(one.clone()) == normalized(other.clone())
}

/// A spec without the reasons and the canary mark: equal ones have the same effect on a node.
pub(crate) fn normalized(mut spec: NodeNetworkProfileSpec) -> NodeNetworkProfileSpec {
    spec.canary = false;
    for sysctl in &mut spec.sysctls {
        sysctl.reason = String::new();
    }
    spec
}

impl Reported {
    /// Whether the agent has restored what it could, and no sysctl has failed.
    pub(crate) fn is_released(&self) -> bool {
        self.released && self.failure.is_none()
    }

    fn new(status: &NodeNetworkProfileStatus) -> Self {
        let ready = conditions::find(&status.conditions, READY);
        let failure = ready
            .filter(|ready| match ready.reason.as_str() {
                reasons::FAILED | reasons::INVALID => true,
                // A sysctl could not be written.
                reasons::PARTIALLY_RESTORED => ready.status == "False",
                _ => false,
            })
            .map(|ready| ready.message.as_str().into());
        let released = conditions::find(&status.conditions, RELEASED)
            .filter(|released| released.status == "True");
        let left = released
            .filter(|released| released.reason == reasons::PARTIALLY_RESTORED)
            .map(|released| released.message.as_str().into());
        let is_full = |type_, reason| {
            let found = conditions::find(&status.conditions, type_);
            found.is_some_and(|found| found.status == "True" && found.reason == reason)
        };
        Self {
            observed_generation: status.observed_generation,
            boot_id: status.boot_id.as_str().into(),
            ready: ready.is_some_and(|ready| ready.status == "True"),
            drifted: conditions::is_true(&status.conditions, DRIFTED),
            released: released.is_some(),
            left,
            overflows: is_full(NEIGHBOR_PRESSURE, reasons::OVERFLOW)
                || is_full(CONNTRACK_PRESSURE, reasons::TABLE_FULL),
            turned: ready.map(|ready| ready.last_transition_time.0),
            speaks: ready.is_some_and(|ready| ready.status != "Unknown"),
            is_silenced: ready.is_some_and(|ready| {
                ready.status == "Unknown" && ready.reason == reasons::AGENT_UNRESPONSIVE
            }),
            failure,
        }
    }
}

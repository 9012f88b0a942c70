//! Everything that is known of the cluster at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use kube::api::ObjectMeta;
use nettune_crds::conditions::{
    self, CONNTRACK_PRESSURE, DRIFTED, NEIGHBOR_PRESSURE, READY, RELEASED, reasons,
};
use nettune_crds::{
    InvalidTuning, Mode, NodeLabels, NodeNetworkProfile, NodeNetworkProfileSpec,
    NodeNetworkProfileStatus, NodeNetworkTuning, NodeNetworkTuningSpec, NodeNetworkTuningStatus,
    NodesCount, ProfileFacts, ReleasePolicy, Rollout,
};
use nettune_sizing::Policy;

use crate::agents::Agents;
use crate::peaks::Peaks;
use crate::shared::Shared;
use crate::{ObservedNode, PlannedNode};

/// The whole cluster at one moment: Nodes, tunings and profiles by name.
///
/// A `&ClusterState` can only be had from [`Cache::world`](crate::Cache::world) when all three lists are complete, or from
/// [`ClusterState::of`] that takes them whole: deciding from half a list would release what is merely not
/// listed yet.
#[derive(Debug, Default)]
pub struct ClusterState {
    pub(crate) nodes: BTreeMap<Arc<str>, PlannedNode>,
    pub(crate) tunings: BTreeMap<Arc<str>, PlannedTuning>,
    pub(crate) profiles: BTreeMap<Arc<str>, PlannedProfile>,
    pub(crate) agents: Agents,
    /// Whether the startup taint is taken off.
    pub(crate) startup_taint: bool,
    /// Nodes whose profile the API server does not take as it was written last, and why.
    pub(crate) refused: BTreeMap<Arc<str>, Arc<str>>,
    /// The nodes of a group have the same spec, and comparing two of them is then comparing two pointers.
    specs: Shared<NodeNetworkProfileSpec>,
    label_keys: Shared<[Box<str>]>,
}

impl ClusterState {
    /// A world from whole lists.
    #[must_use]
    pub fn of<'a>(
        nodes: impl IntoIterator<Item = &'a ObservedNode>,
        tunings: impl IntoIterator<Item = &'a NodeNetworkTuning>,
        profiles: impl IntoIterator<Item = &'a NodeNetworkProfile>,
    ) -> Self {
        let mut world = Self {
            tunings: tunings
                .into_iter()
                .map(|tuning| (name(&tuning.metadata), PlannedTuning::new(tuning)))
                .collect(),
            ..Self::default()
        };
        for node in nodes {
            world.insert_node(name(&node.metadata), PlannedNode::new(node));
        }
        for profile in profiles {
            world.insert_profile(name(&profile.metadata), PlannedProfile::new(profile));
        }
        world
    }

    /// The same world, with the agents' Pods: whether each node's is ready. A node that is not named
    /// has none.
    #[must_use]
    pub fn with_agents<'a>(mut self, pods: impl IntoIterator<Item = (&'a str, bool)>) -> Self {
        for (node, ready) in pods {
            self.agents.add_one(node, ready);
        }
        self.agents.complete();
        self
    }

    /// The same world, where Nodes are created with the startup taint.
    #[must_use]
    pub fn with_startup_taint(self) -> Self {
        Self {
            startup_taint: true,
            ..self
        }
    }

    pub(crate) fn insert_node(&mut self, name: Arc<str>, mut node: PlannedNode) {
        node.labels = node.labels.sharing(&mut self.label_keys);
        self.nodes.insert(name, node);
    }

    /// What a profile says as its Node does is kept once.
    pub(crate) fn insert_profile(&mut self, name: Arc<str>, mut profile: PlannedProfile) {
        profile.behaviour = profile.behaviour.map(|spec| self.specs.share(spec));
        let Some((known, node)) = self.nodes.get_key_value(&name) else {
            self.profiles.insert(name, profile);
            return;
        };
        if profile.owner_uid == node.uid {
            profile.owner_uid = Arc::clone(&node.uid);
        }
        if let Some(reported) = &mut profile.reported
            && reported.boot_id == node.boot_id
        {
            reported.boot_id = Arc::clone(&node.boot_id);
        }
        self.profiles.insert(Arc::clone(known), profile);
    }

    /// How many tunings there are.
    #[must_use]
    pub fn tunings(&self) -> usize {
        self.tunings.len()
    }

    /// The tunings' names, each with the nodes that its status counts, and whether its rollout goes no
    /// further.
    pub fn counts(&self) -> impl Iterator<Item = (&str, NodesCount, bool)> {
        self.tunings.iter().map(|(name, tuning)| {
            let status = &tuning.status;
            let ready = conditions::find(&status.conditions, READY);
            let stopped = ready.is_some_and(|ready| ready.reason == reasons::ROLLOUT_STOPPED);
            (&**name, status.nodes.unwrap_or_default(), stopped)
        })
    }

    /// The uid of a tuning.
    #[must_use]
    pub fn tuning_uid(&self, name: &str) -> Option<&str> {
        self.tunings.get(name).map(|tuning| &*tuning.uid)
    }

    /// How many Nodes there are.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }
}

fn name(meta: &ObjectMeta) -> Arc<str> {
    meta.name.as_deref().unwrap_or_default().into()
}

/// A tuning in the [`ClusterState`].
#[derive(Debug)]
pub struct PlannedTuning {
    pub(crate) uid: Arc<str>,
    pub(crate) generation: Option<i64>,
    pub(crate) resource_version: Arc<str>,
    pub(crate) created: Option<Timestamp>,
    pub(crate) content: TuningContent,
    pub(crate) status: NodeNetworkTuningStatus,
}

/// What a tuning says, or why it cannot be used.
#[derive(Debug)]
pub enum TuningContent {
    /// Valid.
    Usable(Box<UsableTuning>),
    /// An older schema let it in, or it cannot be read: its nodes stay as they are.
    Unusable {
        /// Why.
        error: String,
        /// Which nodes it selects and how urgently, where that much could be read.
        claim: Option<(NodeLabels, i32)>,
    },
}

/// A valid tuning.
#[derive(Debug)]
pub struct UsableTuning {
    pub(crate) policy: Policy,
    pub(crate) selector: NodeLabels,
    pub(crate) priority: i32,
    pub(crate) mode: Mode,
    pub(crate) release_policy: ReleasePolicy,
    pub(crate) rollout: Rollout,
}

impl PlannedTuning {
    /// Takes a tuning that could be read.
    #[must_use]
    pub fn new(tuning: &NodeNetworkTuning) -> Self {
        let content = match usable(&tuning.spec) {
            Ok(content) => TuningContent::Usable(Box::new(content)),
            Err(error) => TuningContent::Unusable {
                error: error.sentence(),
                claim: NodeLabels::try_from(&tuning.spec.node_selector)
                    .ok()
                    .map(|labels| (labels, tuning.spec.priority)),
            },
        };
        let status = tuning.status.clone().unwrap_or_default();
        Self::with(&tuning.metadata, content, status)
    }

    /// Takes one whose spec could not be read.
    #[must_use]
    pub fn unreadable(meta: &ObjectMeta, status: NodeNetworkTuningStatus, error: &str) -> Self {
        let content = TuningContent::Unusable {
            error: format!("spec cannot be read: {error}"),
            claim: None,
        };
        Self::with(meta, content, status)
    }

    fn with(meta: &ObjectMeta, content: TuningContent, status: NodeNetworkTuningStatus) -> Self {
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            generation: meta.generation,
            resource_version: meta.resource_version.as_deref().unwrap_or_default().into(),
            created: meta.creation_timestamp.as_ref().map(|time| time.0),
            content,
            status,
        }
    }
}

fn usable(spec: &NodeNetworkTuningSpec) -> Result<UsableTuning, InvalidTuning> {
    Ok(UsableTuning {
        policy: Policy::try_from(spec)?,
        selector: NodeLabels::try_from(&spec.node_selector)?,
        priority: spec.priority,
        mode: spec.mode,
        release_policy: spec.release_policy,
        rollout: Rollout::try_from(spec)?,
    })
}

/// A profile in the [`ClusterState`]: a digest, not the whole object.
#[derive(Debug)]
pub struct PlannedProfile {
    pub(crate) uid: Arc<str>,
    pub(crate) resource_version: Arc<str>,
    pub(crate) generation: Option<i64>,
    pub(crate) owner_uid: Arc<str>,
    /// Its spec without the reasons, which are those of their moment, and without the mark of a
    /// canary; `None` where it cannot be read.
    pub(crate) behaviour: Option<Arc<NodeNetworkProfileSpec>>,
    /// Whether a rollout wrote it to a Ready node.
    pub(crate) canary: bool,
    pub(crate) reported: Option<Reported>,
    pub(crate) facts: Option<ProfileFacts>,
    pub(crate) peaks: Peaks,
}

/// What a node's agent has said, as far as decisions need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reported {
    pub(crate) observed_generation: Option<i64>,
    pub(crate) boot_id: Arc<str>,
    pub(crate) ready: bool,
    pub(crate) drifted: bool,
    released: bool,
    /// What of its originals was not put back, where it has released.
    pub(crate) left: Option<Arc<str>>,
    /// Whether a table of its node is full now.
    overflows: bool,
    /// Whether `Ready` is there and not `Unknown`.
    pub(crate) speaks: bool,
    /// When `Ready` turned last, by the clock of who turned it.
    pub(crate) turned: Option<Timestamp>,
    /// Whether the operator has said there that the agent is unresponsive.
    pub(crate) is_silenced: bool,
    /// The message of `Ready` where a key has failed.
    pub(crate) failure: Option<Arc<str>>,
}

impl PlannedProfile {
    /// Takes a profile that could be read.
    #[must_use]
    pub fn new(profile: &NodeNetworkProfile) -> Self {
        Self::of(
            &profile.metadata,
            Some(profile.spec.clone()),
            profile.status.as_ref(),
        )
    }

    /// Takes what of a profile could be read. A spec that could not is written anew where a tuning
    /// has the node; a status that could not is none.
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
            behaviour: spec.map(|spec| Arc::new(behaviour(spec))),
            reported: status.map(Reported::new),
            facts: status.and_then(|status| status.facts.clone()),
            peaks: status.map(Peaks::of).unwrap_or_default(),
        }
    }
}

impl PlannedProfile {
    /// Whether a table of its node is full.
    pub(crate) fn overflows(&self) -> bool {
        let reported = self.reported.as_ref();
        reported.is_some_and(|reported| reported.overflows)
    }

    /// Whether it makes the node hold what this spec says.
    #[must_use]
    pub fn says(&self, spec: &NodeNetworkProfileSpec) -> bool {
        let own = self.behaviour.as_ref();
        own.is_some_and(|own| **own == behaviour(spec.clone()))
    }

    /// What the agent says, where that is about this generation of the profile and this boot.
    pub(crate) fn reported_now(&self, node: &PlannedNode) -> Option<&Reported> {
        self.reported.as_ref().filter(|reported| {
            let this_boot = node.boot_id.is_empty() || reported.boot_id == node.boot_id;
            this_boot && reported.observed_generation == self.generation
        })
    }
}

/// Whether two specs make a node hold the same, whatever their reasons and the mark of a canary are.
#[must_use]
pub fn eq_ignoring_reasons(one: &NodeNetworkProfileSpec, other: &NodeNetworkProfileSpec) -> bool {
    behaviour(one.clone()) == behaviour(other.clone())
}

/// A spec without the reasons and the mark of a canary: two specs that are equal so make a node hold
/// the same.
pub(crate) fn behaviour(mut spec: NodeNetworkProfileSpec) -> NodeNetworkProfileSpec {
    spec.canary = false;
    for sysctl in &mut spec.sysctls {
        sysctl.reason = String::new();
    }
    spec
}

impl Reported {
    /// Whether the agent has given back what it could, and no key has failed.
    pub(crate) fn is_released(&self) -> bool {
        self.released && self.failure.is_none()
    }

    fn new(status: &NodeNetworkProfileStatus) -> Self {
        let ready = conditions::find(&status.conditions, READY);
        let failure = ready
            .filter(|ready| match ready.reason.as_str() {
                reasons::FAILED | reasons::INVALID => true,
                // Also where every key was answered for: one could not be written.
                reasons::PARTLY_RESTORED => ready.status == "False",
                _ => false,
            })
            .map(|ready| ready.message.as_str().into());
        let released = conditions::find(&status.conditions, RELEASED)
            .filter(|released| released.status == "True");
        let left = released
            .filter(|released| released.reason == reasons::PARTLY_RESTORED)
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

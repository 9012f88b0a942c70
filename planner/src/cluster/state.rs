//! Everything that is known of the cluster at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::api::ObjectMeta;
use nettune_crds::conditions::{self, READY, reasons};
use nettune_crds::{NodeNetworkProfile, NodeNetworkProfileSpec, NodeNetworkTuning, NodesCount};

use crate::cluster::agent_pods::Agents;
use crate::cluster::intern::Interner;
use crate::cluster::node::{ObservedNode, PlannedNode};
use crate::cluster::profile::PlannedProfile;
use crate::cluster::tuning::PlannedTuning;

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
    specs: Interner<NodeNetworkProfileSpec>,
    label_keys: Interner<[Box<str>]>,
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
        profile.normalized = profile.normalized.map(|spec| self.specs.intern(spec));
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

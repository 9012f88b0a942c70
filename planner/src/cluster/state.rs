//! The cluster at one moment.

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
/// It comes only from [`Cache::state`](crate::Cache::state) when all three lists are complete, or from
/// [`ClusterState::of`] with complete lists: a decision from half a list would release nodes that are not
/// listed yet.
#[derive(Debug, Default)]
pub struct ClusterState {
    pub(crate) nodes: BTreeMap<Arc<str>, PlannedNode>,
    pub(crate) tunings: BTreeMap<Arc<str>, PlannedTuning>,
    pub(crate) profiles: BTreeMap<Arc<str>, PlannedProfile>,
    pub(crate) agents: Agents,
    /// Whether the startup taint is removed.
    pub(crate) startup_taint: bool,
    /// Nodes whose last write of the profile was rejected, and why.
    pub(crate) refused: BTreeMap<Arc<str>, Arc<str>>,
    /// Nodes of a group share one spec, so comparing two specs compares two pointers.
    specs: Interner<NodeNetworkProfileSpec>,
    labels: Interner<str>,
}

impl ClusterState {
    /// From complete lists.
    #[must_use]
    pub fn of<'a>(
        nodes: impl IntoIterator<Item = &'a ObservedNode>,
        tunings: impl IntoIterator<Item = &'a NodeNetworkTuning>,
        profiles: impl IntoIterator<Item = &'a NodeNetworkProfile>,
    ) -> Self {
        let mut cluster = Self {
            tunings: tunings
                .into_iter()
                .map(|tuning| (name(&tuning.metadata), PlannedTuning::new(tuning)))
                .collect(),
            ..Self::default()
        };
        for node in nodes {
            cluster.insert_node(name(&node.metadata), PlannedNode::new(node));
        }
        for profile in profiles {
            cluster.insert_profile(name(&profile.metadata), PlannedProfile::new(profile));
        }
        cluster
    }

    /// Adds the agents' Pods: whether each node's is ready. A node that is not named has none.
    #[must_use]
    pub fn with_agents<'a>(mut self, pods: impl IntoIterator<Item = (&'a str, bool)>) -> Self {
        for (node, ready) in pods {
            self.agents.add_one(node, ready);
        }
        self.agents.complete();
        self
    }

    /// Turns on the removal of the startup taint.
    #[must_use]
    pub fn with_startup_taint(self) -> Self {
        Self {
            startup_taint: true,
            ..self
        }
    }

    pub(crate) fn insert_node(&mut self, name: Arc<str>, mut node: PlannedNode) {
        node.labels = node.labels.sharing(&mut self.labels);
        self.nodes.insert(name, node);
    }

    /// Shares strings between a profile and its Node.
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

    #[must_use]
    pub fn tunings(&self) -> usize {
        self.tunings.len()
    }

    /// The tunings' names, each with the node counts of its status, and whether its rollout has stopped.
    pub fn counts(&self) -> impl Iterator<Item = (&str, NodesCount, bool)> {
        self.tunings.iter().map(|(name, tuning)| {
            let status = &tuning.status;
            let ready = conditions::find(&status.conditions, READY);
            let stopped = ready.is_some_and(|ready| ready.reason == reasons::ROLLOUT_STOPPED);
            (&**name, status.nodes.unwrap_or_default(), stopped)
        })
    }

    #[must_use]
    pub fn tuning_uid(&self, name: &str) -> Option<&str> {
        self.tunings.get(name).map(|tuning| &*tuning.uid)
    }

    #[must_use]
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }
}

fn name(meta: &ObjectMeta) -> Arc<str> {
    meta.name.as_deref().unwrap_or_default().into()
}

//! Nodes that are sized alike: sizes are computed once for each group, not for each node.

use std::collections::HashMap;
use std::sync::Arc;

use nettune_crds::{NodeNetworkProfileSpec, ProfileSysctl};
use nettune_sizing::{ClusterFacts, NodeFacts, Sizes, size};

use crate::World;
use crate::select::{Claims, Owner};
use crate::world::{PlannedProfile, UsableTuning, behaviour};

/// Nodes of one tuning with equal facts, and so with equal sizes.
#[derive(Debug)]
pub struct Group {
    /// The tuning's name.
    pub tuning: Arc<str>,
    /// What is known of each of its nodes.
    pub facts: NodeFacts,
    /// How the pod network was found.
    pub evidence: &'static str,
    /// What each shall hold.
    pub sizes: Sizes,
    /// How many nodes.
    pub nodes: usize,
    /// The spec that each of their profiles shall have.
    pub(crate) spec: Arc<NodeNetworkProfileSpec>,
    /// The same without the reasons.
    behaviour: Arc<NodeNetworkProfileSpec>,
    /// The behaviour that was last found equal: most nodes of a group share one.
    known_equal: Option<Arc<NodeNetworkProfileSpec>>,
}

impl Group {
    /// Whether a profile says already what it shall say.
    pub(crate) fn holds_in(&mut self, profile: &PlannedProfile) -> bool {
        let Some(present) = &profile.behaviour else {
            return false;
        };
        if let Some(known) = &self.known_equal
            && Arc::ptr_eq(known, present)
        {
            return true;
        }
        let equal = *present == self.behaviour;
        if equal {
            self.known_equal = Some(Arc::clone(present));
        }
        equal
    }
}

/// All groups of a world, made as its nodes are gone through.
pub(crate) struct Groups {
    cluster: ClusterFacts,
    all: Vec<Group>,
    index: HashMap<(usize, NodeFacts, &'static str), usize>,
}

impl Groups {
    pub(crate) fn new(cluster: ClusterFacts) -> Self {
        Self {
            cluster,
            all: Vec::new(),
            index: HashMap::new(),
        }
    }

    /// Counts a node of the claim with this index into its group, and says which group that is.
    pub(crate) fn put(
        &mut self,
        owner: usize,
        name: &Arc<str>,
        tuning: &UsableTuning,
        facts: NodeFacts,
        evidence: &'static str,
    ) -> usize {
        let Self {
            cluster,
            all,
            index,
        } = self;
        let group = *index
            .entry((owner, facts, evidence))
            .or_insert_with_key(|(_, facts, _)| {
                all.push(make(name, tuning, cluster, facts.clone(), evidence));
                all.len() - 1
            });
        if let Some(group) = all.get_mut(group) {
            group.nodes += 1;
        }
        group
    }

    pub(crate) fn get_mut(&mut self, group: usize) -> Option<&mut Group> {
        self.all.get_mut(group)
    }

    pub(crate) fn cluster(&self) -> ClusterFacts {
        self.cluster
    }

    pub(crate) fn into_all(self) -> Vec<Group> {
        self.all
    }
}

fn make(
    name: &Arc<str>,
    tuning: &UsableTuning,
    cluster: &ClusterFacts,
    facts: NodeFacts,
    evidence: &'static str,
) -> Group {
    let sizes = size(&tuning.policy, cluster, &facts);
    let spec = NodeNetworkProfileSpec {
        tuning: name.to_string(),
        mode: tuning.mode,
        release_policy: tuning.release_policy,
        sysctls: sizes.sysctls.iter().map(ProfileSysctl::from).collect(),
        release: false,
    };
    Group {
        tuning: Arc::clone(name),
        facts,
        evidence,
        sizes,
        nodes: 0,
        behaviour: Arc::new(behaviour(&spec)),
        spec: Arc::new(spec),
        known_equal: None,
    }
}

/// What the model is told of the whole cluster: all nodes that are on a network.
pub(crate) fn cluster_facts(world: &World) -> ClusterFacts {
    let real = world.nodes.values().filter(|node| node.real);
    let (nodes, pods) = real.fold((0_u32, 0_u64), |(nodes, pods), node| {
        (
            nodes.saturating_add(1),
            pods.saturating_add(node.facts.pods.into()),
        )
    });
    ClusterFacts { nodes, pods }
}

/// The groups of a world with the names of their nodes, largest group first: what `kubectl nettune
/// plan` shows. The operator's own path sizes with the same code and keeps no names.
#[must_use]
pub fn group_nodes(world: &World) -> Vec<(Group, Vec<Arc<str>>)> {
    let mut claims = Claims::of(world);
    let mut groups = Groups::new(cluster_facts(world));
    let mut names: Vec<Vec<Arc<str>>> = Vec::new();
    for (node_name, node) in &world.nodes {
        let profile = world.profiles.get(node_name);
        let Owner::Claim(owner) = claims.owner(node, profile) else {
            continue;
        };
        let claim = claims.all.get(owner);
        let Some((name, tuning)) = claim.and_then(|claim| Some((claim.name, claim.usable?))) else {
            continue;
        };
        let facts = node.facts(profile.and_then(|profile| profile.facts.as_ref()));
        let group = groups.put(owner, name, tuning, facts, node.evidence.source);
        names.resize_with(names.len().max(group + 1), Vec::new);
        if let Some(names) = names.get_mut(group) {
            names.push(Arc::clone(node_name));
        }
    }
    let mut all: Vec<_> = groups.into_all().into_iter().zip(names).collect();
    all.sort_by_key(|(group, _)| std::cmp::Reverse(group.nodes));
    all
}

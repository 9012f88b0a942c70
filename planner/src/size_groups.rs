//! Nodes that are sized alike: sizes are computed once for each group, not for each node.

use std::collections::HashMap;
use std::sync::Arc;

use nettune_crds::{NodeNetworkProfileSpec, ProfileSysctl};
use nettune_sizing::{
    ClusterFacts, DesiredValue, NodeFacts, PodNetworkChoice, Policy, Sizes, SysctlKey, keys, size,
};

use crate::assign::{Claims, Owner};
use crate::cluster::cni::{self as evidence, Evidence};
use crate::cluster::node::PlannedNode;
use crate::cluster::peaks::Peaks;
use crate::cluster::profile::{PlannedProfile, behaviour};
use crate::cluster::state::ClusterState;
use crate::cluster::tuning::UsableTuning;

/// Nodes of one tuning with equal facts, and so with equal sizes.
#[derive(Debug)]
pub struct Group {
    /// The tuning's name.
    pub tuning: Arc<str>,
    /// What is known of each of its nodes.
    pub facts: NodeFacts,
    /// How the pod network was found.
    pub evidence: String,
    /// The pod network that is sized for, and why that one.
    pub(crate) pod_network: String,
    /// What each shall hold.
    pub sizes: Sizes,
    /// How many nodes.
    pub nodes: usize,
    /// The spec that each of their profiles shall have in the end.
    pub(crate) spec: Arc<NodeNetworkProfileSpec>,
    /// The same without the reasons.
    pub(crate) behaviour: Arc<NodeNetworkProfileSpec>,
    /// A behaviour that was found equal: the nodes of a group share one, so that it is compared once.
    known_equal: Option<Arc<NodeNetworkProfileSpec>>,
}

impl Group {
    /// Whether this is what its nodes shall hold in the end.
    pub(crate) fn wants(&mut self, behaviour: &Arc<NodeNetworkProfileSpec>) -> bool {
        if let Some(known) = &self.known_equal
            && Arc::ptr_eq(known, behaviour)
        {
            return true;
        }
        let equal = *behaviour == self.behaviour;
        if equal {
            self.known_equal = Some(Arc::clone(behaviour));
        }
        equal
    }

    /// Whether a limit would be lowered to less than twice what its nodes were seen to use.
    pub(crate) fn would_cut(&self, sysctl: &ProfileSysctl) -> bool {
        let peak = if NEIGHBORS.iter().any(|key| sysctl.name == key.name()) {
            self.facts.neighbors_peak
        } else if CONNTRACK.iter().any(|key| sysctl.name == key.name()) {
            self.facts.conntrack_peak
        } else {
            None
        };
        let least = peak.map_or(0, |peak| peak.saturating_mul(2));
        sysctl.value.parse::<u64>().is_ok_and(|value| value < least)
    }
}

/// The limits of the neighbour tables. gc_thresh1 is none: below it nothing is collected.
const NEIGHBORS: [&SysctlKey; 4] = [
    &keys::IPV4_GC_THRESH2,
    &keys::IPV4_GC_THRESH3,
    &keys::IPV6_GC_THRESH2,
    &keys::IPV6_GC_THRESH3,
];

/// The limits of the conntrack table.
const CONNTRACK: [&SysctlKey; 2] = [&keys::NF_CONNTRACK_MAX, &keys::NF_CONNTRACK_BUCKETS];

/// What nodes are grouped by: the claim's index, the facts and how they were found.
type Alike = (usize, NodeFacts, Evidence);

/// All groups of a world, made as its nodes are gone through.
pub(crate) struct Groups {
    cluster: ClusterFacts,
    all: Vec<Group>,
    index: HashMap<Alike, usize>,
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
        node: &PlannedNode,
        profile: Option<&PlannedProfile>,
    ) -> usize {
        let facts = node.facts(profile.and_then(|profile| profile.facts.as_ref()));
        let alike = (owner, facts, node.evidence);
        let peaks = profile.map(|profile| profile.peaks).unwrap_or_default();
        let seen = (peaks != Peaks::default()).then(|| alike.clone());
        let mut group = self.find(alike, name, tuning);
        if let Some((owner, mut facts, evidence)) = seen
            && let Some(peaks) = self.all.get(group).and_then(|group| beyond(group, peaks))
        {
            facts.neighbors_peak = peaks.neighbors;
            facts.conntrack_peak = peaks.conntrack;
            group = self.find((owner, facts, evidence), name, tuning);
        }
        if let Some(group) = self.all.get_mut(group) {
            group.nodes += 1;
        }
        group
    }

    fn find(&mut self, alike: Alike, name: &Arc<str>, tuning: &UsableTuning) -> usize {
        let Self {
            cluster,
            all,
            index,
        } = self;
        *index
            .entry(alike)
            .or_insert_with_key(|(_, facts, evidence)| {
                all.push(make(name, tuning, cluster, facts.clone(), *evidence));
                all.len() - 1
            })
    }

    pub(crate) fn get(&self, group: usize) -> Option<&Group> {
        self.all.get(group)
    }

    pub(crate) fn get_mut(&mut self, group: usize) -> Option<&mut Group> {
        self.all.get_mut(group)
    }

    pub(crate) fn cluster(&self) -> ClusterFacts {
        self.cluster
    }

    /// Those that have nodes: a group whose nodes all have their peaks has none itself.
    pub(crate) fn into_all(self) -> impl Iterator<Item = Group> {
        self.all.into_iter().filter(|group| group.nodes > 0)
    }
}

/// The peaks, where one of them asks for more than the model gives.
fn beyond(group: &Group, peaks: Peaks) -> Option<Peaks> {
    let held = |key: &SysctlKey| match &group.sizes.get(key)?.wanted {
        DesiredValue::AtLeast(bounds) => Some(bounds.floor()),
        DesiredValue::Exact(_) => None,
    };
    let asks_for_more = |peak: Option<u64>, key, percent: u64| {
        let (peak, held) = (peak?, held(key)?);
        (peak.saturating_mul(percent) / 100 > held).then_some(peak)
    };
    // The model takes twice five quarters of the neighbours for gc_thresh2, and twice the connections.
    let beyond = Peaks {
        neighbors: asks_for_more(peaks.neighbors, &keys::IPV4_GC_THRESH2, 250),
        conntrack: asks_for_more(peaks.conntrack, &keys::NF_CONNTRACK_MAX, 200),
    };
    (beyond != Peaks::default()).then_some(beyond)
}

fn make(
    name: &Arc<str>,
    tuning: &UsableTuning,
    cluster: &ClusterFacts,
    facts: NodeFacts,
    evidence: Evidence,
) -> Group {
    let sizes = size(&tuning.policy, cluster, &facts);
    let spec = NodeNetworkProfileSpec {
        tuning: name.to_string(),
        mode: tuning.mode,
        release_policy: tuning.release_policy,
        sysctls: sizes.sysctls.iter().map(ProfileSysctl::from).collect(),
        release: false,
        canary: false,
    };
    Group {
        tuning: Arc::clone(name),
        facts,
        evidence: evidence.source(),
        pod_network: pod_network(&tuning.policy, evidence),
        sizes,
        nodes: 0,
        behaviour: Arc::new(behaviour(spec.clone())),
        spec: Arc::new(spec),
        known_equal: None,
    }
}

/// The pod network that is sized for, and what led to it.
fn pod_network(policy: &Policy, evidence: Evidence) -> String {
    let choice = policy.neighbors.as_ref().map(|block| block.pod_network);
    let set = match choice.unwrap_or_default() {
        PodNetworkChoice::Auto => {
            let found = evidence::name(evidence.pod_network);
            return format!("{found}: {}", evidence.source());
        }
        PodNetworkChoice::Overlay => "Overlay",
        PodNetworkChoice::Routed => "Routed",
        PodNetworkChoice::Flat => "Flat",
    };
    format!("{set}: set by the tuning")
}

/// What the model is told of the whole cluster: all nodes that are on a network.
pub(crate) fn cluster_facts(world: &ClusterState) -> ClusterFacts {
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
pub fn group_nodes(world: &ClusterState) -> Vec<(Group, Vec<Arc<str>>)> {
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
        let group = groups.put(owner, name, tuning, node, profile);
        names.resize_with(names.len().max(group + 1), Vec::new);
        if let Some(names) = names.get_mut(group) {
            names.push(Arc::clone(node_name));
        }
    }
    let named = groups.all.into_iter().zip(names);
    let mut all: Vec<_> = named.filter(|(group, _)| group.nodes > 0).collect();
    all.sort_by_key(|(group, _)| std::cmp::Reverse(group.nodes));
    all
}

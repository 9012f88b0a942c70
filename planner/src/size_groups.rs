//! Groups of nodes with equal sizes: sizes are computed once per group, not per node.

use std::collections::HashMap;
use std::sync::Arc;

use nettune_crds::{NodeNetworkProfileSpec, ProfileSysctl};
use nettune_sizing::{
    ClusterFacts, DesiredValue, NodeFacts, PodNetworkChoice, Policy, Sizes, SysctlKey, keys, size,
};

use crate::assign::{ManagedNode, assign};
use crate::cluster::cni::{self as evidence, Evidence};
use crate::cluster::peaks::Peaks;
use crate::cluster::profile::normalized;
use crate::cluster::state::ClusterState;
use crate::cluster::tuning::UsableTuning;

/// Nodes of one tuning with equal facts, and so with equal sizes.
#[derive(Debug)]
pub struct Group {
    /// The tuning's name.
    pub tuning: Arc<str>,
    /// The facts of each node.
    pub facts: NodeFacts,
    /// The signs of the pod network.
    pub evidence: String,
    /// The assumed pod network, and why.
    pub(crate) pod_network: String,
    /// The sizes of each node.
    pub sizes: Sizes,
    pub nodes: usize,
    /// The desired spec of their profiles.
    pub(crate) spec: Arc<NodeNetworkProfileSpec>,
    /// The same without the reasons.
    pub(crate) normalized: Arc<NodeNetworkProfileSpec>,
}

impl Group {
    /// Whether a limit would be less than twice the peak of its nodes.
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

/// The limits of the neighbor tables. gc_thresh1 is not a limit: below it nothing is collected.
const NEIGHBORS: [&SysctlKey; 4] = [
    &keys::IPV4_GC_THRESH2,
    &keys::IPV4_GC_THRESH3,
    &keys::IPV6_GC_THRESH2,
    &keys::IPV6_GC_THRESH3,
];

/// The limits of the conntrack table.
const CONNTRACK: [&SysctlKey; 2] = [&keys::NF_CONNTRACK_MAX, &keys::NF_CONNTRACK_BUCKETS];

/// What nodes are grouped by: the claim's index, the facts and the signs of the pod network.
type Alike<'a> = (usize, NodeFacts, &'a Evidence);

/// The index of each group.
type Index<'a> = HashMap<Alike<'a>, usize>;

/// All groups, and the group of each node.
pub(crate) struct SizeGroups {
    pub(crate) cluster: ClusterFacts,
    /// A group may have no nodes, if the peaks of all of them lead to other groups.
    pub(crate) all: Vec<Group>,
    /// The index of each node's group, in the order of the nodes.
    pub(crate) of_nodes: Vec<usize>,
}

/// Puts each node into its group, and sizes the groups.
pub(crate) fn size_groups(cluster: &ClusterState, nodes: &[ManagedNode<'_>]) -> SizeGroups {
    let mut groups = SizeGroups {
        cluster: cluster_facts(cluster),
        all: Vec::new(),
        of_nodes: Vec::with_capacity(nodes.len()),
    };
    let mut index = Index::new();
    for node in nodes {
        let group = groups.put(node, &mut index);
        groups.of_nodes.push(group);
    }
    groups
}

impl SizeGroups {
    fn put<'a>(&mut self, node: &ManagedNode<'a>, index: &mut Index<'a>) -> usize {
        let reported = node.profile.and_then(|profile| profile.facts.as_ref());
        let facts = node.node.facts(reported);
        let alike = (node.claim, facts, &node.node.evidence);
        let peaks = node
            .profile
            .map(|profile| profile.peaks)
            .unwrap_or_default();
        let seen = (peaks != Peaks::default()).then(|| alike.clone());
        let mut group = self.find(alike, node, index);
        if let Some((claim, mut facts, evidence)) = seen
            && let Some(peaks) = self.all.get(group).and_then(|group| beyond(group, peaks))
        {
            facts.neighbors_peak = peaks.neighbors;
            facts.conntrack_peak = peaks.conntrack;
            group = self.find((claim, facts, evidence), node, index);
        }
        if let Some(group) = self.all.get_mut(group) {
            group.nodes += 1;
        }
        group
    }

    fn find<'a>(
        &mut self,
        alike: Alike<'a>,
        node: &ManagedNode<'a>,
        index: &mut Index<'a>,
    ) -> usize {
        let Self { cluster, all, .. } = self;
        *index
            .entry(alike)
            .or_insert_with_key(|(_, facts, evidence)| {
                let (name, tuning) = (node.tuning_name, node.tuning);
                all.push(make(name, tuning, cluster, facts.clone(), evidence));
                all.len() - 1
            })
    }
}

/// The peaks, if one of them needs more than the model gives.
fn beyond(group: &Group, peaks: Peaks) -> Option<Peaks> {
    let held = |key: &SysctlKey| match &group.sizes.get(key)?.wanted {
        DesiredValue::AtLeast(bounds) => Some(bounds.floor()),
        DesiredValue::Exact(_) => None,
    };
    let asks_for_more = |peak: Option<u64>, key, percent: u64| {
        let (peak, held) = (peak?, held(key)?);
        (peak.saturating_mul(percent) / 100 > held).then_some(peak)
    };
    // The model gives 2 × 1.25 times the neighbors for gc_thresh2, and twice the connections.
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
    evidence: &Evidence,
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
        normalized: Arc::new(normalized(spec.clone())),
        spec: Arc::new(spec),
    }
}

/// The assumed pod network, and why.
fn pod_network(policy: &Policy, evidence: &Evidence) -> String {
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

/// The model's facts of the whole cluster: all nodes that are on a network.
pub(crate) fn cluster_facts(cluster: &ClusterState) -> ClusterFacts {
    let real = cluster.nodes.values().filter(|node| node.real);
    let (nodes, pods) = real.fold((0_u32, 0_u64), |(nodes, pods), node| {
        (
            nodes.saturating_add(1),
            pods.saturating_add(node.facts.pods.into()),
        )
    });
    ClusterFacts { nodes, pods }
}

/// The groups with the names of their nodes, largest group first: what `kubectl nettune plan` shows.
#[must_use]
pub fn group_nodes(cluster: &ClusterState) -> Vec<(Group, Vec<Arc<str>>)> {
    let assignment = assign(cluster);
    let mut nodes = [assignment.managed, assignment.recreated].concat();
    nodes.sort_by_key(|node| node.name);
    let groups = size_groups(cluster, &nodes);
    let mut names = vec![Vec::new(); groups.all.len()];
    for (node, group) in nodes.iter().zip(groups.of_nodes) {
        if let Some(names) = names.get_mut(group) {
            names.push(Arc::clone(node.name));
        }
    }
    let named = groups.all.into_iter().zip(names);
    let mut all: Vec<_> = named.filter(|(group, _)| group.nodes > 0).collect();
    all.sort_by_key(|(group, _)| std::cmp::Reverse(group.nodes));
    all
}

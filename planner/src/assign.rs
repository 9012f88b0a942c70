//! Which tuning manages which node.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nettune_crds::NodeLabels;
use nettune_sizing::Block;

use crate::cluster::node::PlannedNode;
use crate::cluster::profile::{PlannedProfile, ProfiledNode};
use crate::cluster::state::ClusterState;
use crate::cluster::tuning::{PlannedTuning, TuningContent, UsableTuning};

/// Which tuning manages which node, and what is left over.
pub(crate) struct Assignment<'a> {
    /// The tunings in the order in which they claim nodes: highest priority first, then the older, then
    /// the smaller uid.
    pub(crate) claims: Vec<Claim<'a>>,
    /// Nodes of usable tunings.
    pub(crate) managed: Vec<ManagedNode<'a>>,
    /// Nodes of usable tunings whose profile belongs to a deleted Node of the same name. That profile's status
    /// says nothing about this Node.
    pub(crate) recreated: Vec<ManagedNode<'a>>,
    /// Nodes with a profile whose tuning cannot be used now: they stay as they are.
    pub(crate) frozen: Vec<ProfiledNode<'a>>,
    /// Nodes with a profile that no tuning selects.
    pub(crate) unmanaged: Vec<ProfiledNode<'a>>,
    /// Profiles whose Node is gone.
    pub(crate) orphans: Vec<(&'a Arc<str>, &'a PlannedProfile)>,
}

/// A node of a usable tuning.
#[derive(Clone, Copy)]
pub(crate) struct ManagedNode<'a> {
    /// The index of the tuning's claim, and of its gate.
    pub(crate) claim: usize,
    pub(crate) tuning_name: &'a Arc<str>,
    pub(crate) tuning: &'a UsableTuning,
    pub(crate) name: &'a Arc<str>,
    pub(crate) node: &'a PlannedNode,
    pub(crate) profile: Option<&'a PlannedProfile>,
}

/// A tuning that claims nodes.
pub(crate) struct Claim<'a> {
    pub(crate) name: &'a Arc<str>,
    pub(crate) tuning: &'a PlannedTuning,
    labels: &'a NodeLabels,
    priority: i32,
    /// Its content; `None` if it cannot be used, and then the nodes that it claims are frozen.
    pub(crate) usable: Option<&'a UsableTuning>,
    /// The lower tunings that it hides, and on how many nodes.
    pub(crate) hides: BTreeMap<&'a str, Hidden>,
    /// How many nodes it manages.
    pub(crate) selected: i32,
    /// How many of its selected nodes belong to a higher tuning.
    pub(crate) lost: u32,
}

/// The hidden part of a lower tuning.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Hidden {
    pub(crate) nodes: u32,
    pub(crate) blocks: BTreeSet<Block>,
    pub(crate) sysctls: bool,
}

/// Assigns every node.
pub(crate) fn assign(cluster: &ClusterState) -> Assignment<'_> {
    let Claims {
        mut claims,
        unusable,
    } = claims(cluster);
    let (mut managed, mut recreated) = (Vec::new(), Vec::new());
    let (mut frozen, mut unmanaged, mut orphans) = (Vec::new(), Vec::new(), Vec::new());
    // Both maps are ordered by name: one walk over both, instead of a lookup for each node.
    let mut profiles = cluster.profiles.iter().peekable();
    for (name, node) in &cluster.nodes {
        while let Some(orphan) = profiles.next_if(|(profile, _)| *profile < name) {
            orphans.push(orphan);
        }
        let profile = profiles
            .next_if(|(profile, _)| *profile == name)
            .map(|(_, profile)| profile);
        let is_own = profile.is_none_or(|profile| profile.owner_uid == node.uid);
        let with_profile = profile.map(|profile| ProfiledNode {
            name,
            node,
            profile,
        });
        match owner(&mut claims, &unusable, node, profile) {
            Owner::Claim(claim, tuning_name, tuning) => {
                let list = if is_own { &mut managed } else { &mut recreated };
                list.push(ManagedNode {
                    claim,
                    tuning_name,
                    tuning,
                    name,
                    node,
                    profile,
                });
            }
            Owner::Frozen => frozen.extend(with_profile),
            Owner::Nobody if is_own => unmanaged.extend(with_profile),
            Owner::Nobody => orphans.extend(profile.map(|profile| (name, profile))),
        }
    }
    orphans.extend(profiles);
    Assignment {
        claims,
        managed,
        recreated,
        frozen,
        unmanaged,
        orphans,
    }
}

struct Claims<'a> {
    claims: Vec<Claim<'a>>,
    /// Names of the tunings that cannot be used.
    unusable: BTreeSet<&'a str>,
}

fn claims(cluster: &ClusterState) -> Claims<'_> {
    let mut claims = Vec::new();
    let mut unusable = BTreeSet::new();
    for (name, tuning) in &cluster.tunings {
        let (usable, claim) = match &tuning.content {
            TuningContent::Usable(content) => (
                Some(&**content),
                Some((&content.selector, content.priority)),
            ),
            TuningContent::Unusable { claim, .. } => {
                unusable.insert(&**name);
                (
                    None,
                    claim.as_ref().map(|(labels, priority)| (labels, *priority)),
                )
            }
        };
        claims.extend(claim.map(|(labels, priority)| Claim {
            name,
            tuning,
            labels,
            priority,
            usable,
            hides: BTreeMap::new(),
            selected: 0,
            lost: 0,
        }));
    }
    claims.sort_by_key(|claim| {
        (
            Reverse(claim.priority),
            claim.tuning.created,
            &claim.tuning.uid,
        )
    });
    Claims { claims, unusable }
}

enum Owner<'a> {
    /// The usable tuning of this index.
    Claim(usize, &'a Arc<str>, &'a UsableTuning),
    /// A tuning that cannot be used now.
    Frozen,
    Nobody,
}

/// Finds the owner of a node, and counts the lower tunings that it hides there.
fn owner<'a>(
    claims: &mut [Claim<'a>],
    unusable: &BTreeSet<&str>,
    node: &PlannedNode,
    profile: Option<&PlannedProfile>,
) -> Owner<'a> {
    if !node.selectable {
        return Owner::Nobody;
    }
    let written_for = profile
        .and_then(|profile| profile.normalized.as_ref())
        .map(|normalized| normalized.tuning.as_str());
    if written_for.is_some_and(|tuning| unusable.contains(tuning)) {
        return Owner::Frozen;
    }
    let matches = |claim: &Claim<'_>| claim.labels.matches(|key| node.labels.get(key));
    let Some(winner) = claims.iter().position(matches) else {
        return Owner::Nobody;
    };
    let (upper, lower) = claims.split_at_mut(winner + 1);
    let Some(claim) = upper.last_mut() else {
        return Owner::Nobody;
    };
    claim.selected += 1;
    for hidden in lower.iter_mut().filter(|claim| matches(claim)) {
        hidden.lost += 1;
        claim.hide(hidden);
    }
    match claim.usable {
        Some(usable) => Owner::Claim(winner, claim.name, usable),
        None => Owner::Frozen,
    }
}

impl<'a> Claim<'a> {
    /// Counts a node on which this claim hides another, unless that one would manage nothing.
    fn hide(&mut self, hidden: &Claim<'a>) {
        let Some(usable) = hidden.usable else { return };
        if let Some(entry) = self.hides.get_mut(&**hidden.name) {
            entry.nodes += 1;
            return;
        }
        let entry = Hidden {
            nodes: 1,
            blocks: blocks(usable),
            sysctls: !usable.policy.sysctls().is_empty(),
        };
        if entry.sysctls || !entry.blocks.is_empty() {
            self.hides.insert(hidden.name, entry);
        }
    }
}

fn blocks(tuning: &UsableTuning) -> BTreeSet<Block> {
    let policy = &tuning.policy;
    [
        policy.neighbors.as_ref().map(|_| Block::Neighbors),
        policy.conntrack.as_ref().map(|_| Block::Conntrack),
        policy.ipvs.as_ref().map(|_| Block::Ipvs),
    ]
    .into_iter()
    .flatten()
    .collect()
}

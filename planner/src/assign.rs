//! Which tuning has which node.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nettune_crds::NodeLabels;
use nettune_sizing::Block;

use crate::cluster::node::PlannedNode;
use crate::cluster::profile::PlannedProfile;
use crate::cluster::state::ClusterState;
use crate::cluster::tuning::{PlannedTuning, TuningContent, UsableTuning};

/// The tunings of a world in the order in which they claim nodes: highest priority first, then the
/// older, then the smaller uid.
pub(crate) struct Claims<'a> {
    pub(crate) all: Vec<Claim<'a>>,
    /// Names of those that cannot be used now: their nodes are frozen.
    unusable: BTreeSet<&'a str>,
}

/// A tuning that claims nodes.
pub(crate) struct Claim<'a> {
    pub(crate) name: &'a Arc<str>,
    pub(crate) tuning: &'a PlannedTuning,
    labels: &'a NodeLabels,
    priority: i32,
    /// What it says; `None` where that cannot be used, and then what it claims is frozen.
    pub(crate) usable: Option<&'a UsableTuning>,
    /// The lower tunings that it hides: on how many nodes.
    pub(crate) hides: BTreeMap<&'a str, Hidden>,
    /// How many of the nodes that it selects belong to a higher one.
    pub(crate) lost: u32,
}

/// What of a lower tuning is hidden.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Hidden {
    pub(crate) nodes: u32,
    pub(crate) blocks: BTreeSet<Block>,
    pub(crate) sysctls: bool,
}

/// Who has a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The usable tuning of this index.
    Claim(usize),
    /// A tuning that cannot be used now: the node stays as it is.
    Frozen,
    /// None.
    Nobody,
}

impl<'a> Claims<'a> {
    pub(crate) fn of(world: &'a ClusterState) -> Self {
        let mut all = Vec::new();
        let mut unusable = BTreeSet::new();
        for (name, tuning) in &world.tunings {
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
            all.extend(claim.map(|(labels, priority)| Claim {
                name,
                tuning,
                labels,
                priority,
                usable,
                hides: BTreeMap::new(),
                lost: 0,
            }));
        }
        all.sort_by_key(|claim| {
            (
                Reverse(claim.priority),
                claim.tuning.created,
                &claim.tuning.uid,
            )
        });
        Self { all, unusable }
    }

    /// Finds who has a node, and counts what that hides.
    pub(crate) fn owner(&mut self, node: &PlannedNode, profile: Option<&PlannedProfile>) -> Owner {
        if !node.selectable {
            return Owner::Nobody;
        }
        let written_for = profile
            .and_then(|profile| profile.behaviour.as_ref())
            .map(|behaviour| behaviour.tuning.as_str());
        if written_for.is_some_and(|tuning| self.unusable.contains(tuning)) {
            return Owner::Frozen;
        }
        let matches = |claim: &Claim<'_>| claim.labels.matches(|key| node.labels.get(key));
        let Some(winner) = self.all.iter().position(matches) else {
            return Owner::Nobody;
        };
        let (upper, lower) = self.all.split_at_mut(winner + 1);
        let Some(claim) = upper.last_mut() else {
            return Owner::Nobody;
        };
        for hidden in lower.iter_mut().filter(|claim| matches(claim)) {
            hidden.lost += 1;
            claim.hide(hidden);
        }
        match claim.usable {
            Some(_) => Owner::Claim(winner),
            None => Owner::Frozen,
        }
    }
}

impl<'a> Claim<'a> {
    /// Counts a node on which this claim hides another. One that would manage nothing is not hidden.
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

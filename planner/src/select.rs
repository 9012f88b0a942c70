//! Which tuning has which node.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nettune_sizing::Block;

use crate::world::{PlannedProfile, PlannedTuning, TuningContent, UsableTuning};
use crate::{PlannedNode, World};

/// The tunings of a world in the order in which they claim nodes.
pub(crate) struct Claims<'a> {
    /// Valid ones: highest priority first, then the older, then the smaller uid.
    pub(crate) usable: Vec<Claim<'a>>,
    /// Names of those that cannot be used: their nodes are frozen.
    unusable: BTreeSet<&'a str>,
}

/// A tuning that may claim nodes.
pub(crate) struct Claim<'a> {
    pub(crate) name: &'a Arc<str>,
    pub(crate) tuning: &'a PlannedTuning,
    pub(crate) usable: &'a UsableTuning,
    /// The lower tunings that it hides: on how many nodes.
    pub(crate) hides: BTreeMap<&'a str, Hidden>,
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
    pub(crate) fn of(world: &'a World) -> Self {
        let mut usable = Vec::new();
        let mut unusable = BTreeSet::new();
        for (name, tuning) in &world.tunings {
            match &tuning.content {
                TuningContent::Usable(content) => usable.push(Claim {
                    name,
                    tuning,
                    usable: content,
                    hides: BTreeMap::new(),
                }),
                TuningContent::Unusable(_) => {
                    unusable.insert(&**name);
                }
            }
        }
        usable.sort_by_key(|claim| {
            (
                Reverse(claim.usable.priority),
                claim.tuning.created,
                &claim.tuning.uid,
            )
        });
        Self { usable, unusable }
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
        let matches = |claim: &Claim<'_>| claim.usable.selector.matches(&node.labels);
        let Some(winner) = self.usable.iter().position(matches) else {
            return Owner::Nobody;
        };
        let (upper, lower) = self.usable.split_at_mut(winner + 1);
        if let Some(claim) = upper.last_mut() {
            for hidden in lower.iter().filter(|claim| matches(claim)) {
                let entry = claim.hides.entry(hidden.name).or_default();
                if entry.nodes == 0 {
                    entry.blocks = blocks(hidden.usable);
                    entry.sysctls = !hidden.usable.policy.sysctls().is_empty();
                }
                entry.nodes += 1;
            }
        }
        Owner::Claim(winner)
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

//! The change that each managed node needs.

use std::sync::Arc;

use nettune_crds::{NodeNetworkProfileSpec, Rollout};

use crate::assign::ManagedNode;
use crate::cluster::node::PlannedNode;
use crate::cluster::profile::{PlannedProfile, ProfiledNode};
use crate::rollout::rollouts::Rollouts;
use crate::rollout::transition::{Shrink, Step, Transition, TransitionCache};
use crate::size_groups::SizeGroups;

/// The changes of all managed nodes.
pub(crate) struct Changes<'a> {
    pub(crate) existing: Vec<Change<'a>>,
    pub(crate) new_nodes: Vec<NewNode<'a>>,
}

/// The change from a node's profile to the desired spec. There may be nothing to do.
pub(crate) struct Change<'a> {
    /// The gate of the node's tuning, and its rule.
    pub(crate) gate: usize,
    pub(crate) rule: &'a Rollout,
    pub(crate) node: ProfiledNode<'a>,
    pub(crate) transition: Transition,
    /// Set if the change lowers limits.
    pub(crate) shrink: Option<Shrink>,
    /// Whether the node keeps larger limits for now.
    pub(crate) is_shrink_delayed: bool,
}

/// A node without a profile, or with one that cannot be read.
pub(crate) struct NewNode<'a> {
    pub(crate) gate: usize,
    pub(crate) name: &'a Arc<str>,
    pub(crate) node: &'a PlannedNode,
    pub(crate) profile: Option<&'a PlannedProfile>,
    /// Its group in the rollout, with the whole desired spec.
    pub(crate) group: usize,
    /// The part that cannot do harm.
    pub(crate) at_once: Arc<NodeNetworkProfileSpec>,
}

/// Finds the change of each managed node.
pub(crate) fn find_changes<'a>(
    managed: &[ManagedNode<'a>],
    sizes: &SizeGroups,
    rollouts: &mut Rollouts<'a>,
) -> Changes<'a> {
    let mut caches = Vec::new();
    caches.resize_with(sizes.all.len(), TransitionCache::default);
    let mut changes = Changes {
        existing: Vec::with_capacity(managed.len()),
        new_nodes: Vec::new(),
    };
    for (managed, group) in managed.iter().zip(&sizes.of_nodes) {
        let ManagedNode {
            claim,
            name,
            node,
            profile,
            ..
        } = *managed;
        let (Some(cache), Some(group)) = (caches.get_mut(*group), sizes.all.get(*group)) else {
            continue;
        };
        let present = profile.and_then(|profile| profile.normalized.as_ref());
        let rule = &managed.tuning.rollout;
        let found = cache.get(group, present, (claim, rule), rollouts);
        if let (Some(profile), Some(_)) = (profile, present) {
            changes.existing.push(Change {
                gate: claim,
                rule,
                node: ProfiledNode {
                    name,
                    node,
                    profile,
                },
                transition: found.whole,
                shrink: found.shrink,
                is_shrink_delayed: false,
            });
        } else if let Step::Write(at_once) = found.whole.step {
            changes.new_nodes.push(NewNode {
                gate: claim,
                name,
                node,
                profile,
                group: found.whole.group,
                at_once,
            });
        }
    }
    changes
}

//! Nodes that no tuning selects any more: their original values are restored, node by node.

use nettune_crds::ReleasePolicy;

use crate::cluster::profile::{ProfiledNode, Reported};
use crate::priority::Priority;
use crate::rollout::rollouts::Rollouts;
use crate::rollout::transition::ReleaseCache;
use crate::write::Write;

/// The nodes that are being released, and the profiles that can go.
pub(crate) struct Releases<'a> {
    pub(crate) nodes: Vec<ReleasingNode<'a>>,
    pub(crate) deletes: Vec<(Priority, Write)>,
}

/// A node that is being released.
#[derive(Clone, Copy)]
pub(crate) struct ReleasingNode<'a> {
    /// The gate of the tuning that it leaves, and its group there.
    pub(crate) gate: usize,
    pub(crate) group: usize,
    pub(crate) node: ProfiledNode<'a>,
    pub(crate) stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It waits for its wave.
    Waiting,
    /// Its agent was asked to release.
    Requested,
    /// Its agent has restored what it could.
    Released,
}

/// Finds the progress of each release, and queues the nodes that were not asked yet.
pub(crate) fn release<'a>(
    unmanaged: &[ProfiledNode<'a>],
    rollouts: &mut Rollouts<'a>,
) -> Releases<'a> {
    let mut nodes = Vec::new();
    let mut deletes = Vec::new();
    let mut cache = ReleaseCache::default();
    for node in unmanaged {
        // A profile that cannot be read does not say how to release the node: it stays.
        let Some(normalized) = &node.profile.normalized else {
            continue;
        };
        let delete = (Priority::Removal, Write::delete(node.name, node.profile));
        if normalized.release_policy == ReleasePolicy::Retain {
            deletes.push(delete);
            continue;
        }
        let gate = rollouts.gate_of_tuning(&normalized.tuning);
        let group = cache.get(gate, normalized, rollouts);
        let stage = if !normalized.release {
            rollouts.wait(group, *node);
            Stage::Waiting
        } else if node.reported().is_some_and(Reported::is_released) {
            // The profile of a canary stays until no other node of its group is in flight.
            if !node.profile.canary {
                deletes.push(delete);
            }
            Stage::Released
        } else {
            Stage::Requested
        };
        nodes.push(ReleasingNode {
            gate,
            group,
            node: *node,
            stage,
        });
    }
    Releases { nodes, deletes }
}

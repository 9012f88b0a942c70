//! The writes of rollouts: what cannot do harm at once, the rest node by node.

use std::collections::BTreeSet;
use std::sync::Arc;

use nettune_crds::NodeNetworkProfileSpec;

use crate::cluster::profile::ProfiledNode;
use crate::memory::{ByNode, Canary};
use crate::priority::Priority;
use crate::rollout::changes::{Change, Changes, NewNode};
use crate::rollout::rollouts::Rollouts;
use crate::rollout::transition::Step;
use crate::rollout::waves::RolloutAction;
use crate::write::Write;

/// The writes of all rollouts now.
pub(crate) struct RolledOut {
    pub(crate) writes: Vec<(Priority, Write)>,
    /// Nodes that are admitted now as canaries: they keep their place until their write shows.
    pub(crate) admitted: BTreeSet<Arc<str>>,
}

/// Writes the changes that cannot do harm, those that are next, and the profiles of new nodes.
pub(crate) fn roll_out<'a>(
    changes: &Changes<'a>,
    canaries: &ByNode<Canary>,
    admitted_before: &BTreeSet<Arc<str>>,
    rollouts: &mut Rollouts<'a>,
) -> RolledOut {
    let mut writes = Vec::new();
    let mut canaries = canaries.cursor();
    for change in &changes.existing {
        match &change.transition.step {
            Step::Hold => {}
            Step::Wait => rollouts.wait(change.transition.group, change.node),
            Step::Write(spec) => {
                // A canary stays one; a node that has passed long ago does not start as one again.
                let canary = canaries.get(change.node.name);
                let is_canary = canary.is_some_and(|canary| !canary.settled);
                writes.push(write_at_once(change, spec, is_canary));
            }
        }
    }
    let mut admitted = BTreeSet::new();
    for (node, action) in rollouts.next(admitted_before) {
        let (priority, write, is_canary) = match action {
            RolloutAction::Delete => {
                let write = Write::delete(node.name, node.profile);
                (Priority::Removal, write, false)
            }
            RolloutAction::Write(spec) => {
                let is_canary = spec.canary;
                (Priority::Turn, Write::replace(node, spec), is_canary)
            }
            RolloutAction::Release { canary } => {
                (Priority::Turn, Write::release(node, canary), canary)
            }
        };
        writes.push((priority, write));
        if is_canary {
            admitted.insert(Arc::clone(node.name));
        }
    }
    let new_nodes = changes.new_nodes.iter();
    writes.extend(
        new_nodes.filter_map(|new| Some((Priority::NewNode, write_new_node(new, rollouts)?))),
    );
    RolledOut { writes, admitted }
}

fn write_at_once(
    change: &Change<'_>,
    spec: &Arc<NodeNetworkProfileSpec>,
    is_canary: bool,
) -> (Priority, Write) {
    let mut spec = Arc::clone(spec);
    if is_canary {
        Arc::make_mut(&mut spec).canary = true;
    }
    let priority = if change.node.profile.overflows() {
        Priority::Overflow
    } else {
        Priority::AtOnce
    };
    (priority, Write::replace(change.node, spec))
}

/// A new node that is not Ready yet has nothing to lose and gets the whole spec, unless its rollout is stopped
/// or paused. Then it gets only what cannot do harm, like a node that is Ready.
fn write_new_node(new: &NewNode<'_>, rollouts: &Rollouts<'_>) -> Option<Write> {
    let gate = rollouts.gates.get(new.gate)?;
    let whole = rollouts.groups.get(new.group)?.spec.as_ref()?;
    let everything = !gate.is_closed() && (gate.rule.all_at_once || !new.node.ready.is_true());
    let spec = Arc::clone(if everything { whole } else { &new.at_once });
    Some(match new.profile {
        None => Write::CreateProfile {
            node: Arc::clone(new.name),
            node_uid: Arc::clone(&new.node.uid),
            spec,
        },
        Some(profile) => {
            let node = ProfiledNode {
                name: new.name,
                node: new.node,
                profile,
            };
            Write::replace(node, spec)
        }
    })
}

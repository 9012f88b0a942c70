//! Transitions from a profile to the desired spec, computed once for all equal nodes.

use std::sync::Arc;

use nettune_crds::{NodeNetworkProfileSpec, Rollout};

use crate::cluster::profile::normalized;
use crate::rollout::rollouts::Rollouts;
use crate::rollout::safe_changes::{at_once, not_lowered};
use crate::size_groups::Group;

/// What is next for a profile.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Nothing: it is up to date.
    Hold,
    /// This cannot do harm, and is written at once.
    Write(Arc<NodeNetworkProfileSpec>),
    /// The rest waits for its wave.
    Wait,
}

/// The transition to the spec of one group of a rollout.
#[derive(Debug, Clone)]
pub(crate) struct Transition {
    pub(crate) group: usize,
    pub(crate) step: Step,
}

/// A change that lowers limits, and how to delay that.
#[derive(Debug, Clone)]
pub(crate) struct Shrink {
    /// The change without the lowered limits.
    pub(crate) without: Transition,
    /// The sizes of the node's group. When they change, the wait starts again.
    pub(crate) wanted: Arc<NodeNetworkProfileSpec>,
}

/// The transition of profiles with equal content and equal desired specs.
#[derive(Debug, Clone)]
pub(crate) struct Transitions {
    /// To the whole desired spec.
    pub(crate) whole: Transition,
    /// Set if it lowers limits.
    pub(crate) shrink: Option<Shrink>,
}

/// The transitions of one size group, by the content of a profile; `None` if there is no profile or it cannot be
/// read. There are few: equal profiles share one spec.
#[derive(Debug, Default)]
pub(crate) struct TransitionCache<'a>(Vec<(Option<&'a Arc<NodeNetworkProfileSpec>>, Transitions)>);

impl<'a> TransitionCache<'a> {
    /// From a profile to the spec of its group. The gate is that of the group's tuning.
    pub(crate) fn get(
        &mut self,
        group: &Group,
        present: Option<&'a Arc<NodeNetworkProfileSpec>>,
        (gate, rule): (usize, &Rollout),
        rollouts: &mut Rollouts<'_>,
    ) -> Transitions {
        if let Some((_, found)) = self.0.iter().find(|(known, _)| *known == present) {
            return found.clone();
        }
        let used = "because the node has used more than half of the desired limit";
        let roomy = present.and_then(|present| {
            not_lowered(present, &group.spec, used, |sysctl| group.would_cut(sysctl))
        });
        let wanted = roomy.as_ref().unwrap_or(&group.spec);
        let seconds = rule.shrink_after.as_secs();
        let patience = format!("until a smaller value has been desired for {seconds} s");
        let kept = present.and_then(|present| not_lowered(present, wanted, &patience, |_| true));
        let found = Transitions {
            shrink: kept.map(|kept| Shrink {
                without: transition((gate, rule), present, &kept, rollouts),
                wanted: Arc::clone(&group.normalized),
            }),
            whole: transition((gate, rule), present, wanted, rollouts),
        };
        self.0.push((present, found.clone()));
        found
    }
}

/// The rollout groups of releases, by the content of a profile.
#[derive(Debug, Default)]
pub(crate) struct ReleaseCache<'a>(Vec<(&'a Arc<NodeNetworkProfileSpec>, usize)>);

impl<'a> ReleaseCache<'a> {
    /// The group of profiles with this content that are to be released.
    pub(crate) fn get(
        &mut self,
        gate: usize,
        present: &'a Arc<NodeNetworkProfileSpec>,
        rollouts: &mut Rollouts<'_>,
    ) -> usize {
        if let Some((_, group)) = self.0.iter().find(|(known, _)| *known == present) {
            return *group;
        }
        let released = NodeNetworkProfileSpec {
            release: true,
            ..(**present).clone()
        };
        let group = rollouts.group(gate, &released);
        self.0.push((present, group));
        group
    }
}

fn transition(
    (gate, rule): (usize, &Rollout),
    present: Option<&Arc<NodeNetworkProfileSpec>>,
    wanted: &NodeNetworkProfileSpec,
    rollouts: &mut Rollouts<'_>,
) -> Transition {
    let group = rollouts.group(gate, wanted);
    let end = normalized(wanted.clone());
    if present.is_some_and(|present| **present == end) {
        let step = Step::Hold;
        return Transition { group, step };
    }
    let at_once = at_once(present.map(|present| &**present), wanted);
    // If all nodes may change now, one write does both. New nodes are handled separately.
    let is_everybodys_turn = rule.all_at_once && !rule.paused && present.is_some();
    let is_apart = at_once.urgent && !is_everybodys_turn;
    let step = if normalized(at_once.spec.clone()) == end || is_apart {
        Step::Write(Arc::new(at_once.spec))
    } else {
        Step::Wait
    };
    Transition { group, step }
}

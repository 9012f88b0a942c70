//! The way of each kind of profile to what its group shall hold, found once for all that are alike.

use std::collections::HashMap;
use std::sync::Arc;

use nettune_crds::{NodeNetworkProfileSpec, Rollout};

use crate::cluster::profile::behaviour;
use crate::rollout::gate::Rollouts;
use crate::rollout::safe_changes::{at_once, not_lowered};
use crate::size_groups::Group;

/// What is next for a profile.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// It says what it shall.
    Holds,
    /// This can do no harm, and goes out at once.
    Write(Arc<NodeNetworkProfileSpec>),
    /// What is left takes its turn.
    Turn,
}

/// The way to one target.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) target: usize,
    pub(crate) step: Step,
}

/// The ways of profiles that say the same, in a group.
#[derive(Debug)]
pub(crate) struct Ways {
    /// To all that is wanted.
    pub(crate) whole: Plan,
    /// To all but the limits that it lowers; `None` where it lowers none.
    pub(crate) kept: Option<Plan>,
}

/// By the group, and by the one place where equal behaviours of this world are kept.
type Alike = (usize, *const NodeNetworkProfileSpec);

/// All ways that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Plans {
    ways: HashMap<Alike, Ways>,
    releases: HashMap<*const NodeNetworkProfileSpec, usize>,
}

impl Plans {
    /// From what a profile says to what its group wants. The gate is that of the group's tuning.
    pub(crate) fn between(
        &mut self,
        index: usize,
        group: &Group,
        present: Option<&Arc<NodeNetworkProfileSpec>>,
        (gate, rule): (usize, &Rollout),
        rollouts: &mut Rollouts<'_>,
    ) -> &Ways {
        let place = present.map_or(std::ptr::null(), Arc::as_ptr);
        self.ways.entry((index, place)).or_insert_with(|| {
            let used = "because the node was seen to use more than half of what is wanted";
            let roomy = present.and_then(|present| {
                not_lowered(present, &group.spec, used, |sysctl| group.would_cut(sysctl))
            });
            let wanted = roomy.as_ref().unwrap_or(&group.spec);
            let seconds = rule.shrink_after.as_secs();
            let patience = format!("until less has been wanted for {seconds} s");
            let kept =
                present.and_then(|present| not_lowered(present, wanted, &patience, |_| true));
            Ways {
                kept: kept.map(|kept| plan((gate, rule), present, &kept, rollouts)),
                whole: plan((gate, rule), present, wanted, rollouts),
            }
        })
    }

    /// From what a profile says to its release.
    pub(crate) fn release(
        &mut self,
        gate: usize,
        present: &Arc<NodeNetworkProfileSpec>,
        rollouts: &mut Rollouts<'_>,
    ) -> usize {
        *self
            .releases
            .entry(Arc::as_ptr(present))
            .or_insert_with(|| {
                let released = NodeNetworkProfileSpec {
                    release: true,
                    ..(**present).clone()
                };
                rollouts.target(gate, &released)
            })
    }
}

fn plan(
    (gate, rule): (usize, &Rollout),
    present: Option<&Arc<NodeNetworkProfileSpec>>,
    wanted: &NodeNetworkProfileSpec,
    rollouts: &mut Rollouts<'_>,
) -> Plan {
    let target = rollouts.target(gate, wanted);
    let end = behaviour(wanted.clone());
    if present.is_some_and(|present| **present == end) {
        let step = Step::Holds;
        return Plan { target, step };
    }
    let at_once = at_once(present.map(|present| &**present), wanted);
    // Where everybody's turn is now, one write does both. One that is new is looked after apart.
    let is_everybodys_turn = rule.all_at_once && !rule.paused && present.is_some();
    let is_apart = at_once.urgent && !is_everybodys_turn;
    let step = if behaviour(at_once.spec.clone()) == end || is_apart {
        Step::Write(Arc::new(at_once.spec))
    } else {
        Step::Turn
    };
    Plan { target, step }
}

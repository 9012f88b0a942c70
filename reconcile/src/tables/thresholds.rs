//! Keeps the three thresholds of a table in order: each may have to follow another.

use nettune_crds::KeyState;
use nettune_sizing::{DesiredValue, Mono, SysctlKey};

use crate::desired::DesiredState;
use crate::memory::Memory;
use crate::observed::ObservedState;
use crate::outcome::{KeyOutcome, Plan};
use crate::plan::guards;
use crate::tables::limits::{FAMILIES, Family, HIGHEST, leaf};

struct Table<'a> {
    family: &'a Family,
    desired: &'a DesiredState,
    observed: &'a ObservedState,
    memory: &'a Memory,
    now: Mono,
}

/// Puts the planned thresholds in order. Afterwards every one that exists has an outcome, also if the
/// profile does not name it: another process may break the order with it.
pub(crate) fn settle(
    mut plan: Plan,
    desired: &DesiredState,
    observed: &ObservedState,
    memory: &Memory,
    now: Mono,
) -> Plan {
    for family in FAMILIES
        .iter()
        .filter(|family| family.is_managed(desired.managed()))
    {
        let table = Table {
            family,
            desired,
            observed,
            memory,
            now,
        };
        plan = table.follow_up(plan);
        plan = table.follow_down(plan);
        for key in family.keys {
            if !plan.contains_key(key) && observed.content(key).is_some() {
                plan.insert(key.clone(), KeyOutcome::holds());
            }
        }
    }
    plan
}

impl Table<'_> {
    /// Raises each threshold above the one below it, if that one stays too high: because another process
    /// raised it, or because the table is too full to lower it. Garbage collection needs room between
    /// the second and the third, hence twice the lower one.
    fn follow_up(&self, mut plan: Plan) -> Plan {
        let mut below: Option<(&SysctlKey, u64)> = None;
        for (place, key) in (0..).zip(self.family.keys) {
            let Some(found) = self.observed.number(key) else {
                continue;
            };
            let highest = HIGHEST - 2 + place;
            let aim = aim(&plan, key, found);
            let fits = fit(aim, found, below.map(|(_, value)| value), highest);
            let writer = self.memory.conflicting_writer(key);
            if let Some(writer) = writer.filter(|writer| writer.waits(self.now)) {
                if fits != found {
                    let wanted = self.desired.values.get(key);
                    plan.insert(key.clone(), writer.outcome(key, wanted));
                }
                below = Some((key, found.min(highest)));
                continue;
            }
            let settled = if fits < found && self.has_just_set(key) {
                found
            } else {
                fits
            };
            if settled != aim {
                let why = match below {
                    Some((below, value)) if settled == fits => {
                        format!("it must stay above {}, which is {value}", leaf(below))
                    }
                    None if settled == fits => {
                        "the thresholds above it must fit below the kernel's maximum".to_owned()
                    }
                    _ => {
                        "it was moved to fit the thresholds next to it, and is set back when those \
                          have not changed for an hour"
                            .to_owned()
                    }
                };
                let waits_for = "lower thresholds below it";
                let outcome = self.outcome(key, found, settled, &why, waits_for);
                plan.insert(key.clone(), outcome);
            }
            below = Some((key, settled));
        }
        plan
    }

    /// Lowers each threshold below the one above it, if that one is left to another process: the kernel
    /// takes no entry past gc_thresh3, and collects none that gc_thresh2 still allows.
    fn follow_down(&self, mut plan: Plan) -> Plan {
        let mut above: Option<(&SysctlKey, u64)> = None;
        for key in self.family.keys.into_iter().rev() {
            let Some(found) = self.observed.number(key) else {
                continue;
            };
            let writer = self.memory.conflicting_writer(key);
            if writer.is_some_and(|writer| writer.is_conflict() && writer.waits(self.now)) {
                above = Some((key, found));
                continue;
            }
            let Some((contested, limit)) = above else {
                continue;
            };
            let aim = aim(&plan, key, found);
            let has_just_set = self.has_just_set(key);
            let has_followed = has_just_set && found < aim;
            if !has_followed && (aim < limit || limit == 0) {
                return plan;
            }
            let roomy = limit / 2;
            let fits = (roomy..limit).contains(&found) || (has_just_set && found < limit);
            let settled = if fits || limit == 0 { found } else { roomy };
            let full =
                guards::too_full_to_lower(key, &found.into(), &settled.into(), self.observed);
            if let Some(full) = full {
                plan.insert(key.clone(), full);
                return plan;
            }
            let leaf = leaf(contested);
            let why = format!("it must stay below {leaf}, which another process keeps changing");
            let outcome = self.outcome(key, found, settled, &why, leaf);
            plan.insert(key.clone(), outcome);
            above = Some((key, settled));
        }
        plan
    }

    /// Whether a threshold holds what the agent set recently. It is not set back at once: a process that
    /// moves the next threshold up and down would move this one too.
    fn has_just_set(&self, key: &SysctlKey) -> bool {
        let found = self.observed.content(key);
        found.is_some_and(|found| self.memory.has_just_set(key, found, self.now))
    }

    fn outcome(
        &self,
        key: &SysctlKey,
        found: u64,
        settled: u64,
        why: &str,
        waits_for: &str,
    ) -> KeyOutcome {
        if found != settled {
            return KeyOutcome::Change { to: settled.into() };
        }
        let wanted = match self.desired.values.get(key) {
            Some(DesiredValue::Exact(value)) => value.to_string(),
            Some(DesiredValue::AtLeast(bounds)) if found < bounds.floor() => {
                bounds.floor().to_string()
            }
            _ => {
                return KeyOutcome::Holds {
                    note: why.to_owned(),
                };
            }
        };
        KeyOutcome::Kept {
            state: KeyState::Waiting,
            message: format!("{wanted} is desired, but {why}"),
            waits_for: Some(waits_for.to_owned()),
        }
    }
}

/// The planned value of a threshold.
fn aim(plan: &Plan, key: &SysctlKey, found: u64) -> u64 {
    match plan.get(key) {
        Some(KeyOutcome::Change { to }) => to.number().unwrap_or(found),
        _ => found,
    }
}

/// The number nearest to the aim that leaves room for the thresholds on both sides.
fn fit(aim: u64, found: u64, below: Option<u64>, highest: u64) -> u64 {
    let Some(below) = below else {
        return aim.min(highest);
    };
    let (least, roomy) = (below + 1, below.saturating_mul(2));
    if aim >= least {
        aim.min(highest)
    } else if (least..=roomy.clamp(least, highest)).contains(&found) {
        found
    } else {
        roomy.clamp(least, highest)
    }
}

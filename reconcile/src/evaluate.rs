//! What becomes of one key: by its rule, what the kernel holds, and how full its table is.

use nettune_sizing::{DesiredValue, Mono, SysctlKey, keys};

use crate::desired::DesiredState;
use crate::guards::{too_full_to_lower, unusable};
use crate::memory::Memory;
use crate::observed::{Content, ObservedState};
use crate::outcome::{KeyOutcome, Plan};
use crate::restore;
use crate::tables::conntrack;
use crate::tables::limits::is_trimmed;
use crate::tables::thresholds;

/// What is to be done to reach a profile, before mode and failures are taken into account.
pub(crate) fn plan(
    desired: &DesiredState,
    observed: &ObservedState,
    memory: &Memory,
    now: Mono,
) -> Plan {
    let mut plan = Plan::new();
    let left_for_now = |key, wanted, outcome| match (memory.conflicting_writer(key), outcome) {
        (Some(writer), KeyOutcome::Change { .. }) if writer.waits(now) => {
            writer.outcome(key, wanted)
        }
        (_, outcome) => outcome,
    };
    for (key, wanted) in &desired.values {
        if *key != keys::NF_CONNTRACK_BUCKETS {
            let outcome = evaluate(key, wanted, observed, memory);
            plan.insert(key.clone(), left_for_now(key, Some(wanted), outcome));
        }
    }
    restore::add(&mut plan, observed, memory, |key| desired.gives_back(key));
    // After nf_conntrack_max, whose value it has to bear.
    let buckets = &keys::NF_CONNTRACK_BUCKETS;
    if let Some(wanted) = desired.values.get(buckets) {
        let outcome = unusable(buckets, observed)
            .unwrap_or_else(|| conntrack::evaluate_buckets(wanted, &plan, observed));
        plan.insert(
            buckets.clone(),
            left_for_now(buckets, Some(wanted), outcome),
        );
    }
    thresholds::settle(&mut plan, desired, observed, memory, now);
    plan
}

fn evaluate(
    key: &SysctlKey,
    wanted: &DesiredValue,
    observed: &ObservedState,
    memory: &Memory,
) -> KeyOutcome {
    if let Some(outcome) = unusable(key, observed) {
        return outcome;
    }
    let Some(now) = observed.content(key) else {
        return KeyOutcome::failed("it was not read");
    };
    let to = match wanted {
        DesiredValue::Exact(value) => Content::from(value.clone()),
        DesiredValue::AtLeast(bounds) => match now.number() {
            Some(number) if number >= bounds.floor() || chosen_zero(key, number) => {
                if number == bounds.floor() {
                    return KeyOutcome::holds();
                }
                if !memory.owns(key, now) || is_trimmed(key, number) {
                    let floor = bounds.floor();
                    let note = match number {
                        0 => {
                            format!("0 was chosen by somebody else and is left ({floor} is wanted)")
                        }
                        _ => format!("left above the {floor} that is wanted"),
                    };
                    return KeyOutcome::Holds { note };
                }
                bounds.floor().into()
            }
            _ => bounds.floor().into(),
        },
    };
    if *now == to {
        return KeyOutcome::holds();
    }
    too_full_to_lower(key, now, &to, observed).unwrap_or(KeyOutcome::Change { to })
}

/// A zero that no smaller number beats: gc_thresh1 = 0 collects early and was chosen by somebody,
/// nf_conntrack_max = 0 is no limit at all.
fn chosen_zero(key: &SysctlKey, number: u64) -> bool {
    number == 0
        && (*key == keys::NF_CONNTRACK_MAX
            || *key == keys::IPV4_GC_THRESH1
            || *key == keys::IPV6_GC_THRESH1)
}

//! The outcome of each key: from its rule, the kernel's value, and how full its table is.

use nettune_sizing::{DesiredValue, Mono, SysctlKey, keys};

use crate::desired::DesiredState;
use crate::memory::Memory;
use crate::observed::{Content, ObservedState};
use crate::outcome::{KeyOutcome, Plan};
use crate::plan::guards::{too_full_to_lower, unusable};
use crate::plan::restore;
use crate::tables::conntrack;
use crate::tables::limits::is_trimmed;
use crate::tables::thresholds;

/// What each key's own rule asks for, regardless of other keys, the mode and failures. The buckets of
/// conntrack come later ([`add_buckets`]): they depend on the outcome of nf_conntrack_max.
pub(crate) fn evaluate_each(
    desired: &DesiredState,
    observed: &ObservedState,
    memory: &Memory,
) -> Plan {
    let managed = desired.managed().iter();
    let by_rule = managed.map(|(key, value)| (key, evaluate(key, value, observed, memory)));
    let records = memory.persisted.records.iter();
    let restored = records
        .filter(|(key, _)| desired.restores(key))
        .map(|(key, record)| (key, restore::evaluate(key, record, observed, memory)));
    by_rule
        .chain(restored)
        .filter(|(key, _)| **key != keys::NF_CONNTRACK_BUCKETS)
        .map(|(key, outcome)| (key.clone(), outcome))
        .collect()
}

/// Reconciles keys that depend on each other: defers contended keys until their pause is over, fits
/// the buckets to nf_conntrack_max, and keeps the thresholds in order.
pub(crate) fn arrange(
    plan: Plan,
    desired: &DesiredState,
    observed: &ObservedState,
    memory: &Memory,
    now: Mono,
) -> Plan {
    let plan = defer_contended(plan, desired, memory, now);
    let plan = add_buckets(plan, desired, observed, memory);
    let plan = defer_contended(plan, desired, memory, now);
    thresholds::settle(plan, desired, observed, memory, now)
}

fn defer_contended(plan: Plan, desired: &DesiredState, memory: &Memory, now: Mono) -> Plan {
    let defer = |key: &SysctlKey, outcome| {
        let writer = memory
            .conflicting_writer(key)
            .filter(|writer| writer.waits(now));
        match (desired.managed().get(key), writer, &outcome) {
            (Some(value), Some(writer), KeyOutcome::Change { .. }) => {
                writer.outcome(key, Some(value))
            }
            _ => outcome,
        }
    };
    plan.into_iter()
        .map(|(key, outcome)| {
            let outcome = defer(&key, outcome);
            (key, outcome)
        })
        .collect()
}

fn add_buckets(
    mut plan: Plan,
    desired: &DesiredState,
    observed: &ObservedState,
    memory: &Memory,
) -> Plan {
    let buckets = &keys::NF_CONNTRACK_BUCKETS;
    let record = memory.persisted.records.get(buckets);
    let outcome = if let Some(value) = desired.managed().get(buckets) {
        unusable(buckets, observed)
            .unwrap_or_else(|| conntrack::evaluate_buckets(value, &plan, observed))
    } else if let Some(record) = record.filter(|_| desired.restores(buckets)) {
        restore::evaluate_buckets(record, &plan, observed, memory)
    } else {
        return plan;
    };
    plan.insert(buckets.clone(), outcome);
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
                            format!(
                                "left at 0, which another process has chosen ({floor} is desired)"
                            )
                        }
                        _ => format!("left above the desired {floor}"),
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

/// A zero that counts as more than any number: gc_thresh1 = 0 collects early on purpose, and
/// nf_conntrack_max = 0 is unlimited.
fn chosen_zero(key: &SysctlKey, number: u64) -> bool {
    number == 0
        && (*key == keys::NF_CONNTRACK_MAX
            || *key == keys::IPV4_GC_THRESH1
            || *key == keys::IPV6_GC_THRESH1)
}

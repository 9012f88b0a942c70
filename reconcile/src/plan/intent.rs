//! What must be on disk before the next write.

use nettune_sizing::{SysctlKey, Value};

use crate::desired::{DesiredState, Revision, Task};
use crate::effect::{Persisted, Record};
use crate::memory::Memory;
use crate::observed::{Content, ObservedState};
use crate::outcome::{KeyOutcome, Plan};
use crate::plan::hold_back::is_dropped;
use crate::plan::restore;

/// What must be on disk before the writes of a plan: the profile, the original of each key that is
/// written for the first time, and the value written, so that a later process recognizes it.
pub(crate) fn intent(
    desired: &DesiredState,
    observed: &ObservedState,
    plan: &Plan,
    memory: &Memory,
) -> Persisted {
    let mut intent = memory.persisted.clone();
    intent.source.clone_from(&desired.source);
    intent.overflow_raises.clone_from(&memory.overflow_raises);
    let is_current = |revision: &Revision| Some(revision) == desired.revision();
    if !intent.released.as_ref().is_some_and(is_current) {
        intent.released = None;
    }
    if !intent
        .applied_once
        .as_ref()
        .is_some_and(|done| is_current(&done.revision))
    {
        intent.applied_once = None;
    }
    if desired.task == Task::Release {
        return intent;
    }
    intent.records.retain(|key, record| {
        let is_written = matches!(plan.get(key), Some(KeyOutcome::Change { .. }));
        !is_dropped(desired, key) || is_written || !restore::is_over(key, record, observed, memory)
    });
    for (key, outcome) in plan {
        if let KeyOutcome::Change {
            to: Content::Value(to),
        } = outcome
            && let Some(now) = observed.content(key)
        {
            let record = record(memory, key, now, to);
            intent.records.insert(key.clone(), record);
        }
    }
    intent
}

fn record(memory: &Memory, key: &SysctlKey, now: &Content, to: &Value) -> Record {
    let Some(known) = memory.persisted.records.get(key) else {
        return Record {
            original: (!memory.persisted.originals_lost).then(|| now.clone()),
            before: None,
            written: to.clone(),
        };
    };
    if known.written == *to {
        return known.clone();
    }
    let ours = match now {
        Content::Value(now) if memory.owns(key, &now.clone().into()) => now.clone(),
        _ => known.written.clone(),
    };
    Record {
        original: known.original.clone(),
        before: Some(ours),
        written: to.clone(),
    }
}

//! The one function that decides what is done on a node.
//!
//! [`step`] is pure: no I/O, no clock, no async. It returns one effect; the caller performs it, records
//! the result ([`Memory::learn`]), reads the kernel and calls it again. This loop ensures that thresholds
//! stay in order, that an original is on disk before the first write, and that a reported value was
//! read after the write. The process can be killed between any two effects.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nettune_crds::KeyState;
use nettune_sizing::{Mono, SysctlKey};

use crate::desired::{DesiredState, Task};
use crate::drift::{self, Drift};
use crate::effect::{AppliedOnce, Effect, Left};
use crate::memory::Memory;
use crate::observed::{Content, ObservedState};
use crate::outcome::{KeyOutcome, KeyReport, Plan};
use crate::plan::evaluate;
use crate::plan::hold_back;
use crate::plan::intent;
use crate::plan::restore;
use crate::report::reports;
use crate::tables::limits::FAMILIES;
use crate::tables::ordering;
use crate::tables::overflow;

/// The next effect, and the state that it was decided in.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    pub effect: Effect,
    /// The new memory; [`Memory::learn`] adds the result of the effect.
    pub memory: Memory,
    /// The report of each key when nothing is left to do; empty for any effect but [`Effect::Rest`].
    pub keys: Vec<KeyReport>,
    /// Whether a release is over.
    pub released: bool,
    /// Values that another process has changed since the last step.
    pub drifts: Vec<Drift>,
    /// Originals that are not restored although their keys are no longer managed; each with each reason
    /// once.
    pub left: Vec<Left>,
}

/// How long to rest if only the kernel can change anything.
const REST: Duration = Duration::from_secs(10);

/// How long to rest if a key waits, such as for a table to empty.
const REST_WAITING: Duration = Duration::from_secs(1);

/// Decides what to do next.
#[must_use]
pub fn step(desired: &DesiredState, observed: &ObservedState, memory: &Memory, now: Mono) -> Step {
    let mut memory = memory.clone();
    memory.switch_to(desired);
    overflow::answer(desired, observed, &mut memory, now);
    let with_raises = overflow::with_raises(desired, &memory);
    let desired = with_raises.as_ref();

    let evaluated = evaluate::evaluate_each(desired, observed, &memory);
    // Whether a threshold has drifted depends on the others.
    let expected = evaluate::arrange(evaluated.clone(), desired, observed, &memory, now);
    let mut drifts = drift::detect(desired, observed, &expected, &mut memory, now);
    let plan = if drifts.is_empty() {
        expected
    } else {
        // A key that was changed may have to be left for a while.
        evaluate::arrange(evaluated, desired, observed, &memory, now)
    };
    let plan = hold_back::hold_back(plan, desired, observed, &memory, now);
    for drift in &mut drifts {
        drift.repaired = matches!(plan.get(&drift.key), Some(KeyOutcome::Change { .. }));
    }

    let intent = intent::intent(desired, observed, &plan, &memory);
    let write = ordering::next_write(&plan, observed);
    let mut left = Vec::new();
    let effect = if intent != memory.persisted && may_persist(&memory, now) {
        left = memory.not_reported(restore::forgotten(&plan, &memory, &intent));
        Effect::Persist(intent)
    } else if let Some((key, content)) = write {
        match content {
            Content::Value(value) => Effect::Set(key, value),
            Content::Empty => Effect::Clear(key),
        }
    } else {
        return at_rest(desired, observed, &plan, memory, drifts, now);
    };
    Step {
        effect,
        keys: Vec::new(),
        released: false,
        memory,
        drifts,
        left,
    }
}

/// Nothing is left to write: saves that it is done, or rests.
fn at_rest(
    desired: &DesiredState,
    observed: &ObservedState,
    plan: &Plan,
    mut memory: Memory,
    drifts: Vec<Drift>,
    now: Mono,
) -> Step {
    let mut keys = reports(desired, observed, plan, &memory);
    let mut done = memory.persisted.clone();
    if desired.task == Task::ApplyOnce && !memory.applied_once.is_empty() {
        done.applied_once = desired.revision().map(|revision| AppliedOnce {
            revision: revision.clone(),
            keys: memory.applied_once.clone(),
        });
    }
    let dropped = keys.iter().filter(|key| key.dropped).map(|key| Left {
        key: Arc::clone(&key.name),
        message: key.message.clone(),
    });
    let left = memory.not_reported(dropped.collect());
    let released = desired.task == Task::Release;
    if released {
        keys = memory.released.get_or_insert(keys).clone();
        done.released = desired.revision().cloned();
    }
    let effect = if done != memory.persisted && may_persist(&memory, now) {
        Effect::Persist(done)
    } else {
        let until = rest_until(&keys, &memory, now);
        Effect::Rest { until }
    };
    if !matches!(effect, Effect::Rest { .. }) {
        keys.clear();
    }
    Step {
        effect,
        memory,
        keys,
        released,
        drifts,
        left,
    }
}

fn may_persist(memory: &Memory, now: Mono) -> bool {
    let failure = memory.persist_failure.as_ref();
    failure.is_none_or(|failure| now >= failure.retry_at)
}

fn rest_until(keys: &[KeyReport], memory: &Memory, now: Mono) -> Mono {
    let waits = keys.iter().any(|key| key.state == KeyState::Waiting);
    let rest = now.after(if waits { REST_WAITING } else { REST });
    let failures = memory
        .keys
        .values()
        .filter_map(|known| known.failure.as_ref());
    let retries = failures
        .chain(&memory.persist_failure)
        .map(|failure| failure.retry_at)
        .filter(|retry_at| *retry_at > now);
    let known = memory.keys.values();
    let writer = known.filter_map(|known| known.conflicting_writer.as_ref()?.due(now));
    retries.chain(writer).fold(rest, Mono::min)
}

/// The keys to read for a profile: its own, the others of their table, those that were written, and
/// those that the rules of conntrack compare with.
#[must_use]
pub fn keys_to_read(desired: &DesiredState, memory: &Memory) -> BTreeSet<SysctlKey> {
    let own = desired.values.keys().chain(memory.persisted.records.keys());
    let mut keys: BTreeSet<SysctlKey> = own.cloned().collect();
    for family in &FAMILIES {
        if family.keys.iter().any(|key| keys.contains(*key)) {
            keys.extend(family.keys.iter().map(|key| (*key).clone()));
        }
    }
    let [max, buckets] = [
        &nettune_sizing::keys::NF_CONNTRACK_MAX,
        &nettune_sizing::keys::NF_CONNTRACK_BUCKETS,
    ];
    if keys.contains(max) || keys.contains(buckets) {
        keys.extend([max.clone(), buckets.clone()]);
    }
    keys
}

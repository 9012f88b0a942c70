//! The one function that decides what is done on a node.
//!
//! [`step`] is pure: no I/O, no clock, no async. It returns one effect; the caller performs it, tells
//! the memory what came of it ([`Memory::learn`]), looks at the kernel again and calls it again. That
//! thresholds keep their order, that an original is on disk before the first write, and that what is
//! reported was read after the write, all follow from this loop; and the only places where the
//! process can be killed are the gaps between two effects.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use nettune_crds::KeyState;
use nettune_sizing::{Mono, SysctlKey, Value};

use crate::desired::{DesiredState, Revision, Task, in_words};
use crate::drift::{self, Drift};
use crate::effect::{AppliedOnce, Effect, Left, Persisted, Record};
use crate::errors;
use crate::evaluate;
use crate::memory::Memory;
use crate::observed::{Content, ObservedState};
use crate::outcome::{KeyOutcome, KeyReport, Plan};
use crate::report::reports;
use crate::restore;
use crate::tables::limits::FAMILIES;
use crate::tables::ordering;
use crate::tables::overflow;

/// The next effect, and what is known now.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What to do.
    pub effect: Effect,
    /// What to remember; [`Memory::learn`] adds what came of the effect.
    pub memory: Memory,
    /// Each key as it stands when nothing is left to do; empty beside any effect but
    /// [`Effect::Rest`].
    pub keys: Vec<KeyReport>,
    /// Whether a release is over.
    pub released: bool,
    /// Values that somebody else was seen to have changed just now.
    pub drifts: Vec<Drift>,
    /// Originals of keys that the profile does not name any more, and that are not put back: each with
    /// each reason once.
    pub left: Vec<Left>,
}

/// How long to rest where nothing but the kernel can change anything.
const REST: Duration = Duration::from_secs(10);

/// How long to rest where a key waits for a table to empty.
const REST_WAITING: Duration = Duration::from_secs(1);

/// Decides what to do next.
#[must_use]
pub fn step(desired: &DesiredState, observed: &ObservedState, memory: &Memory, now: Mono) -> Step {
    let mut memory = memory.clone();
    memory.turn_to(desired);
    overflow::answer(desired, observed, &mut memory, now);
    let with_raises = overflow::with_raises(desired, &memory);
    let desired = with_raises.as_ref();

    let evaluated = evaluate::evaluate_each(desired, observed, &memory);
    // Only beside the others it shows whether a threshold has drifted.
    let expected = evaluate::arrange(evaluated.clone(), desired, observed, &memory, now);
    let mut drifts = drift::detect(desired, observed, &expected, &mut memory, now);
    let plan = if drifts.is_empty() {
        expected
    } else {
        // Whoever changed a key may have to be left alone for a while.
        evaluate::arrange(evaluated, desired, observed, &memory, now)
    };
    let plan = hold_back(plan, desired, observed, &memory, now);
    for drift in &mut drifts {
        drift.repaired = matches!(plan.get(&drift.key), Some(KeyOutcome::Change { .. }));
    }

    let intent = intent(desired, observed, &plan, &memory);
    let write = ordering::next_write(&plan, observed);
    let mut left = Vec::new();
    let effect = if intent != memory.persisted && may_persist(&memory, now) {
        left = memory.not_told(restore::forgotten(&plan, &memory, &intent));
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

/// Nothing is left to write: what remains is to remember that it is done.
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
    let left = memory.not_told(dropped.collect());
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

/// Takes out of the plan what the mode, an earlier failure or a full disk forbid for now.
fn hold_back(
    mut plan: Plan,
    desired: &DesiredState,
    observed: &ObservedState,
    memory: &Memory,
    now: Mono,
) -> Plan {
    let over =
        memory.released.is_some() || memory.persisted.released.as_ref() == desired.revision();
    for (key, outcome) in &mut plan {
        let KeyOutcome::Change { to } = &*outcome else {
            continue;
        };
        let differs = || {
            let found = observed
                .content(key)
                .map(ToString::to_string)
                .unwrap_or_default();
            let wanted = desired.values.get(key).map(in_words).unwrap_or_default();
            format!("{found} is there, {wanted} is wanted")
        };
        let failure = memory.key(key).and_then(|known| known.failure.as_ref());
        let failure = failure.filter(|failure| errors::wrote(&failure.cause) == Some(to));
        let unsaved = memory.persist_failure.as_ref();
        let held = match desired.task {
            Task::Observe => Some(KeyOutcome::kept(KeyState::Drifted, differs())),
            Task::ApplyOnce if is_done(desired, memory, key) && !is_dropped(desired, key) => {
                Some(KeyOutcome::kept(KeyState::Drifted, differs()))
            }
            Task::Release if over => Some(restore::left("left: the release is over")),
            Task::Release => {
                failure.map(|failed| KeyOutcome::failed(errors::writing(key, &failed.cause)))
            }
            _ => failure
                .filter(|failure| now < failure.retry_at)
                .map(|failure| KeyOutcome::failed(errors::writing(key, &failure.cause))),
        };
        let held = held.or_else(|| {
            let is_new = !memory.persisted.records.contains_key(key);
            let failure = unsaved.filter(|failure| is_new && now < failure.retry_at)?;
            Some(KeyOutcome::failed(errors::writing(key, &failure.cause)))
        });
        if let Some(held) = held {
            *outcome = held;
        }
    }
    plan
}

/// Whether a key goes back because the profile does not name it, nor another of its table.
fn is_dropped(desired: &DesiredState, key: &SysctlKey) -> bool {
    let mut families = FAMILIES.iter();
    desired.gives_back(key)
        && !families.any(|family| family.keys.contains(&key) && family.is_managed(&desired.values))
}

/// Whether [`Task::ApplyOnce`] leaves a key alone: a threshold that is not managed itself is done
/// with the others of its table.
fn is_done(desired: &DesiredState, memory: &Memory, key: &SysctlKey) -> bool {
    if desired.values.contains_key(key) {
        return memory.is_done(desired, key);
    }
    let family = FAMILIES.iter().find(|family| family.keys.contains(&key));
    family.is_none_or(|family| {
        let mut managed = family
            .keys
            .iter()
            .filter(|key| desired.values.contains_key(**key));
        managed.all(|key| memory.is_done(desired, key))
    })
}

/// What has to be on disk before the writes of a plan: the profile, the original of each key that is
/// written for the first time, and what is written, so that a later process knows it for ours.
fn intent(
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

/// The keys that have to be looked at for a profile: its own, the others of their table, what was
/// written, and what the rules of conntrack compare with.
#[must_use]
pub fn keys_to_look_at(desired: &DesiredState, memory: &Memory) -> BTreeSet<SysctlKey> {
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

//! Holds back changes that the mode, an earlier failure or a full disk prevents for now.

use nettune_crds::KeyState;
use nettune_sizing::{Mono, SysctlKey};

use crate::desired::{DesiredState, Task, in_words};
use crate::errors;
use crate::memory::Memory;
use crate::observed::{Content, ObservedState};
use crate::outcome::{KeyOutcome, Plan};
use crate::plan::restore;
use crate::tables::limits::FAMILIES;

/// The plan without the changes that may not be written now.
pub(crate) fn hold_back(
    plan: Plan,
    desired: &DesiredState,
    observed: &ObservedState,
    memory: &Memory,
    now: Mono,
) -> Plan {
    let held = |key: &SysctlKey, outcome: &KeyOutcome| match outcome {
        KeyOutcome::Change { to } => by_mode(key, to, desired, observed, memory, now)
            .or_else(|| by_unsaved_state(key, memory, now)),
        _ => None,
    };
    plan.into_iter()
        .map(|(key, outcome)| {
            let outcome = held(&key, &outcome).unwrap_or(outcome);
            (key, outcome)
        })
        .collect()
}

/// What the mode makes of a change, or an earlier attempt that failed.
fn by_mode(
    key: &SysctlKey,
    to: &Content,
    desired: &DesiredState,
    observed: &ObservedState,
    memory: &Memory,
    now: Mono,
) -> Option<KeyOutcome> {
    let drifted = || {
        let found = observed.content(key).map(ToString::to_string);
        let wanted = desired.values.get(key).map(in_words).unwrap_or_default();
        let message = format!("found {}, desired {wanted}", found.unwrap_or_default());
        Some(KeyOutcome::kept(KeyState::Drifted, message))
    };
    let failure = memory.key(key).and_then(|known| known.failure.as_ref());
    let failure = failure.filter(|failure| errors::wrote(&failure.cause) == Some(to));
    let failed = |cause| KeyOutcome::failed(errors::writing(key, cause));
    match desired.task {
        Task::Observe => drifted(),
        Task::ApplyOnce if is_done(desired, memory, key) && !is_dropped(desired, key) => drifted(),
        Task::Release if has_ended(desired, memory) => {
            Some(restore::left("left: the release has ended"))
        }
        Task::Release => failure.map(|failure| failed(&failure.cause)),
        _ => failure
            .filter(|failure| now < failure.retry_at)
            .map(|failure| failed(&failure.cause)),
    }
}

/// No key is written for the first time before its original is saved.
fn by_unsaved_state(key: &SysctlKey, memory: &Memory, now: Mono) -> Option<KeyOutcome> {
    let is_new = !memory.persisted.records.contains_key(key);
    let failure = memory.persist_failure.as_ref();
    let failure = failure.filter(|failure| is_new && now < failure.retry_at)?;
    Some(KeyOutcome::failed(errors::writing(key, &failure.cause)))
}

fn has_ended(desired: &DesiredState, memory: &Memory) -> bool {
    memory.released.is_some() || memory.persisted.released.as_ref() == desired.revision()
}

/// Whether a key is restored because the profile names neither it nor another of its table.
pub(crate) fn is_dropped(desired: &DesiredState, key: &SysctlKey) -> bool {
    let mut families = FAMILIES.iter();
    desired.gives_back(key)
        && !families.any(|family| family.keys.contains(&key) && family.is_managed(&desired.values))
}

/// Whether [`Task::ApplyOnce`] is done with a key. A threshold that is not managed is done with the
/// others of its table.
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

//! The state of each key, for the status.

use std::collections::BTreeSet;

use nettune_crds::KeyState;
use nettune_sizing::SysctlKey;

use crate::desired::{DesiredState, Task};
use crate::memory::Memory;
use crate::observed::{Content, ObservedState, Seen};
use crate::outcome::{KeyOutcome, KeyReport, Plan};
use crate::tables::overflow;

/// The reports of a plan. For a release: of all keys that were written. Otherwise: of the profile's
/// keys, its invalid entries, and keys that are no longer managed and not restored.
pub(crate) fn reports(
    desired: &DesiredState,
    observed: &ObservedState,
    plan: &Plan,
    memory: &Memory,
) -> Vec<KeyReport> {
    let keys: BTreeSet<&SysctlKey> = match desired.task {
        Task::Release => plan.keys().collect(),
        _ => desired.values.keys().collect(),
    };
    let invalid = desired.invalid.iter().map(|entry| KeyReport {
        name: entry.name.as_str().into(),
        observed: None,
        original: None,
        state: KeyState::Failed,
        message: entry.message.clone(),
        waits_for: None,
        invalid: true,
        dropped: false,
        drift_count: 0,
    });
    let room = MOST_REPORTS.saturating_sub(desired.invalid.len());
    let taken = keys.into_iter().take(room);
    taken
        .map(|key| report(key, desired, observed, plan.get(key), memory))
        .chain(invalid)
        .chain(dropped(desired, observed, plan, memory))
        .take(MOST_REPORTS)
        .collect()
}

/// The most keys that a profile's status has room for.
const MOST_REPORTS: usize = 128;

/// Keys that are no longer managed and whose originals are not restored. Keys that do not exist have
/// nothing to restore.
fn dropped(
    desired: &DesiredState,
    observed: &ObservedState,
    plan: &Plan,
    memory: &Memory,
) -> impl Iterator<Item = KeyReport> {
    let records = memory.persisted.records.keys();
    let given_back = records.filter(|key| desired.gives_back(key));
    let there = given_back.filter(|key| *observed.seen(key) != Seen::Missing);
    there.filter_map(|key| {
        let outcome = plan.get(key)?;
        let mut report = report(key, desired, observed, Some(outcome), memory);
        (report.state, report.message) = match outcome {
            // Another process may keep changing it beside a threshold that is managed.
            KeyOutcome::Holds { .. }
            | KeyOutcome::Kept {
                state: KeyState::Applied | KeyState::Drifted | KeyState::Contested,
                ..
            } => return None,
            KeyOutcome::Change { to } => (KeyState::Waiting, format!("left: {}", blocked(to))),
            KeyOutcome::Kept {
                state,
                message,
                waits_for,
            } => {
                let waits = *state == KeyState::Failed || waits_for.is_some();
                let state = if waits {
                    KeyState::Waiting
                } else {
                    KeyState::NotApplicable
                };
                (state, message.clone())
            }
        };
        report.dropped = true;
        Some(report)
    })
}

/// At rest, only keys that another threshold blocks are left to write.
fn blocked(to: &Content) -> String {
    format!("{to} would break the order of the thresholds; another one must be set first")
}

fn report(
    key: &SysctlKey,
    desired: &DesiredState,
    observed: &ObservedState,
    outcome: Option<&KeyOutcome>,
    memory: &Memory,
) -> KeyReport {
    let wanted = desired.values.get(key);
    let (state, message, waits_for) = match outcome {
        Some(KeyOutcome::Holds { note }) => {
            let overflow_raises = overflow::note(desired, key, memory);
            (
                KeyState::Applied,
                overflow_raises.unwrap_or_else(|| note.clone()),
                None,
            )
        }
        Some(KeyOutcome::Kept {
            state,
            message,
            waits_for,
        }) => (*state, message.clone(), waits_for.clone()),
        Some(KeyOutcome::Change { to }) if desired.task == Task::Release => (
            KeyState::NotApplicable,
            format!("left: {}", blocked(to)),
            None,
        ),
        Some(KeyOutcome::Change { to }) => {
            let waits_for = "another threshold".to_owned();
            (KeyState::Waiting, blocked(to), Some(waits_for))
        }
        None => (KeyState::Waiting, String::new(), None),
    };
    let record = memory.persisted.records.get(key);
    let observed = observed.content(key);
    // A conflict lasts until the value has held for a while, also while it holds.
    let conflict = memory
        .conflicting_writer(key)
        .filter(|_| observed.is_some());
    let conflict = conflict.and_then(|writer| Some((writer, writer.sentence(key, wanted)?)));
    let (state, message, waits_for, observed) = match conflict {
        Some((writer, sentence)) if state != KeyState::Failed => {
            (KeyState::Contested, sentence, None, writer.shown())
        }
        _ => (state, message, waits_for, observed),
    };
    KeyReport {
        name: key.name().into(),
        observed: observed.cloned(),
        original: record.and_then(|record| record.original.clone()),
        state,
        message,
        waits_for,
        invalid: false,
        dropped: false,
        drift_count: memory.key(key).map_or(0, |known| known.drift_count),
    }
}

//! Detects what another process has changed, and writes that the kernel did not keep.

use std::time::Duration;

use nettune_crds::KeyState;
use nettune_sizing::{Mono, SysctlKey};

use crate::contention::ConflictingWriter;
use crate::desired::{DesiredState, Task, in_words};
use crate::memory::{Cause, Failure, KeyMemory, Memory};
use crate::observed::{Content, ObservedState, Seen};
use crate::outcome::{KeyOutcome, Plan};
use crate::tables::limits::took;

/// A value that another process has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    pub key: SysctlKey,
    /// What it was changed to.
    pub found: Content,
    /// The desired value, in words.
    pub desired: String,
    /// Whether it is set again at once.
    pub repaired: bool,
    /// Whether it was reported recently, for a key that is left as it is: two processes that fight over
    /// it must not fill the log.
    pub reported_before: bool,
    /// For a contested key: who changes it, and what to do.
    pub conflict: Option<String>,
}

/// A write that two reads in a row do not show was changed by the kernel; after one read it may have
/// been another process.
const READS_FOR_A_WRITE: u32 = 2;

/// How often drift of a key that is left as it is is reported. For a key that is set again, the pauses
/// of [`ConflictingWriter`] limit the reports.
const REPORT_EVERY: Duration = Duration::from_secs(600);

/// Compares with the last step: a desired value that no longer holds was changed by another process; a
/// written value that does not show was not kept by the kernel.
pub(crate) fn detect(
    desired: &DesiredState,
    observed: &ObservedState,
    plan: &Plan,
    memory: &mut Memory,
    now: Mono,
) -> Vec<Drift> {
    let mut drifts = Vec::new();
    for (key, outcome) in plan {
        let Some(found) = observed.content(key) else {
            if let Some(known) = memory.keys.get_mut(key) {
                known.held = None;
                known.unseen = None;
                if *observed.seen(key) == Seen::Missing {
                    known.failure = None;
                    known.conflicting_writer = None;
                }
            }
            continue;
        };
        let record = memory.persisted.records.get(key);
        let is_written =
            record.is_some_and(|record| took(key, &record.written.clone().into(), found));
        let known = memory.keys.entry(key.clone()).or_default();
        known.confirmed |= is_written;
        let holds = matches!(outcome, KeyOutcome::Holds { .. });
        let waits = matches!(outcome, KeyOutcome::Kept { .. });
        let is_over = |writer: &mut ConflictingWriter| {
            let is_left = holds || (waits && !writer.waits(now));
            !writer.observe(found, is_left, now)
        };
        if known.conflicting_writer.as_mut().is_some_and(is_over) {
            known.conflicting_writer = None;
        }
        if holds {
            known.held = Some(found.clone());
            known.kept = Some(found.clone());
            known.unseen = None;
            known.failure = None;
            if desired.task == Task::ApplyOnce && desired.values.contains_key(key) {
                memory.applied_once.insert(key.clone());
            }
            continue;
        }
        let held = known.held.take();
        let writer = known.conflicting_writer.as_ref();
        if writer.is_some_and(|writer| writer.is_conflict() && writer.waits(now)) {
            known.unseen = None;
            continue;
        }
        if held.is_some_and(|held| held != *found) || is_overwritten(key, outcome, known) {
            known.unseen = None;
            known.drift_count += 1;
            let mut reported_before = false;
            if desired.task == Task::Enforce && is_answered(outcome) {
                known.conflicting_writer = Some(ConflictingWriter::wrote(
                    known.conflicting_writer.take(),
                    found,
                    now,
                    observed.wall,
                ));
            } else {
                reported_before = known
                    .reported_at
                    .is_some_and(|at| now.since(at) < REPORT_EVERY);
                if !reported_before {
                    known.reported_at = Some(now);
                }
            }
            let wanted = desired.values.get(key);
            let writer = known.conflicting_writer.as_ref();
            drifts.push(Drift {
                key: key.clone(),
                found: found.clone(),
                desired: wanted.map(in_words).unwrap_or_default(),
                repaired: false,
                reported_before,
                conflict: writer.and_then(|writer| writer.sentence(key, wanted)),
            });
        }
        if let KeyOutcome::Change { to } = outcome
            && let Some(unseen) = &known.unseen
            && unseen.content == *to
            && unseen.times >= READS_FOR_A_WRITE
        {
            let cause = Cause::ReadBack {
                wrote: to.clone(),
                found: found.clone(),
            };
            known.failure = Some(Failure::after(known.failure.as_ref(), cause, now));
            known.unseen = None;
        }
    }
    drifts
}

/// Whether a value that the kernel has kept before was written and does not show: another process was
/// faster than the next read.
fn is_overwritten(key: &SysctlKey, outcome: &KeyOutcome, known: &KeyMemory) -> bool {
    let KeyOutcome::Change { to } = outcome else {
        return false;
    };
    let unseen = known.unseen.as_ref();
    let kept = known.kept.as_ref();
    unseen.is_some_and(|unseen| unseen.content == *to)
        && kept.is_some_and(|kept| took(key, to, kept))
}

/// Whether a value is to be set again, now or after a pause.
fn is_answered(outcome: &KeyOutcome) -> bool {
    match outcome {
        KeyOutcome::Change { .. } => true,
        KeyOutcome::Kept { state, .. } => *state == KeyState::Drifted,
        KeyOutcome::Holds { .. } => false,
    }
}

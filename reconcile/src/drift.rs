//! What somebody else has changed, or the kernel has not taken: told by what was seen before.

use std::time::Duration;

use nettune_crds::KeyState;
use nettune_sizing::{Mono, SysctlKey};

use crate::contention::Rival;
use crate::desired::{DesiredState, Task, in_words};
use crate::evaluate::{Plan, Verdict};
use crate::memory::{Cause, Failure, KeyMemory, Memory};
use crate::observed::{Content, ObservedState, Seen};
use crate::tables::conntrack;

/// A value that somebody else has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drift {
    /// The key.
    pub key: SysctlKey,
    /// What it was changed to.
    pub found: Content,
    /// What is wanted, in words.
    pub wanted: String,
    /// Whether it is put right at once.
    pub repaired: bool,
    /// Whether the same was told not long ago, of a key that is left as it is: two who fight over it
    /// must not fill the log.
    pub told_before: bool,
    /// Where somebody keeps changing it, so that it is left alone: what is known of that, and what to
    /// do about it.
    pub contest: Option<String>,
}

/// A write that two looks in a row do not show was changed by the kernel; after one look it may have
/// been somebody else.
const LOOKS_FOR_A_WRITE: u32 = 2;

/// How often it is told of a key that is left as it is that somebody changes it. One that is set
/// again has the pauses of [`Rival`] between two tellings.
const TOLD_EVERY: Duration = Duration::from_secs(600);

/// Compares with what was seen before: what held and does not any more was changed by somebody, what
/// was written and is not there was not taken.
pub(crate) fn notice(
    goal: &DesiredState,
    live: &ObservedState,
    plan: &Plan,
    memory: &mut Memory,
    now: Mono,
) -> Vec<Drift> {
    let mut drifts = Vec::new();
    for (key, verdict) in plan {
        let Some(found) = live.content(key) else {
            if let Some(known) = memory.keys.get_mut(key) {
                known.held = None;
                known.unseen = None;
                if *live.seen(key) == Seen::Missing {
                    known.failure = None;
                    known.rival = None;
                }
            }
            continue;
        };
        let record = memory.persisted.records.get(key);
        let is_written = record
            .is_some_and(|record| conntrack::took(key, &record.written.clone().into(), found));
        let known = memory.keys.entry(key.clone()).or_default();
        known.confirmed |= is_written;
        let holds = matches!(verdict, Verdict::Holds { .. });
        // What waits for something else is as it shall be too, for now.
        let waits = matches!(verdict, Verdict::Kept { .. });
        let is_over = |rival: &mut Rival| {
            let is_left = holds || (waits && !rival.waits(now));
            !rival.look(found, is_left, now)
        };
        if known.rival.as_mut().is_some_and(is_over) {
            known.rival = None;
        }
        if holds {
            known.held = Some(found.clone());
            known.kept = Some(found.clone());
            known.unseen = None;
            known.failure = None;
            if goal.task == Task::ApplyOnce && goal.wanted.contains_key(key) {
                memory.applied_once.insert(key.clone());
            }
            continue;
        }
        let held = known.held.take();
        let rival = known.rival.as_ref();
        if rival.is_some_and(|rival| rival.is_contest() && rival.waits(now)) {
            known.unseen = None;
            continue;
        }
        if held.is_some_and(|held| held != *found) || is_overwritten(key, verdict, known) {
            known.unseen = None;
            known.drift_count += 1;
            let mut told_before = false;
            if goal.task == Task::Enforce && is_answered(verdict) {
                known.rival = Some(Rival::wrote(known.rival.take(), found, now, live.wall));
            } else {
                told_before = known.told_at.is_some_and(|at| now.since(at) < TOLD_EVERY);
                if !told_before {
                    known.told_at = Some(now);
                }
            }
            let wanted = goal.wanted.get(key);
            let rival = known.rival.as_ref();
            drifts.push(Drift {
                key: key.clone(),
                found: found.clone(),
                wanted: wanted.map(in_words).unwrap_or_default(),
                repaired: false,
                told_before,
                contest: rival.and_then(|rival| rival.sentence(key, wanted)),
            });
        }
        if let Verdict::Change { to } = verdict
            && let Some(unseen) = &known.unseen
            && unseen.content == *to
            && unseen.times >= LOOKS_FOR_A_WRITE
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

/// Whether a value that the kernel was seen to keep before was written and is not there: somebody was
/// faster than the next look.
fn is_overwritten(key: &SysctlKey, verdict: &Verdict, known: &KeyMemory) -> bool {
    let Verdict::Change { to } = verdict else {
        return false;
    };
    let unseen = known.unseen.as_ref();
    let kept = known.kept.as_ref();
    unseen.is_some_and(|unseen| unseen.content == *to)
        && kept.is_some_and(|kept| conntrack::took(key, to, kept))
}

/// Whether a value is to be put right, now or when somebody else has had a pause.
fn is_answered(verdict: &Verdict) -> bool {
    match verdict {
        Verdict::Change { .. } => true,
        Verdict::Kept { state, .. } => *state == KeyState::Drifted,
        Verdict::Holds { .. } => false,
    }
}

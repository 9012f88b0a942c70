//! Where each key stands, for the status.

use std::collections::BTreeSet;
use std::sync::Arc;

use nettune_crds::KeyState;
use nettune_sizing::SysctlKey;

use crate::desired::{DesiredState, Task};
use crate::evaluate::{Plan, Verdict};
use crate::memory::Memory;
use crate::observed::{Content, ObservedState, Seen};
use crate::tables::overflow;

/// Where one key stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct KeyReport {
    /// Its name; of an entry that is not taken, the name as it was given.
    pub name: Arc<str>,
    /// What the kernel held when it was last read; of a contested key, at most ten minutes ago.
    pub observed: Option<Content>,
    /// What it held before the first write of this boot.
    pub original: Option<Content>,
    /// Its state.
    pub state: KeyState,
    /// Why, where the state does not say it all.
    pub message: String,
    /// What it waits for, in a few words.
    pub waits_for: Option<String>,
    /// Whether it is an entry that this agent does not take.
    pub invalid: bool,
    /// Whether the profile does not name it any more and its original is not back: it counts for
    /// nothing but itself.
    pub dropped: bool,
    /// How often somebody else changed it since this agent was started.
    pub drift_count: u64,
}

/// Where the keys of a goal stand by a plan: of a release, the keys that were written; else those of
/// the profile, with the entries that are not taken, and those whose originals are not back.
pub(crate) fn reports(
    goal: &DesiredState,
    live: &ObservedState,
    plan: &Plan,
    memory: &Memory,
) -> Vec<KeyReport> {
    let keys: BTreeSet<&SysctlKey> = match goal.task {
        Task::Release => plan.keys().collect(),
        _ => goal.wanted.keys().collect(),
    };
    let invalid = goal.invalid.iter().map(|entry| KeyReport {
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
    let room = MOST_REPORTS.saturating_sub(goal.invalid.len());
    let taken = keys.into_iter().take(room);
    taken
        .map(|key| report(key, goal, live, plan.get(key), memory))
        .chain(invalid)
        .chain(dropped(goal, live, plan, memory))
        .take(MOST_REPORTS)
        .collect()
}

/// The most keys that a profile's status has room for.
const MOST_REPORTS: usize = 128;

/// Keys that the profile does not name any more and whose originals are not back. What is not there
/// holds nothing that could go back.
fn dropped(
    goal: &DesiredState,
    live: &ObservedState,
    plan: &Plan,
    memory: &Memory,
) -> impl Iterator<Item = KeyReport> {
    let records = memory.persisted.records.keys();
    let given_back = records.filter(|key| goal.gives_back(key));
    let there = given_back.filter(|key| *live.seen(key) != Seen::Missing);
    there.filter_map(|key| {
        let verdict = plan.get(key)?;
        let mut report = report(key, goal, live, Some(verdict), memory);
        (report.state, report.message) = match verdict {
            // Beside a threshold that is managed somebody else may keep changing it.
            Verdict::Holds { .. }
            | Verdict::Kept {
                state: KeyState::Applied | KeyState::Drifted | KeyState::Contested,
                ..
            } => return None,
            Verdict::Change { to } => (KeyState::Waiting, format!("left: {}", blocked(to))),
            Verdict::Kept {
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

/// At rest, only what another threshold blocks is left to be written.
fn blocked(to: &Content) -> String {
    format!("{to} would turn the order of the thresholds round; another one has to be set first")
}

fn report(
    key: &SysctlKey,
    goal: &DesiredState,
    live: &ObservedState,
    verdict: Option<&Verdict>,
    memory: &Memory,
) -> KeyReport {
    let wanted = goal.wanted.get(key);
    let (state, message, waits_for) = match verdict {
        Some(Verdict::Holds { note }) => {
            let relief = overflow::note(goal, key, memory);
            (
                KeyState::Applied,
                relief.unwrap_or_else(|| note.clone()),
                None,
            )
        }
        Some(Verdict::Kept {
            state,
            message,
            waits_for,
        }) => (*state, message.clone(), waits_for.clone()),
        Some(Verdict::Change { to }) if goal.task == Task::Release => (
            KeyState::NotApplicable,
            format!("left: {}", blocked(to)),
            None,
        ),
        Some(Verdict::Change { to }) => {
            let waits_for = "another threshold".to_owned();
            (KeyState::Waiting, blocked(to), Some(waits_for))
        }
        None => (KeyState::Waiting, String::new(), None),
    };
    let record = memory.persisted.records.get(key);
    let observed = live.content(key);
    // A contest lasts until the value has held for a while, also while it holds.
    let contest = memory.rival(key).filter(|_| observed.is_some());
    let contest = contest.and_then(|rival| Some((rival, rival.sentence(key, wanted)?)));
    let (state, message, waits_for, observed) = match contest {
        Some((rival, sentence)) if state != KeyState::Failed => {
            (KeyState::Contested, sentence, None, rival.shown())
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

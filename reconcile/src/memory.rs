//! What the agent remembers between two steps; part of it is on disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nettune_sizing::{Mono, SysctlKey};
use rustix::io::Errno;

use crate::contention::{ConflictingWriter, LONG_PAUSE};
use crate::desired::{DesiredState, Revision, Task};
use crate::effect::{Effect, Left, Persisted};
use crate::observed::{Content, OverflowCounters};
use crate::outcome::KeyReport;

/// Everything that [`crate::step::step`] knows besides the profile and the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Memory {
    /// What is on disk.
    pub persisted: Persisted,
    /// The version of the profile that the rest belongs to.
    pub(crate) revision: Option<Revision>,
    pub(crate) keys: BTreeMap<SysctlKey, KeyMemory>,
    /// Keys that [`Task::ApplyOnce`] is done with, for this revision.
    pub(crate) applied_once: BTreeSet<SysctlKey>,
    /// Limits that were raised because their table was full, and to what.
    pub(crate) overflow_raises: BTreeMap<SysctlKey, u64>,
    /// When each was last raised.
    pub(crate) raised_at: BTreeMap<SysctlKey, Mono>,
    /// Limits whose table was full although they are at their ceiling.
    pub(crate) at_ceiling: BTreeSet<SysctlKey>,
    /// The overflow counters that were last answered.
    pub(crate) answered: OverflowCounters,
    pub(crate) persist_failure: Option<Failure>,
    /// The reports of a release that has ended: nothing is written afterwards.
    pub(crate) released: Option<Vec<KeyReport>>,
    /// What was reported of originals that are not restored.
    reported_left: BTreeSet<Left>,
}

/// What is remembered of one key while the process lives.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct KeyMemory {
    /// Its content when it was last as desired.
    pub(crate) held: Option<Content>,
    /// How often another process changed it.
    pub(crate) drift_count: u64,
    /// When drift was last reported, for a key that is left as it is.
    pub(crate) reported_at: Option<Mono>,
    /// The kernel has shown what was last written: older values no longer count as nettune's.
    pub(crate) confirmed: bool,
    /// Writes that no read has shown yet.
    pub(crate) unseen: Option<Unseen>,
    pub(crate) failure: Option<Failure>,
    /// A value that the kernel has kept: it does not change this value by itself.
    pub(crate) kept: Option<Content>,
    /// When it was last written for this version of the profile.
    pub(crate) wrote_at: Option<Mono>,
    pub(crate) conflicting_writer: Option<ConflictingWriter>,
}

/// Successful writes that no read has shown yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Unseen {
    pub(crate) content: Content,
    pub(crate) times: u32,
}

/// A failure, and when to try again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Failure {
    pub(crate) cause: Cause,
    pub(crate) attempts: u32,
    pub(crate) retry_at: Mono,
}

/// Why a write had no effect.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Cause {
    /// The kernel rejected it.
    Refused { wrote: Content, errno: Errno },
    /// The kernel took it and shows something else.
    ReadBack { wrote: Content, found: Content },
    /// The state could not be saved.
    Unsaved(Errno),
}

const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(300);

impl Failure {
    /// The next failure after `earlier`: the pause doubles from 1 s to 5 min.
    pub(crate) fn after(earlier: Option<&Self>, cause: Cause, now: Mono) -> Self {
        let attempts = earlier.map_or(0, |earlier| earlier.attempts);
        let pause = FIRST_RETRY.saturating_mul(1 << attempts.min(16));
        Self {
            cause,
            attempts: attempts.saturating_add(1),
            retry_at: now.after(pause.min(LAST_RETRY)),
        }
    }
}

impl Memory {
    /// The memory after a start: only what is on disk.
    #[must_use]
    pub fn new(persisted: Persisted) -> Self {
        Self {
            overflow_raises: persisted.overflow_raises.clone(),
            persisted,
            ..Self::default()
        }
    }

    /// Records the outcome of an effect.
    #[must_use]
    pub fn learn(mut self, effect: Effect, outcome: Result<(), Errno>, now: Mono) -> Self {
        match (effect, outcome) {
            (Effect::Rest { .. }, _) => {}
            (Effect::Persist(persisted), Ok(())) => self.persisted_is(persisted),
            (Effect::Persist(_), Err(errno)) => {
                let earlier = self.persist_failure.as_ref();
                let failure = Failure::after(earlier, Cause::Unsaved(errno), now);
                self.persist_failure = Some(failure);
            }
            (Effect::Set(key, value), outcome) => self.wrote(&key, value.into(), outcome, now),
            (Effect::Clear(key), outcome) => self.wrote(&key, Content::Empty, outcome, now),
        }
        self
    }

    fn persisted_is(&mut self, persisted: Persisted) {
        for (key, record) in &persisted.records {
            if self.persisted.records.get(key) != Some(record)
                && let Some(memory) = self.keys.get_mut(key)
            {
                memory.confirmed = false;
            }
        }
        self.persisted = persisted;
        self.persist_failure = None;
    }

    fn wrote(&mut self, key: &SysctlKey, content: Content, outcome: Result<(), Errno>, now: Mono) {
        let memory = self.keys.entry(key.clone()).or_default();
        match outcome {
            Ok(()) => {
                let times = match &memory.unseen {
                    Some(unseen) if unseen.content == content => unseen.times + 1,
                    _ => 1,
                };
                memory.unseen = Some(Unseen { content, times });
                memory.wrote_at = Some(now);
            }
            Err(errno) => {
                let cause = Cause::Refused {
                    wrote: content,
                    errno,
                };
                memory.failure = Some(Failure::after(memory.failure.as_ref(), cause, now));
            }
        }
    }

    /// Switches to a profile: what belongs to another version (failures, values seen as desired) is
    /// dropped. Drift counts and conflicting writers stay; their keys are written again at once.
    pub(crate) fn switch_to(&mut self, desired: &DesiredState) {
        if self.revision.as_ref() == desired.revision() {
            return;
        }
        self.revision = desired.revision().cloned();
        let records = &self.persisted.records;
        let is_known =
            |key: &SysctlKey| desired.values.contains_key(key) || records.contains_key(key);
        self.keys.retain(|key, _| is_known(key));
        for memory in self.keys.values_mut() {
            memory.held = None;
            memory.unseen = None;
            memory.failure = None;
            memory.wrote_at = None;
            memory.conflicting_writer = memory
                .conflicting_writer
                .take()
                .filter(|_| desired.task == Task::Enforce);
            memory
                .conflicting_writer
                .iter_mut()
                .for_each(ConflictingWriter::try_again);
        }
        let wanted: BTreeSet<&str> = desired.values.keys().map(SysctlKey::name).collect();
        self.reported_left
            .retain(|left| !wanted.contains(&*left.key));
        self.persist_failure = None;
        self.released = None;
        self.at_ceiling.clear();
        let done = self.persisted.applied_once.as_ref();
        let done = done.filter(|done| Some(&done.revision) == desired.revision());
        self.applied_once = done.map(|done| done.keys.clone()).unwrap_or_default();
    }

    /// Those that were not reported yet; they count as reported now.
    pub(crate) fn not_reported(&mut self, mut left: Vec<Left>) -> Vec<Left> {
        left.retain(|left| self.reported_left.insert(left.clone()));
        left
    }

    pub(crate) fn key(&self, key: &SysctlKey) -> Option<&KeyMemory> {
        self.keys.get(key)
    }

    /// Every moment in it, for the model checker: decisions depend only on the distance to the present,
    /// so states that differ by the clock alone are equal once moments are relative.
    pub fn moments_mut(&mut self) -> impl Iterator<Item = &mut Mono> {
        let of_keys = self.keys.values_mut().flat_map(|known| {
            let retry_at = known.failure.as_mut().map(|failure| &mut failure.retry_at);
            [
                known.reported_at.as_mut(),
                known.wrote_at.as_mut(),
                retry_at,
            ]
            .into_iter()
            .flatten()
            .chain(
                known
                    .conflicting_writer
                    .iter_mut()
                    .flat_map(ConflictingWriter::moments_mut),
            )
        });
        let unsaved = self.persist_failure.iter_mut();
        of_keys
            .chain(self.raised_at.values_mut())
            .chain(unsaved.map(|failure| &mut failure.retry_at))
    }

    /// Whether nettune wrote what the kernel holds.
    pub(crate) fn owns(&self, key: &SysctlKey, observed: &Content) -> bool {
        let confirmed = self.key(key).is_some_and(|memory| memory.confirmed);
        let record = self.persisted.records.get(key);
        record.is_some_and(|record| record.owns(key, observed, confirmed))
    }

    pub(crate) fn conflicting_writer(&self, key: &SysctlKey) -> Option<&ConflictingWriter> {
        self.key(key)?.conflicting_writer.as_ref()
    }

    /// Whether what the kernel holds was written recently for this version of the profile.
    pub(crate) fn has_just_set(&self, key: &SysctlKey, observed: &Content, now: Mono) -> bool {
        let wrote_at = self.key(key).and_then(|memory| memory.wrote_at);
        wrote_at.is_some_and(|at| now.since(at) < LONG_PAUSE) && self.owns(key, observed)
    }

    /// Whether a key is left because it was applied once.
    pub(crate) fn is_done(&self, desired: &DesiredState, key: &SysctlKey) -> bool {
        desired.task == Task::ApplyOnce && self.applied_once.contains(key)
    }
}

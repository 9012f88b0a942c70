//! Another process that writes the same key: undone at once, then after growing pauses, then left.
//!
//! Each write of another process is counted, and one is forgotten for every [`FORGOTTEN_IN`] without
//! any. The count decides, not the rate: a loop that writes ten times a second causes a conflict after
//! a minute, a cron job that runs each minute after eight, and a daemon that is restarted once a day
//! (kube-proxy, TuneD) never does.

use std::time::Duration;

use jiff::Timestamp;
use nettune_crds::KeyState;
use nettune_sizing::{DesiredValue, Mono, SysctlKey};

use crate::desired::in_words;
use crate::known_writers;
use crate::observed::Content;
use crate::outcome::KeyOutcome;

/// The first write of another process is undone at once, the second after this pause, and each further
/// one after twice the last pause. The kernel waits as long before it resends a SYN (RFC 6298,
/// `TCP_TIMEOUT_INIT`).
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// This many writes are a conflict. Seven are undone, over at least 63 s: a node that is installed or
/// upgraded sees some (systemd-sysctl, TuneD, kube-proxy, k3s: each once or twice).
const CONFLICT: u32 = 8;

/// Writes that are rarer than this never add up: undoing eight a day is harmless.
const FORGOTTEN_IN: Duration = Duration::from_secs(3 * 3600);

/// How long a contested key is left before one more attempt.
pub(crate) const LONG_PAUSE: Duration = Duration::from_secs(3600);

/// A conflict is over when the desired value has held for twice the longest time between two writes,
/// within these bounds: a process that writes each half hour must not count as gone after a minute.
const PROOF: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(2 * 3 * 3600)];

/// How often a contested key's value is reported: a process that keeps writing new values must not
/// cause as many status writes.
const SHOWN_FOR: Duration = Duration::from_secs(600);

/// What is known of another process that writes a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ConflictingWriter {
    /// Its writes that count, and when the first and the last were seen.
    writes: u32,
    first: Mono,
    last: Mono,
    /// The time of day of the first.
    since: Timestamp,
    /// The longest time between two of them.
    held_longest: Duration,
    /// When its last write may be undone.
    answer_at: Mono,
    /// Set once it is a conflict.
    conflict: Option<Conflict>,
}

/// A key that is left to another process.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Conflict {
    /// What the other process had set when it began.
    theirs: Content,
    /// How often it had written by then, and within what time.
    writes: u32,
    within: Duration,
    /// The time of day of the first of these writes.
    since: Timestamp,
    /// Since when the desired value has held, if it does.
    holds_since: Option<Mono>,
    /// What is reported as observed, and since when.
    shown: (Content, Mono),
}

impl ConflictingWriter {
    /// Another process wrote: for the first time, or once more after `earlier`.
    pub(crate) fn wrote(
        earlier: Option<Self>,
        theirs: &Content,
        now: Mono,
        wall: Timestamp,
    ) -> Self {
        let mut writer = earlier.unwrap_or(Self {
            writes: 0,
            first: now,
            last: now,
            since: wall,
            held_longest: Duration::ZERO,
            answer_at: now,
            conflict: None,
        });
        let quiet = now.since(writer.last);
        let forgotten = quiet.as_secs() / FORGOTTEN_IN.as_secs();
        writer.writes = writer
            .writes
            .saturating_sub(u32::try_from(forgotten).unwrap_or(u32::MAX));
        if writer.writes == 0 {
            (writer.first, writer.since) = (now, wall);
            writer.held_longest = Duration::ZERO;
        } else {
            writer.held_longest = writer.held_longest.max(quiet);
        }
        writer.writes = writer.writes.saturating_add(1);
        writer.last = now;
        if writer.conflict.is_some() || writer.writes >= CONFLICT {
            writer.answer_at = now.after(LONG_PAUSE);
            let (writes, within) = (writer.writes, now.since(writer.first));
            let conflict = writer.conflict.get_or_insert_with(|| Conflict {
                theirs: theirs.clone(),
                writes,
                within,
                since: writer.since,
                holds_since: None,
                shown: (theirs.clone(), now),
            });
            conflict.holds_since = None;
            conflict.shown = (theirs.clone(), now);
        } else {
            let pause = match writer.writes {
                1 => Duration::ZERO,
                more => FIRST_PAUSE.saturating_mul(1 << (more - 2)),
            };
            writer.answer_at = now.after(pause);
        }
        writer
    }

    /// Takes what was found; `false` when the conflict is over and the writer can be forgotten.
    pub(crate) fn observe(&mut self, found: &Content, holds: bool, now: Mono) -> bool {
        let Some(conflict) = &mut self.conflict else {
            return true;
        };
        conflict.holds_since = conflict.holds_since.or(Some(now)).filter(|_| holds);
        let shown_since = conflict.holds_since.unwrap_or(conflict.shown.1);
        if conflict.shown.0 != *found && now.since(shown_since) >= SHOWN_FOR {
            conflict.shown = (found.clone(), now);
        }
        let Some(since) = conflict.holds_since else {
            return true;
        };
        now.since(since) < proof(self.held_longest)
    }

    /// A new version of the profile is written at once.
    pub(crate) fn try_again(&mut self) {
        self.answer_at = Mono::default();
    }

    pub(crate) fn moments_mut(&mut self) -> impl Iterator<Item = &mut Mono> {
        let of_conflict = self.conflict.as_mut().map(|conflict| {
            let shown = &mut conflict.shown.1;
            conflict.holds_since.iter_mut().chain([shown])
        });
        [&mut self.first, &mut self.last, &mut self.answer_at]
            .into_iter()
            .chain(of_conflict.into_iter().flatten())
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.conflict.is_some()
    }

    /// Whether its last write may not be undone yet.
    pub(crate) fn waits(&self, now: Mono) -> bool {
        now < self.answer_at
    }

    /// When to act next even if nothing changes in the kernel.
    pub(crate) fn due(&self, now: Mono) -> Option<Mono> {
        let over = self.conflict.as_ref().and_then(|conflict| {
            let since = conflict.holds_since;
            since.map(|since| since.after(proof(self.held_longest)))
        });
        [Some(self.answer_at), over]
            .into_iter()
            .flatten()
            .filter(|at| *at > now)
            .min()
    }

    /// The reported value of a contested key.
    pub(crate) fn shown(&self) -> Option<&Content> {
        self.conflict.as_ref().map(|conflict| &conflict.shown.0)
    }

    /// The outcome of the key while its value may not be set.
    pub(crate) fn outcome(&self, key: &SysctlKey, wanted: Option<&DesiredValue>) -> KeyOutcome {
        match self.sentence(key, wanted) {
            Some(sentence) => KeyOutcome::kept(KeyState::Contested, sentence),
            None => KeyOutcome::kept(
                KeyState::Drifted,
                "another process keeps changing it; it is set again after a pause that doubles each \
                 time",
            ),
        }
    }

    /// For a contested key: what changes, how often, and what to do. The text stays the same for as long
    /// as the conflict lasts.
    pub(crate) fn sentence(
        &self,
        key: &SysctlKey,
        wanted: Option<&DesiredValue>,
    ) -> Option<String> {
        let conflict = self.conflict.as_ref()?;
        let wanted = match wanted {
            Some(wanted) => format!("{} is desired", in_words(wanted)),
            None => "the order of the thresholds requires another value".to_owned(),
        };
        Some(format!(
            "since {} another process keeps setting it to {}, but {wanted}: {} times within the first {}. \
             It is left as it is and retried once an hour. {}",
            time_of_day(conflict.since),
            conflict.theirs,
            conflict.writes,
            span(conflict.within),
            known_writers::advice(key),
        ))
    }
}

/// How long the value must hold for a conflict to be over.
fn proof(held_longest: Duration) -> Duration {
    let [least, most] = PROOF;
    held_longest.saturating_mul(2).clamp(least, most)
}

/// In whole seconds of UTC, like the times of conditions.
fn time_of_day(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// A duration in its two largest units.
fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds} s"),
        (0, minutes, 0) => format!("{minutes} min"),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, 0, _) => format!("{hours} h"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::at(Duration::from_secs(seconds))
    }

    /// The pauses before each undo of a process that writes again after `tempo` seconds, until there is a conflict.
    fn answers(tempo: u64, most: usize) -> (Vec<u64>, bool) {
        let (mut writer, mut now, mut pauses) = (None, 0, Vec::new());
        while pauses.len() < most {
            let wrote =
                ConflictingWriter::wrote(writer.take(), &1.into(), at(now), Timestamp::UNIX_EPOCH);
            if wrote.is_conflict() {
                return (pauses, true);
            }
            let pause = wrote
                .due(at(now))
                .map_or(0, |due| due.since(at(now)).as_secs());
            pauses.push(pause);
            now += pause + tempo;
            writer = Some(wrote);
        }
        (pauses, false)
    }

    #[test]
    fn pauses_double_and_end_in_a_conflict() {
        let (pauses, contested) = answers(0, 100);
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32]);
        assert!(contested);
    }

    #[test]
    fn conflict_depends_on_the_number_of_writes_not_their_rate() {
        for (every, what, contested) in [
            (60, "cron, every minute", true),
            (1800, "Puppet", true),
            (3600, "cron, every hour", true),
            (3 * 3600, "eight times a day", false),
            (86_400, "a restart each night", false),
        ] {
            assert_eq!(answers(every, 200).1, contested, "{what}");
        }
    }

    #[test]
    fn conflict_ends_when_the_value_holds_for_twice_the_longest_pause() {
        let mut writer = None;
        for write in 0..8 {
            let now = at(write * 1800);
            writer = Some(ConflictingWriter::wrote(
                writer,
                &1.into(),
                now,
                Timestamp::UNIX_EPOCH,
            ));
        }
        let mut writer = writer.unwrap();
        assert!(writer.is_conflict());
        let start = 7 * 1800 + 3600;
        assert!(writer.observe(&2.into(), true, at(start)));
        assert!(writer.observe(&2.into(), true, at(start + 3599)));
        assert_eq!(writer.due(at(start + 3599)), Some(at(start + 3600)));
        assert!(!writer.observe(&2.into(), true, at(start + 3600)));
    }

    #[test]
    fn spans_have_two_units_at_most() {
        let spans = [59, 60, 64, 3600, 3661, 90_000].map(|s| span(Duration::from_secs(s)));
        assert_eq!(
            spans,
            ["59 s", "1 min", "1 min 4 s", "1 h", "1 h 1 min", "25 h"]
        );
    }
}

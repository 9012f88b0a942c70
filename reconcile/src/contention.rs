//! Somebody else who writes the same key: repaired at once, then later and later, then left.
//!
//! Each write of somebody else is counted, and one is forgotten for every [`FORGOTTEN_IN`] without
//! any. The count decides, so that the tempo does not matter: a loop that writes ten times a second
//! has its contest after a minute, a cron job of every minute after eight, and what is restarted
//! once a day (kube-proxy, TuneD) never has one.

use std::time::Duration;

use jiff::Timestamp;
use nettune_crds::KeyState;
use nettune_sizing::{DesiredValue, Mono, SysctlKey};

use crate::desired::in_words;
use crate::known_writers;
use crate::observed::Content;
use crate::outcome::KeyOutcome;

/// The second write of somebody else is answered after this pause, and each further one after twice
/// the pause before; the first one at once. That is the kernel's own first pause before it repeats
/// what may have been lost (a SYN: RFC 6298, `TCP_TIMEOUT_INIT`).
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// With this many writes it is a contest. Seven are answered, over 63 s at the least: a node that is
/// installed or upgraded sees some (systemd-sysctl, TuneD, kube-proxy, k3s: each once or twice).
const CONFLICT: u32 = 8;

/// What is written less often than this all the time never adds up: eight answers a day harm nobody.
const FORGOTTEN_IN: Duration = Duration::from_secs(3 * 3600);

/// How long a contested key is left before it is tried again, once.
pub(crate) const LONG_PAUSE: Duration = Duration::from_secs(3600);

/// A contest is over when the value has held for twice as long as it ever did between two writes of
/// it, but for this long at the least and for that long at the most: a rival that writes every half
/// hour must not be taken for gone after a minute.
const PROOF: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(2 * 3 * 3600)];

/// How often what a contested key holds is reported: somebody who writes other values all the time
/// must not make as many statuses.
const SHOWN_FOR: Duration = Duration::from_secs(600);

/// What is remembered of somebody else who writes a key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ConflictingWriter {
    /// Its writes that count, and the time of the first and the last.
    writes: u32,
    first: Mono,
    last: Mono,
    /// The time of day of the first.
    since: Timestamp,
    /// The longest that a value held between two of them.
    held_longest: Duration,
    /// When the next answer is due.
    answer_at: Mono,
    /// Once it is a contest.
    conflict: Option<Conflict>,
}

/// A key that is left to somebody else.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Conflict {
    /// What the other one set when it began.
    theirs: Content,
    /// How often it had written by then, and within which time.
    writes: u32,
    within: Duration,
    /// The time of day of the first of these writes.
    since: Timestamp,
    /// Since when the value holds, if it does.
    holds_since: Option<Mono>,
    /// What is reported as observed, and since when.
    shown: (Content, Mono),
}

impl ConflictingWriter {
    /// Somebody else wrote: the first time, or once more after `earlier`.
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

    /// What was found at a look. `false` when the contest is over and the rival can be forgotten.
    pub(crate) fn look(&mut self, found: &Content, holds: bool, now: Mono) -> bool {
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

    /// A new version of the profile is tried at once.
    pub(crate) fn try_again(&mut self) {
        self.answer_at = Mono::default();
    }

    pub(crate) fn moments_mut(&mut self) -> impl Iterator<Item = &mut Mono> {
        let of_contest = self.conflict.as_mut().map(|conflict| {
            let shown = &mut conflict.shown.1;
            conflict.holds_since.iter_mut().chain([shown])
        });
        [&mut self.first, &mut self.last, &mut self.answer_at]
            .into_iter()
            .chain(of_contest.into_iter().flatten())
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.conflict.is_some()
    }

    /// Whether an answer is not due yet.
    pub(crate) fn waits(&self, now: Mono) -> bool {
        now < self.answer_at
    }

    /// When something is to be done although nothing in the kernel has changed.
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

    /// What a contested key is reported to hold.
    pub(crate) fn shown(&self) -> Option<&Content> {
        self.conflict.as_ref().map(|conflict| &conflict.shown.0)
    }

    /// The key as it stands while an answer is not due, or while it is contested.
    pub(crate) fn outcome(&self, key: &SysctlKey, wanted: Option<&DesiredValue>) -> KeyOutcome {
        match self.sentence(key, wanted) {
            Some(sentence) => KeyOutcome::kept(KeyState::Contested, sentence),
            None => KeyOutcome::kept(
                KeyState::Drifted,
                "somebody else keeps changing it; it is set again after a pause of seconds that \
                 doubles each time",
            ),
        }
    }

    /// Of a contested key: who changes what, how often, and what to do about it. It says the same for
    /// as long as the contest lasts.
    pub(crate) fn sentence(
        &self,
        key: &SysctlKey,
        wanted: Option<&DesiredValue>,
    ) -> Option<String> {
        let conflict = self.conflict.as_ref()?;
        let wanted = match wanted {
            Some(wanted) => format!("{} is wanted", in_words(wanted)),
            None => "the order of the thresholds wants another value".to_owned(),
        };
        Some(format!(
            "since {} somebody else keeps setting it to {}, and {wanted}: {} times within the first {}. It \
             is left alone, and tried again once an hour. {}",
            time_of_day(conflict.since),
            conflict.theirs,
            conflict.writes,
            span(conflict.within),
            known_writers::advice(key),
        ))
    }
}

/// How long the value has to hold for a contest to be over.
fn proof(held_longest: Duration) -> Duration {
    let [least, most] = PROOF;
    held_longest.saturating_mul(2).clamp(least, most)
}

/// Whole seconds of UTC, as the times of conditions are.
fn time_of_day(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// A time in the two largest units that it has.
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

    /// The answers to a rival that overwrites each one after `tempo` seconds, until the contest.
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
    fn pauses_double_from_nothing_and_end_in_a_contest() {
        let (pauses, contested) = answers(0, 100);
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32]);
        assert!(contested);
    }

    #[test]
    fn the_number_of_writes_makes_a_contest_not_their_tempo() {
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
    fn a_contest_is_over_when_the_value_has_held_for_twice_as_long_as_before() {
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
        assert!(writer.look(&2.into(), true, at(start)));
        assert!(writer.look(&2.into(), true, at(start + 3599)));
        assert_eq!(writer.due(at(start + 3599)), Some(at(start + 3600)));
        assert!(!writer.look(&2.into(), true, at(start + 3600)));
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

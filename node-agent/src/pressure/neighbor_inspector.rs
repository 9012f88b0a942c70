//! Counts the neighbors that do not count against the limit, and runs Flannel's check, by netlink.
//!
//! Both read whole tables, so they run rarely and in a thread of their own while the agent's loop goes
//! on.

use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};
use std::time::Duration;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::neighbour::{NeighbourFlags, NeighbourHeader, NeighbourState};
use nettune_sizing::Mono;

use crate::kernel::netlink::{self, NetlinkError};
use crate::pressure::flannel::{self, Flannel, Found};
use nettune_reconcile::observed::Counts;

/// Neighbors are counted at most this often.
const INTERVAL: Duration = Duration::from_secs(60);

/// With fewer entries than this, and fewer than a tenth of the limit, it does not matter how many count.
const FEW: u64 = 1024;

/// A count of entries that has changed by less than this part, or by less than [`SOME`], is the same.
const PART: u64 = 8;
const SOME: u64 = 64;

/// Runs the queries when their answers may matter.
#[derive(Debug, Default)]
pub(crate) struct Inspector {
    under_way: Option<UnderWay>,
    ipv4: Option<Dump>,
    ipv6: Option<Dump>,
    counted_at: Option<Mono>,
    flannel: Flannel,
    failed: bool,
}

#[derive(Debug)]
struct UnderWay {
    answer: Receiver<Result<Answer, NetlinkError>>,
    counts: Counts,
}

/// Neighbors of one family that do not count, out of `entries`.
#[derive(Debug, Clone, Copy)]
struct Dump {
    entries: u64,
    uncounted: u64,
}

impl Dump {
    fn is_of(&self, entries: u64) -> bool {
        let change = self.entries.abs_diff(entries);
        change <= (self.entries / PART).max(SOME)
    }
}

#[derive(Debug, Default)]
struct Question {
    ipv4: bool,
    ipv6: bool,
    /// Flannel's devices.
    flannel: Option<Vec<String>>,
}

#[derive(Debug, Default)]
struct Answer {
    ipv4: Option<u64>,
    ipv6: Option<u64>,
    flannel: Option<Found>,
}

/// How many of the entries count against the limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum CountedEntries {
    /// Unknown, and most likely irrelevant.
    #[default]
    Unknown,
    /// Known from a time with many more or fewer entries.
    Stale,
    Known(u64),
}

impl Inspector {
    /// Takes an answer that has arrived, and asks what may matter now. `devices` are Flannel's; `limits`
    /// are those of IPv4 and IPv6 neighbors.
    pub(crate) fn turn(
        &mut self,
        counts: &Counts,
        limits: [Option<u64>; 2],
        devices: &[String],
        now: Mono,
    ) {
        self.take_answer(now);
        if devices.is_empty() {
            self.flannel = Flannel::default();
        }
        if self.under_way.is_some() {
            return;
        }
        let question = self.question(counts, limits, devices, now);
        if !(question.ipv4 || question.ipv6 || question.flannel.is_some()) {
            return;
        }
        if question.ipv4 || question.ipv6 {
            self.counted_at = Some(now);
        }
        if question.flannel.is_some() {
            self.flannel.begin(now);
        }
        let (answered, answer) = sync_channel(1);
        let thread = std::thread::Builder::new().name("netlink".to_owned());
        // If the receiver is gone, the agent is ending.
        let asked = thread.spawn(move || drop(answered.send(ask(&question))));
        match asked {
            Ok(_) => {
                let counts = *counts;
                self.under_way = Some(UnderWay { answer, counts });
            }
            Err(error) => self.failed(&error),
        }
    }

    fn question(
        &self,
        counts: &Counts,
        [limit_ipv4, limit_ipv6]: [Option<u64>; 2],
        devices: &[String],
        now: Mono,
    ) -> Question {
        let may_count = self.counted_at.is_none_or(|at| now.since(at) >= INTERVAL);
        let matters = |entries: Option<u64>, limit: Option<u64>, last: Option<Dump>| {
            let Some((entries, limit)) = entries.zip(limit) else {
                return false;
            };
            may_count
                && entries >= FEW.min(limit / 10)
                && last.is_none_or(|last| !last.is_of(entries))
        };
        let flannel_due = !devices.is_empty() && self.flannel.is_due(now);
        Question {
            ipv4: matters(counts.neighbors_ipv4, limit_ipv4, self.ipv4),
            ipv6: matters(counts.neighbors_ipv6, limit_ipv6, self.ipv6),
            flannel: flannel_due.then(|| devices.to_vec()),
        }
    }

    fn take_answer(&mut self, now: Mono) {
        let Some(UnderWay { answer, counts }) = &self.under_way else {
            return;
        };
        let (answer, counts) = match answer.try_recv() {
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Disconnected) => (Ok(Answer::default()), *counts),
            Ok(answer) => (answer, *counts),
        };
        self.under_way = None;
        match answer {
            Ok(answer) => self.learn(answer, &counts, now),
            Err(error) => self.failed(&error),
        }
    }

    fn learn(&mut self, answer: Answer, counts: &Counts, now: Mono) {
        self.failed = false;
        let dump = |entries: Option<u64>, uncounted: Option<u64>| {
            let (entries, uncounted) = entries.zip(uncounted)?;
            Some(Dump { entries, uncounted })
        };
        self.ipv4 = dump(counts.neighbors_ipv4, answer.ipv4).or(self.ipv4);
        self.ipv6 = dump(counts.neighbors_ipv6, answer.ipv6).or(self.ipv6);
        if let Some(found) = answer.flannel {
            self.flannel.learn(found, now);
        }
    }

    /// Logged once: what fails now, such as under a seccomp profile, always fails.
    fn failed(&mut self, error: &(dyn std::error::Error + 'static)) {
        if !self.failed {
            let error = nettune_runtime::error::chain(error);
            tracing::warn!(
                error,
                "cannot list neighbors or routes by netlink: usage counts all neighbors, and Flannel's entries \
                 are not checked"
            );
        }
        self.failed = true;
    }

    /// How many IPv4 and IPv6 neighbors count.
    pub(crate) fn counted(&self, counts: &Counts) -> [CountedEntries; 2] {
        let counted = |dump: Option<Dump>, entries: Option<u64>| match dump.zip(entries) {
            None => CountedEntries::Unknown,
            Some((dump, entries)) if dump.is_of(entries) => {
                CountedEntries::Known(entries.saturating_sub(dump.uncounted))
            }
            Some(_) => CountedEntries::Stale,
        };
        [
            counted(self.ipv4, counts.neighbors_ipv4),
            counted(self.ipv6, counts.neighbors_ipv6),
        ]
    }

    pub(crate) const fn flannel(&self) -> &Flannel {
        &self.flannel
    }
}

fn ask(question: &Question) -> Result<Answer, NetlinkError> {
    let flannel = question.flannel.as_deref().map(flannel::check);
    Ok(Answer {
        ipv4: uncounted(AddressFamily::Inet, question.ipv4)?,
        ipv6: uncounted(AddressFamily::Inet6, question.ipv6)?,
        flannel: flannel.transpose()?,
    })
}

fn uncounted(family: AddressFamily, asked: bool) -> Result<Option<u64>, NetlinkError> {
    if !asked {
        return Ok(None);
    }
    let mut uncounted = 0;
    netlink::neighbors(family, |header, _| {
        uncounted += u64::from(is_uncounted(header));
    })?;
    Ok(Some(uncounted))
}

/// Entries that garbage collection skips and the kernel does not count (neigh_update_gc_list). The dump
/// is of the agent's network namespace, where such entries are created; those of pods count, so they
/// are the rest of `entries`.
fn is_uncounted(header: &NeighbourHeader) -> bool {
    header.state == NeighbourState::Permanent || header.flags.contains(NeighbourFlags::ExtLearned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const LIMITS: [Option<u64>; 2] = [Some(8192), Some(8192)];

    fn counts(ipv4: u64) -> Counts {
        Counts {
            neighbors_ipv4: Some(ipv4),
            ..Counts::default()
        }
    }

    #[test]
    fn neighbors_are_counted_only_if_it_may_matter() {
        let mut inspector = Inspector::default();
        let asks = |inspector: &Inspector, entries, at: Mono| {
            inspector.question(&counts(entries), LIMITS, &[], at).ipv4
        };
        let start = Mono::default();
        assert!(!asks(&inspector, 818, start), "few");
        assert!(asks(&inspector, 819, start));
        inspector.counted_at = Some(start);
        let answer = Answer {
            ipv4: Some(700),
            ..Answer::default()
        };
        inspector.learn(answer, &counts(800), start);
        let later = start.after(INTERVAL);
        assert!(!asks(&inspector, 900, later), "hardly any more");
        assert!(asks(&inspector, 901, later));
        assert!(
            !asks(&inspector, 901, start.after(INTERVAL - SECOND)),
            "too soon"
        );
        let counted = |entries| inspector.counted(&counts(entries));
        assert_eq!(
            counted(850),
            [CountedEntries::Known(150), CountedEntries::Unknown]
        );
        assert_eq!(
            counted(901),
            [CountedEntries::Stale, CountedEntries::Unknown]
        );
    }

    #[test]
    fn flannel_is_checked_only_when_due() {
        let mut inspector = Inspector::default();
        let devices = ["flannel.1".to_owned()];
        let start = Mono::default();
        inspector.turn(&Counts::default(), [None, None], &devices, start);
        assert!(inspector.under_way.is_some());
        let asks = |at| {
            let question = inspector.question(&Counts::default(), [None, None], &devices, at);
            question.flannel.is_some()
        };
        assert!(!asks(start.after(INTERVAL - SECOND)));
        assert!(asks(start.after(INTERVAL)));
    }
}

//! Writes that wait, in the planner's order.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use nettune_planner::Write;
use tokio::time::Instant;

/// A status comes last, but not never: people look at it, above all while much is under way. One that
/// has waited this long is next.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// The queue. Each decision replaces what the one before has left.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    pending: VecDeque<Write>,
    /// Of those the statuses, and since when each tuning's has been waiting.
    statuses: VecDeque<(Arc<str>, Write)>,
    waiting: HashMap<Arc<str>, Instant>,
}

impl Queue {
    /// Takes a decision's writes, the most urgent first, in place of those of the one before.
    pub(crate) fn replace(&mut self, writes: impl Iterator<Item = Write>, now: Instant) {
        self.pending.clear();
        self.statuses.clear();
        for write in writes {
            match &write {
                Write::TuningStatus { tuning, .. } => {
                    self.statuses.push_back((Arc::clone(tuning), write));
                }
                _ => self.pending.push_back(write),
            }
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        for (tuning, _) in &self.statuses {
            let since = waiting.remove(tuning).unwrap_or(now);
            self.waiting.insert(Arc::clone(tuning), since);
        }
    }

    /// The next one.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Write> {
        let overdue = self.statuses.iter().position(|(tuning, _)| {
            let since = self.waiting.get(tuning);
            since.is_some_and(|since| now >= *since + STATUS_PATIENCE)
        });
        let (tuning, write) = match overdue {
            Some(overdue) => self.statuses.remove(overdue)?,
            None => match self.pending.pop_front() {
                Some(write) => return Some(write),
                None => self.statuses.pop_front()?,
            },
        };
        self.waiting.remove(&tuning);
        Some(write)
    }

    pub(crate) fn len(&self) -> usize {
        self.pending.len() + self.statuses.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn clear(&mut self) {
        self.pending.clear();
        self.statuses.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(node: &str) -> Write {
        Write::DeleteProfile {
            node: node.into(),
            uid: "".into(),
            seen: "".into(),
        }
    }

    fn status(tuning: &str) -> Write {
        Write::TuningStatus {
            tuning: tuning.into(),
            uid: "".into(),
            seen: "".into(),
            status: Box::default(),
            announcements: Vec::new(),
        }
    }

    fn taken(queue: &mut Queue, now: Instant) -> Vec<String> {
        let next = std::iter::from_fn(|| queue.next(now));
        next.map(|write| match write {
            Write::TuningStatus { tuning, .. } => tuning.to_string(),
            Write::DeleteProfile { node, .. } => node.to_string(),
            other => format!("{other:?}"),
        })
        .collect()
    }

    #[test]
    fn what_a_decision_puts_first_comes_first_and_statuses_last() {
        let now = Instant::now();
        let mut queue = Queue::default();
        let writes = [profile("b"), profile("a"), status("t"), profile("c")];
        queue.replace(writes.into_iter(), now);
        assert_eq!(queue.len(), 4);
        assert_eq!(taken(&mut queue, now), ["b", "a", "c", "t"]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_status_that_has_waited_long_enough_is_next() {
        let start = Instant::now();
        let mut queue = Queue::default();
        // Each decision finds more to write than there is time for.
        for tenths in 0..20 {
            let now = start + Duration::from_millis(tenths * 100);
            queue.replace([profile("a"), profile("b"), status("t")].into_iter(), now);
            assert!(matches!(queue.next(now), Some(Write::DeleteProfile { .. })));
        }
        let now = start + STATUS_PATIENCE;
        queue.replace([profile("a"), profile("b"), status("t")].into_iter(), now);
        assert_eq!(taken(&mut queue, now), ["t", "a", "b"]);
        // Its time begins anew when it was written.
        queue.replace([profile("a"), status("t")].into_iter(), now);
        assert_eq!(taken(&mut queue, now), ["a", "t"]);
    }

    #[test]
    fn a_status_that_needs_no_write_any_more_has_not_waited() {
        let start = Instant::now();
        let mut queue = Queue::default();
        queue.replace([status("t")].into_iter(), start);
        queue.replace([profile("a")].into_iter(), start);
        let later = start + STATUS_PATIENCE;
        queue.replace([profile("a"), status("t")].into_iter(), later);
        assert_eq!(taken(&mut queue, later), ["a", "t"]);
    }
}

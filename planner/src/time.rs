//! The current time, and when to decide again although nothing changes.

use std::time::Duration;

use jiff::Timestamp;
use nettune_sizing::Mono;

/// The current time by two clocks. All waiting uses the monotonic one.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For all waiting.
    pub mono: Mono,
    /// Only for transition times of conditions.
    pub wall: Timestamp,
}

/// The current time, and the next moment at which the decision may change although nothing else does.
#[derive(Debug)]
pub(crate) struct Clock {
    pub(crate) now: Now,
    requeue_at: Option<Mono>,
}

impl Clock {
    pub(crate) fn new(now: Now) -> Self {
        Self {
            now,
            requeue_at: None,
        }
    }

    /// Whether this much time has passed since then. If not, the next decision is due when it has, at the latest.
    pub(crate) fn has_passed(&mut self, since: Mono, wait: Duration) -> bool {
        if self.now.mono.since(since) >= wait {
            return true;
        }
        let due = since.after(wait);
        self.requeue_at = Some(self.requeue_at.map_or(due, |known| known.min(due)));
        false
    }

    pub(crate) fn requeue_at(&self) -> Option<Mono> {
        self.requeue_at
    }
}

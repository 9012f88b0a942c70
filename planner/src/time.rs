//! The present, and when to decide again although nothing changes.

use std::time::Duration;

use jiff::Timestamp;
use nettune_sizing::Mono;

/// The present by two clocks. All waiting is measured by the monotonic one.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For everything that is waited for.
    pub mono: Mono,
    /// For the transition times of conditions, and for nothing else.
    pub wall: Timestamp,
}

/// The present, and the soonest moment at which time alone may change the decision.
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

    /// Whether this much time has passed since then. If not, the next decision is due at the latest
    /// when it has.
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

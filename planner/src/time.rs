//! The present, and what waits for a later moment.

use std::time::Duration;

use jiff::Timestamp;
use nettune_sizing::Mono;

/// The present, twice: what is waited for is told by the monotonic clock alone.
#[derive(Debug, Clone, Copy)]
pub struct Now {
    /// For everything that is waited for.
    pub mono: Mono,
    /// For the times of conditions whose status changes, and for nothing else.
    pub wall: Timestamp,
}

/// The soonest of the moments at which time alone may change a decision.
#[derive(Debug, Default)]
pub(crate) struct Alarm(Option<Mono>);

impl Alarm {
    /// Whether this much has passed since then; where it has not, the alarm is set.
    pub(crate) fn passed(&mut self, since: Mono, wait: Duration, now: Now) -> bool {
        if now.mono.since(since) >= wait {
            return true;
        }
        let due = since.after(wait);
        self.0 = Some(self.0.map_or(due, |known| known.min(due)));
        false
    }

    pub(crate) fn soonest(&self) -> Option<Mono> {
        self.0
    }
}

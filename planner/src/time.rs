//! Moments of this process's monotonic clock.

use std::time::Duration;

use jiff::Timestamp;

/// A moment, as the time since some start that is the same for the whole process. It is never
/// persisted nor compared with a clock of another machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(Duration);

impl Mono {
    /// The moment this long after the start.
    #[must_use]
    pub const fn at(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// The moment this much later.
    #[must_use]
    pub const fn after(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }

    /// How long ago an earlier moment was; nothing where it is not earlier.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

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

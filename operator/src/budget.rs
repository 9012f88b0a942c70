//! How many Events about single nodes may be published: a few at once, then one at a time.

use std::time::{Duration, Instant};

/// Events that may follow each other without a pause.
pub(crate) const BURST: u32 = 25;

/// How long it takes to earn one more.
const EARNED_IN: Duration = Duration::from_secs(5);

/// What is left.
#[derive(Debug)]
pub(crate) struct Budget {
    left: u32,
    counted_from: Instant,
}

impl Budget {
    /// A whole burst.
    pub(crate) fn full(now: Instant) -> Self {
        Self {
            left: BURST,
            counted_from: now,
        }
    }

    /// Whether one more may be published now; it is counted.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.counted_from);
        let earned = u32::try_from(since.as_secs() / EARNED_IN.as_secs()).unwrap_or(BURST);
        self.left = self.left.saturating_add(earned).min(BURST);
        self.counted_from += EARNED_IN * earned;
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_they_are_earned_one_by_one_and_no_more_than_a_burst() {
        let now = Instant::now();
        let mut budget = Budget::full(now);
        let mut taken = |now| {
            std::iter::repeat_with(|| budget.take(now))
                .take_while(|may| *may)
                .count()
        };
        assert_eq!(taken(now), 25);
        assert_eq!(taken(now + EARNED_IN * 2), 2);
        assert_eq!(taken(now + EARNED_IN * 2), 0);
        assert_eq!(taken(now + EARNED_IN * 1000), 25);
    }
}

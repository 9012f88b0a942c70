//! Limits how often the status is written.

use std::time::Duration;

use nettune_sizing::Mono;

/// The minimum pause between two writes.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes that may follow each other with only that pause.
const BURST: u32 = 10;

/// How long it takes to earn one more: a value that keeps changing for hours must not load the API
/// server, which has thousands of agents.
const EARNED_IN: Duration = Duration::from_secs(10);

/// A budget of writes.
#[derive(Debug)]
pub(crate) struct RateLimiter {
    left: u32,
    counted_from: Mono,
}

impl RateLimiter {
    pub(crate) fn new(now: Mono) -> Self {
        Self {
            left: BURST,
            counted_from: now,
        }
    }

    /// Takes one write from the budget, and returns when the next one may follow.
    pub(crate) fn take(&mut self, now: Mono) -> Mono {
        let earned = now.since(self.counted_from).as_secs() / EARNED_IN.as_secs();
        let earned = u32::try_from(earned).unwrap_or(BURST).min(BURST);
        self.left = (self.left + earned).min(BURST);
        self.counted_from = match self.left {
            BURST => now,
            _ => self.counted_from.after(EARNED_IN * earned),
        };
        self.left = self.left.saturating_sub(1);
        match self.left {
            0 => self.counted_from.after(EARNED_IN).max(now.after(PAUSE)),
            _ => now.after(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_followed_by_one_write_in_ten_seconds() {
        let mut limiter = RateLimiter::new(Mono::default());
        let mut now = Mono::default();
        let mut writes = Vec::new();
        while now < Mono::at(Duration::from_secs(100)) {
            writes.push(now.since(Mono::default()).as_secs());
            now = limiter.take(now);
        }
        assert_eq!(
            writes,
            [
                0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 40, 50, 60, 70, 80, 90
            ]
        );
    }

    #[test]
    fn a_quiet_time_earns_the_burst_again_and_no_more() {
        let mut limiter = RateLimiter::new(Mono::default());
        let mut now = Mono::default();
        for _ in 0..12 {
            now = limiter.take(now);
        }
        let start = now.after(Duration::from_secs(3600));
        let mut now = start;
        let mut writes = Vec::new();
        while now.since(start) < Duration::from_secs(40) {
            writes.push(now.since(start).as_secs());
            now = limiter.take(now);
        }
        assert_eq!(writes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30]);
    }
}

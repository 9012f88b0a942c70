//! Pauses between attempts to reach the API server.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{Stream, StreamExt, future};
use kube::runtime::utils::{Backoff, ResetTimerBackoff, StreamBackoff};
use kube::runtime::watcher::{self, ExponentialBackoff};

/// The longest pause between two attempts.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A watch that has not failed for this long starts with the shortest pause again.
const RESET_AFTER: Duration = Duration::from_secs(60);

/// Pauses of 250 ms, doubling up to 30 s, each extended by jitter.
pub fn pauses() -> impl Iterator<Item = Duration> + Send + 'static {
    exponential(LONGEST_PAUSE).build()
}

fn exponential(longest: Duration) -> ExponentialBuilder {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(longest)
        .with_jitter()
        .without_max_times()
}

/// Pauses a watch after each failure. An expired resourceVersion (410, after a restart or compaction) is no
/// failure: the watch lists again at once.
pub fn with_backoff<T: Send>(
    watch: impl Stream<Item = watcher::Result<T>> + Send,
    longest: Duration,
) -> impl Stream<Item = watcher::Result<T>> + Send {
    let is_expired = |event: &watcher::Result<T>| matches!(event, Err(watcher::Error::WatchError(status)) if status.code == 410);
    let watch = watch.filter(move |event| future::ready(!is_expired(event)));
    StreamBackoff::new(watch, WatchBackoff::new(longest))
}

/// kube resets the pauses at each attempt to list, before its outcome is known. Here only time without
/// failures resets them.
struct WatchBackoff(ResetTimerBackoff<ExponentialBackoff>);

impl WatchBackoff {
    fn new(longest: Duration) -> Self {
        let pauses = ExponentialBackoff::from(exponential(longest));
        Self(ResetTimerBackoff::new(pauses, RESET_AFTER))
    }
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next()
    }
}

impl Backoff for WatchBackoff {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_limit_and_its_jitter() {
        let pauses: Vec<Duration> = pauses().take(50).collect();
        assert_eq!(pauses.len(), 50);
        assert!(pauses[0] < Duration::from_secs(1));
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE * 2));
        assert!(pauses[49] >= LONGEST_PAUSE);
    }

    #[tokio::test(start_paused = true)]
    async fn only_time_without_failures_resets_the_pauses() {
        let mut backoff = WatchBackoff::new(LONGEST_PAUSE);
        let mut pause = Duration::ZERO;
        for _ in 0..10 {
            backoff.reset();
            pause = backoff.next().unwrap();
        }
        assert!(pause >= LONGEST_PAUSE, "{pause:?}");
        tokio::time::advance(RESET_AFTER * 2).await;
        assert!(backoff.next().unwrap() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn expired_watch_restarts_at_once_and_failed_one_after_a_pause() {
        let error = |code| {
            let status = kube::core::Status::failure("too old", "Expired").with_code(code);
            Err(watcher::Error::WatchError(status.boxed()))
        };
        for (code, errors, pauses) in [(410, 0, false), (500, 1, true)] {
            let began = tokio::time::Instant::now();
            let watch = futures::stream::iter([error(code), Ok("listed")]);
            let events: Vec<_> = with_backoff(watch, LONGEST_PAUSE).collect().await;
            assert_eq!(events.iter().filter(|event| event.is_err()).count(), errors);
            assert_eq!(events.last().unwrap().as_ref().unwrap(), &"listed");
            assert_eq!(!began.elapsed().is_zero(), pauses, "{code}");
        }
    }
}

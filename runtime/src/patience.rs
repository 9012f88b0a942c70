//! Patience while the API server is away: how long to wait before it is asked again.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::{Stream, StreamExt, future};
use kube::runtime::utils::{Backoff, StreamBackoff};
use kube::runtime::watcher;

/// The longest pause between two tries to reach the server.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Pauses between tries: 250 ms, doubling, each made longer by chance, up to 30 s.
pub fn pauses() -> impl Iterator<Item = Duration> + Send + 'static {
    pauses_up_to(LONGEST_PAUSE)
}

fn pauses_up_to(longest: Duration) -> impl Iterator<Item = Duration> + Send + 'static {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(longest)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Pauses between tries of a watch. Each try to list looks like a sign of life to the client library,
/// which would start with the shortest pause again after it: here only calm does.
struct Patience {
    longest: Duration,
    pauses: Mutex<Box<dyn Iterator<Item = Duration> + Send>>,
    last: Option<Instant>,
}

/// A watch that has not failed for this long starts with the shortest pause again.
const CALM: Duration = Duration::from_secs(60);

impl Patience {
    /// Pauses that double up to the longest, each made longer by chance.
    fn up_to(longest: Duration) -> Self {
        Self {
            longest,
            pauses: Mutex::new(Box::new(pauses_up_to(longest))),
            last: None,
        }
    }
}

/// What a watch brings, tried again after a pause where it fails. One that the API server does not remember far
/// enough back for (410: it was restarted, or etcd was compacted) has not failed: it begins anew at once.
pub fn patiently<T: Send>(
    watch: impl Stream<Item = watcher::Result<T>> + Send,
    longest: Duration,
) -> impl Stream<Item = watcher::Result<T>> + Send {
    let is_failure = |event: &watcher::Result<T>| {
        let is_expired =
            matches!(event, Err(watcher::Error::WatchError(status)) if status.code == 410);
        future::ready(!is_expired)
    };
    StreamBackoff::new(watch.filter(is_failure), Patience::up_to(longest))
}

impl Iterator for Patience {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let now = Instant::now();
        let pauses = self.pauses.get_mut();
        let pauses = pauses.unwrap_or_else(PoisonError::into_inner);
        if self.last.is_some_and(|last| now > last + CALM) {
            *pauses = Box::new(pauses_up_to(self.longest));
        }
        self.last = Some(now);
        pauses.next()
    }
}

impl Backoff for Patience {
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_never_pass_their_limit_by_more_than_its_jitter() {
        let pauses: Vec<Duration> = pauses().take(50).collect();
        assert_eq!(pauses.len(), 50);
        assert!(pauses[0] < Duration::from_secs(1));
        assert!(pauses.iter().all(|pause| *pause <= LONGEST_PAUSE * 2));
        assert!(pauses[49] >= LONGEST_PAUSE);
    }

    #[test]
    fn a_mere_try_does_not_shorten_the_pauses_of_a_watch() {
        let mut patience = Patience::up_to(LONGEST_PAUSE);
        let mut grown = Duration::ZERO;
        for _ in 0..10 {
            patience.reset();
            grown = patience.next().unwrap();
        }
        assert!(grown >= LONGEST_PAUSE, "{grown:?}");
        patience.last = Instant::now().checked_sub(CALM * 2);
        assert!(patience.next().unwrap() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_too_old_begins_anew_at_once_and_one_that_fails_after_a_pause() {
        let error = |code| {
            let status = kube::core::Status::failure("too old", "Expired").with_code(code);
            Err(watcher::Error::WatchError(status.boxed()))
        };
        for (code, errors, pauses) in [(410, 0, false), (500, 1, true)] {
            let began = tokio::time::Instant::now();
            let watch = futures::stream::iter([error(code), Ok("listed")]);
            let events: Vec<_> = patiently(watch, LONGEST_PAUSE).collect().await;
            assert_eq!(events.iter().filter(|event| event.is_err()).count(), errors);
            assert_eq!(events.last().unwrap().as_ref().unwrap(), &"listed");
            assert_eq!(!began.elapsed().is_zero(), pauses, "{code}");
        }
    }
}

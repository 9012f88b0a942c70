//! A pause of all requests to an API server that throttles.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Response, StatusCode, header};
use tokio::time::Instant;

/// The pause without a usable Retry-After.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause, whatever Retry-After says.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The instant before which no request is sent. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct NotBefore(Arc<Mutex<Option<Instant>>>);

impl NotBefore {
    /// The end of the current pause; `None` when requests may be sent.
    #[must_use]
    pub fn after(&self, now: Instant) -> Option<Instant> {
        let until = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        until.filter(|until| now < *until)
    }

    /// Pauses for this long, at most 10 s. A shorter pause never ends a longer one.
    pub fn pause(&self, pause: Duration, now: Instant) {
        let until = now + pause.min(LONGEST_PAUSE);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *known = (*known).max(Some(until));
    }

    pub(crate) fn observe<T>(&self, response: &Response<T>) {
        if let Some(pause) = throttle_pause(response) {
            self.pause(pause, Instant::now());
        }
    }
}

/// The pause after a response: for 429 and 503, and for 504 with a Retry-After in seconds.
pub(crate) fn throttle_pause<T>(response: &Response<T>) -> Option<Duration> {
    let seconds = response
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_secs);
    let pause = match response.status() {
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            seconds.unwrap_or(DEFAULT_PAUSE)
        }
        StatusCode::GATEWAY_TIMEOUT => seconds?,
        _ => return None,
    };
    Some(pause.min(LONGEST_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pause_after(code: u16, retry_after: Option<&str>) -> Option<u64> {
        let mut response = Response::builder().status(code);
        if let Some(value) = retry_after {
            response = response.header(header::RETRY_AFTER, value);
        }
        let not_before = NotBefore::default();
        not_before.observe(&response.body(()).unwrap());
        let now = Instant::now();
        let until = not_before.after(now)?;
        Some(until.duration_since(now).as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_answers_pause_for_retry_after_up_to_ten_seconds() {
        for (code, retry_after, pause) in [
            (429, Some("7"), Some(7)),
            (429, None, Some(1)),
            (503, Some("2"), Some(2)),
            (503, Some("Wed, 21 Oct 2026 07:28:00 GMT"), Some(1)),
            (503, Some("86400"), Some(10)),
            (504, Some("3"), Some(3)),
            (504, None, None),
            (500, Some("3"), None),
            (409, None, None),
            (200, None, None),
        ] {
            let found = pause_after(code, retry_after);
            assert_eq!(found, pause, "{code} {retry_after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn shorter_pause_does_not_end_longer_one() {
        let not_before = NotBefore::default();
        let shared = not_before.clone();
        let now = Instant::now();
        not_before.pause(Duration::from_secs(7), now);
        shared.pause(Duration::from_secs(1), now);
        let until = now + Duration::from_secs(7);
        assert_eq!(shared.after(now), Some(until));
        assert_eq!(shared.after(until), None);
    }
}

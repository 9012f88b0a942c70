//! Waits for a state, with a deadline and the reason why it is not reached yet.

use std::fmt::Display;
use std::future::Future;
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(50);

/// A deadline has passed.
#[derive(Debug, thiserror::Error)]
#[error("waited {} s for {what}: {last}", waited.as_secs_f32())]
pub struct TimedOut {
    pub what: String,
    pub waited: Duration,
    /// Why the last attempt failed.
    pub last: String,
}

/// Calls `probe` until it returns `Ok`, at most for `deadline`.
///
/// An `Err` is the reason to wait longer; the last one is in the error.
pub async fn eventually<T, E, F, Fut>(
    what: &str,
    deadline: Duration,
    mut probe: F,
) -> Result<T, TimedOut>
where
    E: Display,
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    let started = Instant::now();
    let mut last = String::from("not looked at yet");
    while started.elapsed() < deadline {
        // The probe itself may hang: an API server that is away, a guest that is busy.
        match tokio::time::timeout(deadline.saturating_sub(started.elapsed()), probe()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(reason)) => last = reason.to_string(),
            Err(_) => last = format!("no answer ({last})"),
        }
        tokio::time::sleep(POLL).await;
    }
    Err(TimedOut {
        what: what.to_owned(),
        waited: started.elapsed(),
        last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_reason_is_in_the_error() {
        let result = eventually("rain", Duration::from_millis(120), || async {
            Err::<(), _>("sunshine")
        })
        .await;
        let message = result.unwrap_err().to_string();
        assert!(
            message.contains("rain") && message.ends_with("sunshine"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn a_probe_that_hangs_is_cut_off() {
        let hang = eventually(
            "an answer",
            Duration::from_millis(120),
            std::future::pending::<Result<(), String>>,
        );
        assert!(hang.await.unwrap_err().last.starts_with("no answer"));
    }
}

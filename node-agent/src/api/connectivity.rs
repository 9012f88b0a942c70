//! Outages of the API server: each told once in the log, and in the metrics; and when all that is needed
//! to reach it is read anew.

use std::error::Error;
use std::time::Duration;

use nettune_runtime::api::in_words;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// Whether the API server answers: the watch stands, or the last request went through.
#[derive(Debug)]
pub(crate) struct Connectivity {
    since: Option<Instant>,
    metrics: Metrics,
}

impl Connectivity {
    /// None yet.
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            since: None,
            metrics,
        }
    }

    /// A request failed.
    pub(crate) fn noticed(&mut self, error: &(dyn Error + 'static)) {
        self.metrics.api_reachable(false);
        if self.since.is_none() {
            self.since = Some(Instant::now());
            tracing::warn!(
                error = in_words(error),
                "cannot talk to the API server; trying on"
            );
        }
    }

    /// A request went through.
    pub(crate) fn over(&mut self) {
        self.metrics.api_reachable(true);
        if let Some(began) = self.since.take() {
            let seconds = began.elapsed().as_secs();
            tracing::info!(seconds, "the API server answers again");
        }
    }
}

/// How long the watch may fail before everything that is needed for it is read anew:
/// what was read once (the kubeconfig, a client's certificate, the server's CA) may have been renewed.
const RENEWED_AFTER: Duration = Duration::from_secs(30);

/// And once that has not helped: each new client begins with short pauses between its tries, and an
/// API server that comes back has thousands of agents to answer.
const RENEWED_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// For how long the watch has been failing.
#[derive(Debug)]
pub(crate) struct Failing {
    since: Option<Instant>,
    /// Since when it has stood again; it may have brought nothing yet.
    stands_since: Option<Instant>,
    renewed_after: Duration,
}

impl Default for Failing {
    fn default() -> Self {
        Self {
            since: None,
            stands_since: None,
            renewed_after: RENEWED_AFTER,
        }
    }
}

impl Failing {
    /// It has brought something.
    pub(crate) fn brought(&mut self) {
        *self = Self::default();
    }

    /// The API server has begun to answer it. That does not say that it will bring anything: only time does.
    pub(crate) fn stands(&mut self, now: Instant) {
        self.stands_since.get_or_insert(now);
    }

    /// It has failed. Says whether to begin anew, with all that is needed for it.
    pub(crate) fn fails(&mut self, now: Instant) -> bool {
        let stood = self.stands_since.take();
        if stood.is_some_and(|since| now.duration_since(since) >= RENEWED_AFTER) {
            *self = Self::default();
        }
        let since = *self.since.get_or_insert(now);
        let is_due = now.duration_since(since) >= self.renewed_after;
        if is_due {
            self.since = None;
            self.renewed_after = RENEWED_AGAIN_AFTER;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn an_outage_is_on_until_a_request_goes_through() {
        let mut connectivity = Connectivity::new(Metrics::register(&mut Registry::default()));
        assert!(connectivity.since.is_none());
        connectivity.noticed(&std::io::Error::other("refused"));
        let began = connectivity.since;
        assert!(began.is_some());
        connectivity.noticed(&std::io::Error::other("refused"));
        assert_eq!(connectivity.since, began, "it is the same one");
        connectivity.over();
        assert!(connectivity.since.is_none());
    }

    /// What is asked at these seconds after the start: whether all is read anew at each failure.
    fn anew(failing: &mut Failing, start: Instant, seconds: &[u64]) -> Vec<bool> {
        let at = |seconds: &u64| start + Duration::from_secs(*seconds);
        seconds
            .iter()
            .map(|second| failing.fails(at(second)))
            .collect()
    }

    #[test]
    fn all_is_read_anew_after_half_a_minute_of_failures_and_then_every_ten_minutes() {
        let (mut failing, start) = (Failing::default(), Instant::now());
        let anew = anew(&mut failing, start, &[0, 29, 30, 31, 630, 631]);
        assert_eq!(anew, [false, false, true, false, false, true]);
    }

    #[test]
    fn what_stood_for_a_while_has_not_failed_since_before_that() {
        let (mut failing, start) = (Failing::default(), Instant::now());
        assert_eq!(anew(&mut failing, start, &[0]), [false]);
        failing.stands(start + Duration::from_secs(1));
        assert_eq!(anew(&mut failing, start, &[3600, 3610]), [false, false]);
        failing.brought();
        assert_eq!(anew(&mut failing, start, &[7200]), [false]);
    }

    #[test]
    fn what_is_answered_and_breaks_at_once_has_not_stood() {
        let (mut failing, start) = (Failing::default(), Instant::now());
        for second in 0..30 {
            failing.stands(start + Duration::from_secs(second));
            assert_eq!(anew(&mut failing, start, &[second]), [false]);
        }
        assert_eq!(anew(&mut failing, start, &[30]), [true]);
    }
}

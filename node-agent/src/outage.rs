//! Telling of the API server's outages: each once in the log, and in the metrics.

use std::error::Error;
use std::time::Instant;

use nettune_daemon::api::in_words;

use crate::metrics::Metrics;

/// Whether the API server can be reached, as far as the last request tells.
#[derive(Debug)]
pub(crate) struct Outage {
    since: Option<Instant>,
    metrics: Metrics,
}

impl Outage {
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

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;

    #[test]
    fn an_outage_is_on_until_a_request_goes_through() {
        let mut outage = Outage::new(Metrics::register(&mut Registry::default()));
        assert!(outage.since.is_none());
        outage.noticed(&std::io::Error::other("refused"));
        let began = outage.since;
        assert!(began.is_some());
        outage.noticed(&std::io::Error::other("refused"));
        assert_eq!(outage.since, began, "it is the same one");
        outage.over();
        assert!(outage.since.is_none());
    }
}

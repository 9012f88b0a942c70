//! Outages of the API server: each logged once, and shown in the metrics.

use std::error::Error;

use nettune_runtime::api::in_words;
use tokio::time::Instant;

use crate::metrics::Metrics;

/// Whether the API server answers: the last request succeeded, or the watch brings events.
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
            tracing::warn!(error = in_words(error), "API server unreachable; retrying");
        }
    }

    /// A request went through.
    pub(crate) fn over(&mut self) {
        self.metrics.api_reachable(true);
        if let Some(began) = self.since.take() {
            let seconds = began.elapsed().as_secs();
            tracing::info!(seconds, "API server reachable again");
        }
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
}

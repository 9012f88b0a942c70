//! Logs: text on a terminal, one JSON object a line elsewhere; always on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::SubscriberInitExt;

/// What is logged unless `RUST_LOG` says otherwise.
///
/// The client libraries log each failed request of an outage, at every retry; [`crate::api::Outage`]
/// says once that it began and once that it is over.
const DEFAULT_FILTER: &str = "info,kube_client=error,kube_client::client::builder=off,\
     kube_runtime=error,hyper=error,hyper_util=error,tower=error,rustls=error";

/// Starts logging, by `RUST_LOG` where it is set and valid. Only the first call of a process counts.
pub fn init() {
    let from_environment = std::env::var(EnvFilter::DEFAULT_ENV).ok();
    let parsed = from_environment
        .as_deref()
        .filter(|filter| !filter.is_empty())
        .map(EnvFilter::try_new);
    let (filter, refused) = match parsed {
        Some(Ok(filter)) => (filter, None),
        Some(Err(error)) => (EnvFilter::new(DEFAULT_FILTER), Some(error)),
        None => (EnvFilter::new(DEFAULT_FILTER), None),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr);
    let started = if io::stderr().is_terminal() {
        builder.with_target(false).finish().try_init()
    } else {
        let json = builder.json().flatten_event(true);
        json.with_current_span(false)
            .with_span_list(false)
            .finish()
            .try_init()
    };
    if started.is_ok()
        && let Some(error) = refused
    {
        tracing::warn!(%error, "RUST_LOG is not a filter; the default is used");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_filter_is_one() {
        EnvFilter::try_new(DEFAULT_FILTER).unwrap();
    }
}

//! Logs: text on a terminal, one JSON object a line elsewhere; always on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::prelude::*;
use tracing_subscriber::{Layer, fmt};

/// The environment variable with the filter: comma-separated levels and `target=level` pairs.
///
/// Filters by spans and fields, which `EnvFilter` has too, would cost each daemon a megabyte of
/// memory for a regular-expression engine.
const VARIABLE: &str = "RUST_LOG";

/// The filter without `RUST_LOG`.
///
/// The client libraries log each failed request of an outage. The daemons log its start and its end.
const DEFAULT_FILTER: &str = "info,kube_client=error,kube_client::client::builder=off,\
     kube_runtime=error,hyper=error,hyper_util=error,tower=error,rustls=error";

/// Starts logging, by `RUST_LOG` where it is set and valid. Only the first call of a process counts.
pub fn init() {
    let wanted = std::env::var(VARIABLE).unwrap_or_default();
    let (filter, refused) = match filter(&wanted) {
        Ok(filter) => (filter, None),
        Err(error) => (filter("").unwrap_or_default(), Some(error)),
    };
    let layer = fmt::layer().with_writer(io::stderr);
    let layer = if io::stderr().is_terminal() {
        layer.with_target(false).boxed()
    } else {
        let json = layer.json().flatten_event(true);
        json.with_current_span(false).with_span_list(false).boxed()
    };
    let registry = tracing_subscriber::registry();
    let started = registry.with(layer.with_filter(filter)).try_init();
    if started.is_ok()
        && let Some(error) = refused
    {
        tracing::warn!(%error, "RUST_LOG is not a valid filter; using the default");
    }
}

fn filter(wanted: &str) -> Result<Targets, ParseError> {
    match wanted.trim() {
        "" => DEFAULT_FILTER.parse(),
        wanted => wanted.parse(),
    }
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn client_libraries_are_quiet_by_default() {
        let filter = filter("").unwrap();
        assert!(filter.would_enable("nettune_agent::agent", &Level::INFO));
        assert!(!filter.would_enable("nettune_agent::agent", &Level::DEBUG));
        assert!(!filter.would_enable("kube_runtime::watcher", &Level::WARN));
        assert!(!filter.would_enable("kube_client::client::builder", &Level::ERROR));
    }

    #[test]
    fn filter_of_the_environment_replaces_the_default() {
        let filter = filter("warn,kube_client=debug").unwrap();
        assert!(filter.would_enable("kube_client::client::builder", &Level::DEBUG));
        assert!(!filter.would_enable("nettune_agent::agent", &Level::INFO));
        assert!(super::filter("kube_client=sometimes").is_err());
    }
}

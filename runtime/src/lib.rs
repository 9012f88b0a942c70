//! What operator and agent share: logs, the metrics and health endpoint, shutdown, clients of the API server,
//! and the text of errors with their causes.

pub mod api;
pub mod backoff;
pub mod connector;
pub mod error;
pub mod logging;
pub mod metrics;
pub mod serve;
pub mod shutdown;
pub mod throttle;
pub mod tls;

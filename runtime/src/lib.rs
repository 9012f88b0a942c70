//! What both daemons share: logs, the metrics and health endpoint, shutdown, the way to the API
//! server, and errors told with their causes.

pub mod api;
pub mod connector;
pub mod error;
pub mod logging;
pub mod metrics;
pub mod not_before;
pub mod patience;
pub mod serve;
pub mod shutdown;
pub mod tls;

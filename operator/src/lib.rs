//! The operator: fills the planner's world from watches, and performs its writes.

mod body;
mod events;
mod metrics;
mod run;
mod watch;
mod write;

pub use metrics::Metrics;
pub use run::{RunError, run};

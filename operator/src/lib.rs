//! The operator: fills the planner's world from watches, and performs its writes.

mod body;
mod events;
mod lease;
mod metrics;
mod pressure;
mod run;
mod watch;
mod write;

pub use lease::{Candidate, LEASE_NAME, LeaseLost, MayWrite};
pub use metrics::Metrics;
pub use run::{RunError, Settings, run};

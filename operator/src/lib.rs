//! The operator: fills the planner's world from watches, and performs its writes.

mod agents;
mod body;
mod events;
mod lease;
mod metrics;
mod run;
mod send;
mod watch;
mod write;

pub use agents::{AgentSelector, InvalidSelector};
pub use lease::{Candidate, LEASE_NAME, LeaseLost, MayWrite};
pub use metrics::Metrics;
pub use run::{Clients, RunError, Settings, run};

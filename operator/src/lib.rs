//! The operator: fills the planner's cache from watches, and performs the planner's writes.

mod apply;
mod controller;
mod error;
mod events;
mod leader;
mod metrics;
mod watch;

pub use controller::{Clients, Settings, run};
pub use leader::lease::Candidate;
pub use metrics::Metrics;
pub use watch::AgentSelector;

//! The agent of one node: it looks at the kernel, performs the next effect that
//! [`nettune_reconcile`] decides on, and looks again.

pub mod agent;
pub mod api;
pub mod clock;
pub mod kernel;
pub mod metrics;
pub mod pressure;
pub mod standalone;
pub mod state;
pub mod status;

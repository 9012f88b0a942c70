//! How full the kernel's tables are, and what they suffer from.

pub mod conditions;
pub mod counters;
pub mod flannel;
pub mod monitor;
pub(crate) mod neighbor_inspector;
pub(crate) mod utilization;

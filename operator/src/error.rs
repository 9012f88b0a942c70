//! Why the operator ends by itself.

use nettune_planner::Kind;

use crate::leader::lease::LeaseLost;

#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Watches are endless. Without one the operator would decide on old data.
    #[error("the watch of {0:?}s ended")]
    WatchEnded(Kind),
    #[error("all watches ended")]
    WatchesEnded,
    #[error(transparent)]
    LeaseLost(#[from] LeaseLost),
    #[error("the task that holds the Lease ended")]
    LeaseEnded,
}

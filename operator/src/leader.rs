//! Leader election: one of several operators writes.

pub(crate) mod handle;
pub(crate) mod lease;

//! Changes that may do harm reach a few nodes first, and the others when those have passed.

pub(crate) mod gate;
pub(crate) mod safe_changes;
pub(crate) mod transition;

//! Changes that may do harm reach a few nodes first, and the others when those have passed.

pub(crate) mod canary;
pub(crate) mod changes;
pub(crate) mod gate;
pub(crate) mod roll_out;
pub(crate) mod rollouts;
pub(crate) mod safe_changes;
pub(crate) mod shrink;
pub(crate) mod transition;
pub(crate) mod waves;

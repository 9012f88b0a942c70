//! What tunings say of themselves, and how releases go.

pub(crate) mod release;
pub(crate) mod tally;
pub(crate) mod tuning;

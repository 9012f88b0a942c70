//! The rules of each kernel table.

pub(crate) mod conntrack;
pub(crate) mod overflow;
pub(crate) mod thresholds;

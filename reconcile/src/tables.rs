//! The rules of each kernel table.

pub(crate) mod conntrack;
pub(crate) mod limits;
pub(crate) mod ordering;
pub(crate) mod overflow;
pub(crate) mod thresholds;

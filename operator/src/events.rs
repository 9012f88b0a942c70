//! Events on Nodes and tunings.

pub(crate) mod pressure;
pub(crate) mod recorder;
pub(crate) mod release;

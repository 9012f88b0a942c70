//! What is kept on the node's disk.

mod format;
pub mod store;

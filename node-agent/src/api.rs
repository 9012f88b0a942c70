//! The node's profile on the API server: read, and its status written.

mod connectivity;
pub mod link;
pub mod merge_patch;
pub mod profiles;
pub(crate) mod rate_limit;

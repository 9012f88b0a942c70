//! The node's profile on the API server: watches it and writes its status.

mod connectivity;
pub mod merge_patch;
pub mod profile_watch;
pub mod profiles;
pub(crate) mod rate_limit;
mod status_writer;

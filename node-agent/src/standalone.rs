//! The agent without a cluster: a tuning from a file.

pub mod dry_run;
pub mod host;
pub mod policy;
pub mod policy_watch;

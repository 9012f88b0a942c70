//! The command line of the agent.

pub(crate) mod args;
pub(crate) mod check;
pub(crate) mod host_env;
pub(crate) mod once;

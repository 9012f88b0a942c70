//! From the API's types to what the rest of nettune works with, checked on the way.

pub(crate) mod error;
pub(crate) mod node_labels;
mod policy;
pub(crate) mod profile_sysctl;
pub(crate) mod rollout;

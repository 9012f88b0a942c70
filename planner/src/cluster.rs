//! The known state of the cluster: Nodes, tunings, profiles and the agents' Pods.

pub(crate) mod agent_pods;
pub(crate) mod cache;
pub(crate) mod cni;
pub(crate) mod intern;
pub(crate) mod labels;
pub(crate) mod node;
pub(crate) mod peaks;
pub(crate) mod profile;
pub(crate) mod state;
pub(crate) mod tuning;

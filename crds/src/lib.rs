//! The API group `nettune.dev`, version `v1alpha1`: both kinds, their conversion to the input of
//! [`nettune_sizing`], and the types and reasons of their conditions.

#![allow(
    clippy::duplicated_attributes,
    reason = "kube's printcolumn attributes repeat `type_` once for each column"
)]
#![allow(
    unreachable_pub,
    reason = "KubeSchema repeats each public struct inside a function of its own"
)]

pub mod conditions;
mod convert;
mod profile;
mod tuning;

pub use convert::error::InvalidTuning;
pub use convert::node_labels::{InvalidSelector, NodeLabels};
pub use convert::profile_sysctl::InvalidProfileSysctl;
pub use convert::rollout::{MaxFailed, Rollout};
pub use profile::{
    KeyState, NodeNetworkProfile, NodeNetworkProfileSpec, NodeNetworkProfileStatus, PodLinks,
    ProfileFacts, ProfileSysctl, Rule, SysctlStatus, TableUse, TablesUse,
};
pub use tuning::blocks::{
    ConnReuseMode, ConntrackSpec, IpvsSpec, NeighborsSpec, PodNetwork, ThresholdsSpec,
};
pub use tuning::node_selector::{NodeSelector, Requirement, SelectorOperator};
pub use tuning::rollout::{ResizeSpec, RolloutSpec, RolloutType};
pub use tuning::status::{
    ClusterInputs, NodeNetworkTuningStatus, NodesCount, SizeGroup, SizeInputs,
};
pub use tuning::{Mode, NodeNetworkTuning, NodeNetworkTuningSpec, ReleasePolicy, SysctlEntry};

//! The API of group `nettune.dev`, version `v1alpha1`: both kinds, their conversion to what
//! [`nettune_sizing`] takes, and the names of their conditions and reasons.

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
mod labels;
mod profile;
mod rollout;
mod rules;
mod tuning;

pub use convert::{InvalidProfileSysctl, InvalidTuning};
pub use labels::{InvalidSelector, NodeLabels};
pub use profile::{
    KeyState, NodeNetworkProfile, NodeNetworkProfileSpec, NodeNetworkProfileStatus, PodLinks,
    ProfileFacts, ProfileSysctl, Rule, SysctlStatus, TableUse, TablesUse,
};
pub use rollout::{MaxFailed, Rollout};
pub use tuning::{
    ClusterInputs, ConnReuseMode, ConntrackSpec, IpvsSpec, Mode, NeighborsSpec, NodeNetworkTuning,
    NodeNetworkTuningSpec, NodeNetworkTuningStatus, NodeSelector, NodesCount, PodNetwork,
    ReleasePolicy, Requirement, ResizeSpec, RolloutSpec, RolloutType, SelectorOperator, SizeGroup,
    SizeInputs, SysctlEntry, ThresholdsSpec,
};

/// The API group of both kinds.
pub const GROUP: &str = "nettune.dev";

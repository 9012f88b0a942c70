//! Decides what the cluster needs: from its Nodes, tunings and profiles to the writes.
//!
//! [`decide()`] is pure. The operator calls it with the content of its watches, `kubectl nettune plan` with
//! files, the benchmark with generated clusters. It is level-triggered: it takes the whole [`ClusterState`]
//! each time.

mod assign;
mod cluster;
mod decide;
mod health;
mod memory;
mod priority;
mod release;
mod rollout;
mod size_groups;
mod stale_profiles;
mod status;
mod time;
mod write;

pub use cluster::agent_pods::{ObservedPod, ObservedPodSpec, ObservedPodStatus};
pub use cluster::cache::{Cache, Kind};
pub use cluster::node::{
    ObservedCondition, ObservedNode, ObservedNodeSpec, ObservedNodeStatus, PlannedNode,
    STARTUP_TAINT,
};
pub use cluster::profile::{PlannedProfile, Reported, eq_ignoring_reasons};
pub use cluster::state::ClusterState;
pub use cluster::tuning::{PlannedTuning, TuningContent};
pub use decide::{Decision, decide};
pub use memory::Memory;
pub use nettune_sizing::Mono;
pub use size_groups::{Group, group_nodes};
pub use status::release::{ReleaseReport, ReportedNode};
pub use time::Now;
pub use write::{Announcement, Object, Write};

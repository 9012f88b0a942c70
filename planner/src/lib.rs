//! The planner: from everything that is known of the cluster to the writes that it needs.
//!
//! [`decide()`] is pure: the operator calls it with what its watches have brought, `kubectl nettune
//! plan` with files, the benchmark with made-up clusters. It takes the whole [`ClusterState`] each time;
//! causes are not remembered, contents are compared.

mod agents;
mod change;
mod decide;
mod evidence;
mod groups;
mod labels;
mod leaving;
mod memory;
mod node;
mod peaks;
mod plan;
mod rollout;
mod select;
mod shared;
mod status;
mod taint;
mod time;
mod unresponsive;
mod urgency;
mod watched;
mod world;
mod write;

pub use agents::{ObservedPod, ObservedPodSpec, ObservedPodStatus};
pub use decide::{Decision, decide};
pub use groups::{Group, group_nodes};
pub use leaving::{Leaver, Leaving};
pub use memory::Memory;
pub use nettune_sizing::Mono;
pub use node::{
    ObservedCondition, ObservedNode, ObservedNodeSpec, ObservedNodeStatus, PlannedNode,
    STARTUP_TAINT,
};
pub use time::Now;
pub use watched::{Cache, Kind};
pub use world::{
    ClusterState, PlannedProfile, PlannedTuning, Reported, TuningContent, eq_ignoring_reasons,
};
pub use write::{Announcement, Object, Write};

//! The planner: from everything that is known of the cluster to the writes that it needs.
//!
//! [`decide()`] is pure: the operator calls it with what its watches have brought, `kubectl nettune
//! plan` with files, the benchmark with made-up clusters. It takes the whole [`World`] each time;
//! causes are not remembered, contents are compared.

mod decide;
mod evidence;
mod groups;
mod node;
mod select;
mod status;
mod watched;
mod world;

pub use decide::{Announcement, Decision, Write, decide};
pub use groups::{Group, group_nodes};
pub use node::{ObservedNode, ObservedNodeSpec, ObservedNodeStatus, PlannedNode};
pub use watched::{Kind, Watched};
pub use world::{PlannedProfile, PlannedTuning, Reported, TuningContent, World};

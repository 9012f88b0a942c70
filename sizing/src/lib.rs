//! The sizing model: what a node's kernel tables should hold, from a policy and facts.
//!
//! [`size()`] is pure: no I/O, no clock, no randomness. The operator, the agent without a
//! cluster, the command line and the benchmarks all call this one function, so that they
//! cannot disagree. `docs/sizing.md` explains the model and names the source of each constant.

mod allow_list;
mod amount;
mod conntrack;
mod demand;
mod desired_value;
mod facts;
mod ipvs;
mod kernel;
mod key;
pub mod keys;
mod mono;
mod neighbors;
mod policy;
mod size;
mod sysctls;
mod value;

pub use allow_list::{Block, INTERFACE_FAMILIES, InterfaceFamily, Listed, Scope, allow_list};
pub use desired_value::{Bounds, DesiredValue, InvalidBounds};
pub use facts::{ClusterFacts, NodeFacts, PodLinks, PodNetwork};
pub use kernel::{KernelVersion, ParseKernelVersionError};
pub use key::{InvalidKey, SysctlKey};
pub use mono::Mono;
pub use policy::{
    ConnReuseMode, ConntrackPolicy, EntryBounds, Factors, InvalidPolicy, IpvsPolicy,
    NeighborPolicy, PodNetworkChoice, Policy, Thresholds,
};
pub use size::{SizedSysctl, Sizes, Warning, size};
pub use value::{InvalidValue, Value};

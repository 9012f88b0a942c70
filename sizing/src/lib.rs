//! The sizing model: what a node's kernel tables should hold, from a policy and facts.
//!
//! [`size()`] is pure: no I/O, no clock, no randomness. The operator, the standalone agent, the command
//! line and the benchmarks all call this function, so they always agree. `docs/sizing.md` explains the
//! model and has the source of each constant.

mod facts;
mod kernel_version;
mod mono;
mod policy;
mod size;
mod sizes;
mod sysctl;

pub use facts::{ClusterFacts, NodeFacts, PodLinks, PodNetwork};
pub use kernel_version::{KernelVersion, ParseKernelVersionError};
pub use mono::Mono;
pub use policy::{
    ConnReuseMode, ConntrackPolicy, EntryBounds, Factors, InvalidPolicy, IpvsPolicy,
    NeighborPolicy, PodNetworkChoice, Policy, Thresholds,
};
pub use size::conntrack::kube_proxy_max;
pub use size::size;
pub use sizes::{SizedSysctl, Sizes, Warning};
pub use sysctl::allow_list::{
    Block, INTERFACE_FAMILIES, InterfaceFamily, Listed, Scope, allow_list,
};
pub use sysctl::desired_value::{Bounds, DesiredValue, InvalidBounds};
pub use sysctl::key::{InvalidKey, SysctlKey};
pub use sysctl::keys;
pub use sysctl::value::{InvalidValue, Value};

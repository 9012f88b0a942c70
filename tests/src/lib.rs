//! The harness: real control planes, real kernels and the real binaries, as processes that never outlive the test.
//!
//! Nothing here is a mock. [`ControlPlane`] is an etcd and a kube-apiserver on loopback, [`Guest`] a Linux kernel in
//! QEMU, [`Program`] an operator or an agent as it ships. [`FakeNode`] is the one stand-in: a
//! directory that looks like a node's `/proc`, for agents of nodes that need no kernel of their own.
//!
//! What the tiers need is fetched or built by [`artifacts`], once, into the user's cache folder.

pub mod artifacts;
pub mod cluster;
pub mod control_plane;
pub mod guest;
pub mod net;
pub mod nodes;
pub mod process;
pub mod programs;
pub mod progress;
pub mod wait;
pub mod workspace;

/// The client library whose types are in this one's signatures.
pub use kube;

pub use cluster::{Cluster, ClusterConfig};
pub use control_plane::audit::Audit;
pub use control_plane::proxy::Proxy;
pub use control_plane::{ControlPlane, ControlPlaneConfig};
pub use guest::{Guest, GuestConfig};
pub use nettune_test_support::FakeNode;
pub use nodes::NodeSpec;
pub use programs::Program;
pub use wait::eventually;

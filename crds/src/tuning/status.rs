//! The status of a tuning.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The observed state of the tuning.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetworkTuningStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Number of nodes by state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodesCount>,
    /// Cluster-wide inputs of the sizes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterInputs>,
    /// Desired net.ipv4.neigh.default.gc_thresh3 of the nodes: 1 value, or minimum and maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gc_thresh3: Option<String>,
    /// Desired net.netfilter.nf_conntrack_max of the nodes: 1 value, or minimum and maximum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conntrack_max: Option<String>,
    /// Groups of nodes with equal sizes, the largest first. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub groups: Vec<SizeGroup>,
    /// Sizes that were limited by a cap, and dangerous values. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub warnings: Vec<String>,
    /// Ready: all selected nodes have the desired values. Progressing: changes are in progress.
    /// Overlapping: this tuning takes precedence over another one on some nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Number of nodes by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodesCount {
    /// Nodes that this tuning applies to.
    pub selected: i32,
    /// Selected nodes whose kernel has the desired values, as reported by their agents.
    pub ready: i32,
    /// Nodes with a value that differs from the desired one.
    pub drifted: i32,
    /// Nodes with a value that could not be written.
    pub failed: i32,
    /// Nodes whose values are being released and whose agent has not yet reported the result.
    pub releasing: i32,
    /// Nodes whose agent has been unresponsive for more than rollout.nodeDeadlineSeconds.
    #[serde(default)]
    pub unresponsive: i32,
}

/// Cluster-wide inputs of the sizes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterInputs {
    /// Number of nodes in the cluster, without virtual nodes.
    pub nodes: i32,
    /// Number of pods that these nodes can run in total.
    pub pods: i64,
}

/// A group of nodes with equal sizes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SizeGroup {
    /// Number of nodes.
    pub nodes: i32,
    /// The inputs of the sizes of each node.
    pub inputs: SizeInputs,
    /// Managed sysctls in the form `name = value`.
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub sysctls: Vec<String>,
}

/// The inputs of the sizes of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SizeInputs {
    /// Number of pods that the node can run.
    pub pods: i64,
    /// Memory in MiB, rounded down. 0 if unknown.
    #[serde(rename = "memoryMiB")]
    pub memory_mib: i64,
    /// Number of logical CPUs.
    pub cores: i64,
    /// Kernel version, or `unknown`.
    pub kernel: String,
    /// How pods on different nodes reach each other, and how this was detected.
    pub pod_network: String,
    /// How the pods are connected to their node: Bridge or PointToPoint.
    pub pod_links: String,
}

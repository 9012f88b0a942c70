//! The status of a tuning.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator has found and done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetworkTuningStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many nodes are in which state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodesCount>,
    /// What the sizes were computed from, for the whole cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterInputs>,
    /// net.ipv4.neigh.default.gc_thresh3 as wanted on the nodes: one value, or the least and the
    /// greatest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gc_thresh3: Option<String>,
    /// net.netfilter.nf_conntrack_max as wanted on the nodes: one value, or the least and the
    /// greatest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conntrack_max: Option<String>,
    /// Nodes that are sized alike, the largest groups first, at most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub groups: Vec<SizeGroup>,
    /// What the administrator should know: where a cap cut a size, or a value is dangerous. At most
    /// 16 sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub warnings: Vec<String>,
    /// Ready: every selected node holds what is wanted. Progressing: changes are under way.
    /// Overlapping: this tuning hides what a lower one would manage on some nodes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// How many nodes are in which state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodesCount {
    /// Nodes that this tuning selects and has.
    pub selected: i32,
    /// Of these, nodes whose kernel holds what is wanted, as their agent says.
    pub ready: i32,
    /// Nodes where a value differs now.
    pub drifted: i32,
    /// Nodes where a value could not be written.
    pub failed: i32,
    /// Nodes whose values are being released and whose agent has not answered yet.
    pub releasing: i32,
    /// Nodes whose agent has been unresponsive for longer than rollout.nodeDeadlineSeconds.
    #[serde(default)]
    pub unresponsive: i32,
}

/// What sizes were computed from, for the whole cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClusterInputs {
    /// Nodes of the cluster, virtual ones left out.
    pub nodes: i32,
    /// Pods that all of them can run together.
    pub pods: i64,
}

/// Nodes that are sized alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SizeGroup {
    /// How many nodes.
    pub nodes: i32,
    /// What was known of each of them.
    pub inputs: SizeInputs,
    /// Each managed sysctl with its value, as `name = value`.
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub sysctls: Vec<String>,
}

/// What was known of a node when it was sized.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SizeInputs {
    /// Pods that it can run.
    pub pods: i64,
    /// Memory in MiB, rounded down; 0 where it is not known.
    #[serde(rename = "memoryMiB")]
    pub memory_mib: i64,
    /// Logical processors.
    pub cores: i64,
    /// Kernel version, or `unknown`.
    pub kernel: String,
    /// How pods of different nodes reach each other, and how that was found.
    pub pod_network: String,
    /// How its pods are linked to it: Bridge or PointToPoint.
    pub pod_links: String,
}

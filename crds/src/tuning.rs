//! `NodeNetworkTuning`: what an administrator wants for a set of nodes.

pub(crate) mod blocks;
pub(crate) mod node_selector;
pub(crate) mod rollout;
mod rules;
pub(crate) mod status;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use blocks::{ConntrackSpec, IpvsSpec, NeighborsSpec};
use node_selector::NodeSelector;
use rollout::{ResizeSpec, RolloutSpec};
use status::NodeNetworkTuningStatus;

/// The desired kernel network tables of a set of nodes. The operator sizes each selected node and
/// writes a NodeNetworkProfile for it; the agent on the node applies the profile.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "nettune.dev",
    version = "v1alpha1",
    kind = "NodeNetworkTuning",
    plural = "nodenetworktunings",
    shortname = "nnt",
    category = "nettune",
    status = "NodeNetworkTuningStatus",
    derive = "PartialEq",
    doc = "Sizes the kernel network tables (neighbor thresholds, conntrack, IPVS) of the selected nodes according to the size of the cluster, and keeps the values in place.",
    selectable = ".spec.mode",
    printcolumn(
        name = "Mode",
        type_ = "string",
        json_path = ".spec.mode",
        description = "Enforce, ApplyOnce or Observe"
    ),
    printcolumn(
        name = "Nodes",
        type_ = "integer",
        json_path = ".status.nodes.selected",
        description = "Nodes that this tuning applies to"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.nodes.ready",
        description = "Nodes that have the desired values"
    ),
    printcolumn(
        name = "Drifted",
        type_ = "integer",
        json_path = ".status.nodes.drifted",
        description = "Nodes with a value that differs from the desired one"
    ),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        json_path = ".status.nodes.failed",
        description = "Nodes with a value that could not be written"
    ),
    printcolumn(
        name = "GC-Thresh3",
        type_ = "string",
        json_path = ".status.gcThresh3",
        description = "Desired net.ipv4.neigh.default.gc_thresh3, or its range"
    ),
    printcolumn(
        name = "Conntrack-Max",
        type_ = "string",
        json_path = ".status.conntrackMax",
        description = "Desired net.netfilter.nf_conntrack_max, or its range"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "Reason of the Ready condition"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetworkTuningSpec {
    /// The nodes to tune. Default: all Linux nodes.
    #[serde(default)]
    pub node_selector: NodeSelector,
    /// If several tunings select the same node, only the one with the highest priority applies to
    /// it. If priorities are equal, the older tuning applies, then the one with the smaller uid.
    /// -1000000 to 1000000. Default 0.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,
    /// Enforce (default): apply values and revert drift. ApplyOnce: apply values once, then only
    /// report drift. Observe: compute and report values without writing them.
    #[serde(default)]
    pub mode: Mode,
    /// Sizes of the neighbor tables (ARP and NDP). Omit to leave unmanaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbors: Option<NeighborsSpec>,
    /// Size of the connection tracking table. Omit to leave unmanaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conntrack: Option<ConntrackSpec>,
    /// IPVS behavior, for clusters whose Services use IPVS. Omit to leave unmanaged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipvs: Option<IpvsSpec>,
    /// Additional sysctls from the allow-list, each set to exactly this value. Sysctls that belong
    /// to neighbors, conntrack or ipvs are rejected. At most 64. Many apply only to the host
    /// network namespace and do not affect pods; docs/api.md lists the scope of each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub sysctls: Vec<SysctlEntry>,
    /// What happens to a node when this tuning is deleted or no longer selects the node, and no
    /// other tuning does. Retain (default): values stay, but are no longer enforced. Restore:
    /// original values are restored, except where another process has changed the value since.
    /// Restore also applies to a single sysctl that is removed from the tuning.
    #[serde(default)]
    pub release_policy: ReleasePolicy,
    /// How potentially disruptive changes reach the nodes. Raised limits are applied to all nodes
    /// at once. Nodes that are not Ready come last.
    #[serde(default)]
    pub rollout: RolloutSpec,
    /// When limits are lowered after the cluster has become smaller.
    #[serde(default)]
    pub resize: ResizeSpec,
}

/// How values are enforced.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum Mode {
    /// Apply values and revert drift.
    #[default]
    Enforce,
    /// Apply values once, then only report drift.
    ApplyOnce,
    /// Report; write nothing.
    Observe,
}

/// What happens to the values on a node that is no longer selected.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum ReleasePolicy {
    /// Values stay, but are no longer enforced.
    #[default]
    Retain,
    /// Original values are restored, except where another process has changed the value since.
    Restore,
}

/// A sysctl from the allow-list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new(rules::name_is_allowed()).message(Message::Expression(rules::NAME_NOT_ALLOWED.to_owned())),
    validation = Rule::new(rules::name_is_free()).message(Message::Expression(rules::NAME_OF_A_BLOCK.to_owned())),
    validation = Rule::new("self.value.matches('[^ \\t]')").message("value must not be empty; write a quoted string such as \"4096\""),
    validation = Rule::new("self.value.matches('^[ -~\\t]*$')").message("value must be one line of printable ASCII")
)]
pub struct SysctlEntry {
    /// Name of the sysctl with dots, as printed by sysctl(8). Dots in the name of an interface are
    /// kept: net.ipv4.neigh.eth0.100.gc_stale_time. At most 128 characters.
    #[schemars(length(max = 128))]
    pub name: String,
    /// Value as a quoted string. Separate multiple numbers with single spaces. At most 1024
    /// characters.
    #[schemars(length(max = 1024))]
    pub value: String,
}

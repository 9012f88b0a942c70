//! `NodeNetworkTuning`: what the administrator wants.

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

/// What the kernel network tables of a set of nodes shall hold. The operator sizes each selected
/// node and writes a NodeNetworkProfile for it; the node's agent applies that and keeps it.
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
    doc = "Sizes the kernel network tables (neighbour thresholds, conntrack, IPVS) of the nodes that it selects, from the size of the cluster, and keeps them that way.",
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
        description = "nodes that this tuning selects"
    ),
    printcolumn(
        name = "Ready",
        type_ = "integer",
        json_path = ".status.nodes.ready",
        description = "nodes whose kernel holds what is wanted"
    ),
    printcolumn(
        name = "Drifted",
        type_ = "integer",
        json_path = ".status.nodes.drifted",
        description = "nodes where a value differs now"
    ),
    printcolumn(
        name = "Failed",
        type_ = "integer",
        json_path = ".status.nodes.failed",
        description = "nodes where a value could not be written"
    ),
    printcolumn(
        name = "GC-Thresh3",
        type_ = "string",
        json_path = ".status.gcThresh3",
        description = "net.ipv4.neigh.default.gc_thresh3 of the nodes, or its range"
    ),
    printcolumn(
        name = "Conntrack-Max",
        type_ = "string",
        json_path = ".status.conntrackMax",
        description = "net.netfilter.nf_conntrack_max of the nodes, or its range"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#,
        description = "reason of the condition Ready"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetworkTuningSpec {
    /// Which nodes. Empty: every Linux node.
    #[serde(default)]
    pub node_selector: NodeSelector,
    /// Where several tunings select one node, the one with the highest priority has it alone; on a
    /// tie the older, then the one with the smaller uid. -1000000 to 1000000, default 0.
    #[serde(default)]
    #[schemars(range(min = -1_000_000, max = 1_000_000))]
    pub priority: i32,
    /// Enforce (default): apply, and undo drift. ApplyOnce: apply, then report drift and leave it.
    /// Observe: size and report, write nothing to any kernel.
    #[serde(default)]
    pub mode: Mode,
    /// Sizes of the neighbour tables (ARP and NDP). Left out: not managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbors: Option<NeighborsSpec>,
    /// Sizes of connection tracking. Left out: not managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conntrack: Option<ConntrackSpec>,
    /// Behaviour of IPVS, for clusters whose services use it. Left out: not managed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ipvs: Option<IpvsSpec>,
    /// Other sysctls of the allow-list, each held at exactly its value; never one that a block can
    /// manage. At most 64. Many hold for the host's network namespace alone and do not reach pods:
    /// the allow-list in docs/api.md says which.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub sysctls: Vec<SysctlEntry>,
    /// What happens to a node that this tuning does not select any more and no other tuning has, or
    /// when the tuning is deleted. Retain (default): values stay, enforcing stops. Restore: the
    /// original values go back where the live one is still the one that nettune wrote. So does
    /// that of a sysctl which merely leaves the tuning.
    #[serde(default)]
    pub release_policy: ReleasePolicy,
    /// How changes that could do harm reach the nodes. A limit that is raised goes to all of them at
    /// once, and so does everything to a node that is not Ready yet.
    #[serde(default)]
    pub rollout: RolloutSpec,
    /// How patiently limits follow a cluster that has become smaller.
    #[serde(default)]
    pub resize: ResizeSpec,
}

/// How strictly values are kept.
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
    /// Apply, and undo drift.
    #[default]
    Enforce,
    /// Apply, then report drift and leave it.
    ApplyOnce,
    /// Report; write nothing.
    Observe,
}

/// What becomes of the values on a node that is not selected any more.
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
    /// They stay; enforcing stops.
    #[default]
    Retain,
    /// The originals go back where the live value is still the one that nettune wrote.
    Restore,
}

/// One sysctl of the allow-list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new(rules::name_is_allowed()).message(Message::Expression(rules::NAME_NOT_ALLOWED.to_owned())),
    validation = Rule::new(rules::name_is_free()).message(Message::Expression(rules::NAME_OF_A_BLOCK.to_owned())),
    validation = Rule::new("self.value.matches('[^ \\t]')").message("value is empty: write what the kernel shall hold, in quotes, like \"4096\""),
    validation = Rule::new("self.value.matches('^[ -~\\t]*$')").message("value must be one line of printable ASCII")
)]
pub struct SysctlEntry {
    /// Its name with dots, as sysctl(8) prints it. For one interface, with the interface's own dots
    /// as they are: net.ipv4.neigh.eth0.100.gc_stale_time.
    #[schemars(length(max = 128))]
    pub name: String,
    /// Its value as text, in quotes; several numbers with single spaces between them.
    #[schemars(length(max = 1024))]
    pub value: String,
}

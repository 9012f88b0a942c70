//! `NodeNetworkTuning`: what the administrator wants.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules;

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

/// How changes that could do harm reach the nodes: fixed values, limits that are lowered, releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RolloutSpec {
    /// Waves (default): one node of each group of equal values, then as many at once as have passed,
    /// every kernel first. AllAtOnce: every node as fast as the API server takes it.
    #[serde(rename = "type", default)]
    pub type_: RolloutType,
    /// How many nodes may fail before the rollout stops: a number, or a share of the nodes written
    /// so far, rounded down. 0 to 100000 or 0% to 100%, default 5%.
    #[serde(default = "rules::max_failed")]
    #[schemars(schema_with = "rules::int_or_string_schema")]
    #[x_kube(validation = Rule::new(rules::MAX_FAILED_IS_VALID).message(rules::MAX_FAILED_MESSAGE))]
    pub max_failed: IntOrString,
    /// A node has passed when its profile and its Node have been Ready for this many seconds. A value
    /// that cuts a node off shows only after tens of seconds. 0 to 86400, default 60.
    #[serde(default = "rules::min_ready_seconds")]
    #[schemars(range(min = 0, max = 86_400))]
    pub min_ready_seconds: i64,
    /// A node whose agent has not said within this many seconds that it holds what was written has
    /// failed, and its agent counts as unresponsive. 1 to 86400, default 120.
    #[serde(default = "rules::node_deadline_seconds")]
    #[schemars(range(min = 1, max = 86_400))]
    pub node_deadline_seconds: i64,
    /// Begin no further node; limits are still raised.
    #[serde(default)]
    pub paused: bool,
}

impl Default for RolloutSpec {
    fn default() -> Self {
        Self {
            type_: RolloutType::default(),
            max_failed: rules::max_failed(),
            min_ready_seconds: rules::min_ready_seconds(),
            node_deadline_seconds: rules::node_deadline_seconds(),
            paused: false,
        }
    }
}

/// How changes reach the nodes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RolloutType {
    /// A few, then as many at once as have passed.
    #[default]
    Waves,
    /// All of them.
    AllAtOnce,
}

/// How patiently limits follow a cluster that has become smaller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ResizeSpec {
    /// A limit is lowered when the smaller size has been wanted for this many seconds without a break.
    /// 0 to 604800, default 3600.
    #[serde(default = "rules::shrink_after_seconds")]
    #[schemars(range(min = 0, max = 604_800))]
    pub shrink_after_seconds: i64,
}

impl Default for ResizeSpec {
    fn default() -> Self {
        Self {
            shrink_after_seconds: rules::shrink_after_seconds(),
        }
    }
}

/// Which nodes: all labels and all requirements must match, as in a Kubernetes label selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(rules::label_keys_are_valid()).message(rules::LABEL_KEY_MESSAGE),
    validation = Rule::new(rules::label_values_are_valid()).message(rules::LABEL_VALUE_MESSAGE)
)]
pub struct NodeSelector {
    /// Labels that a node must have with exactly these values. At most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "rules::labels_schema")]
    pub match_labels: BTreeMap<String, String>,
    /// Requirements that a node's labels must meet. At most 32.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub match_expressions: Vec<Requirement>,
}

/// One requirement on a label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.operator in ['In', 'NotIn'] ? size(self.values) > 0 : size(self.values) == 0")
        .message("In and NotIn need values, Exists and DoesNotExist take none")
)]
pub struct Requirement {
    /// The label's key.
    #[schemars(length(min = 1, max = 317))]
    #[x_kube(validation = Rule::new(rules::label_key_is_valid()).message(rules::LABEL_KEY_MESSAGE))]
    pub key: String,
    /// In, NotIn, Exists or DoesNotExist.
    pub operator: SelectorOperator,
    /// Values for In and NotIn; none for the others. At most 256.
    #[serde(default)]
    #[schemars(length(max = 256), inner(length(max = 63), regex(pattern = rules::LABEL_VALUE)))]
    pub values: Vec<String>,
}

/// How a requirement compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SelectorOperator {
    /// The label is there with one of the values.
    In,
    /// The label is not there, or has another value.
    NotIn,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
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

/// Sizes of the neighbour tables, for IPv4 and IPv6 alike.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NeighborsSpec {
    /// How pods of different nodes reach each other. Auto (default): from what the nodes show.
    /// Overlay: VXLAN, IPIP and the like. Routed: host-gw, kube-router, Calico BGP. Flat: every pod
    /// has an address on the nodes' own network (AWS VPC CNI, Azure CNI, macvlan).
    #[serde(default)]
    pub pod_network: PodNetwork,
    /// Size for at least this many nodes from the first day, 1 to 100000. Left out: for half as
    /// many again as there are (Flat: for those that there are). Without effect where `thresholds`
    /// are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub size_for_nodes: Option<i64>,
    /// Fixed values instead of computed ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<ThresholdsSpec>,
}

/// How pods of different nodes reach each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PodNetwork {
    /// From what the nodes show.
    #[default]
    Auto,
    /// VXLAN, IPIP and the like.
    Overlay,
    /// Routes on the nodes' network.
    Routed,
    /// Pod addresses on the nodes' own network.
    Flat,
}

/// Fixed thresholds of the neighbour tables, in entries, in ascending order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.gcThresh1 < self.gcThresh2 && self.gcThresh2 < self.gcThresh3").message(rules::THRESHOLDS_MESSAGE))]
pub struct ThresholdsSpec {
    /// Below this many entries nothing is collected; 0 collects stale entries always. 0 to
    /// 2147483647.
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub gc_thresh1: i64,
    /// Above this many entries, garbage collection runs when the last one is over 5 s ago. 0 to
    /// 2147483647.
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub gc_thresh2: i64,
    /// The most entries that the table holds. 0 to 2147483647.
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub gc_thresh3: i64,
}

/// Sizes of connection tracking: nf_conntrack_max and its hash buckets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.minEntries) || !has(self.maxEntries) || self.minEntries <= self.maxEntries").message("minEntries must not be above maxEntries: lower minEntries or raise maxEntries; equal values ask for exactly that size"))]
pub struct ConntrackSpec {
    /// Entries for each pod that a node can run, 1 to 1048576, default 3072: about 20 TCP
    /// connections and 20 lookups a second.
    #[serde(default = "rules::connections_per_pod")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub connections_per_pod: i64,
    /// The least that nf_conntrack_max is set to, 1 to 134217728; wins over the share of memory.
    /// Left out: 131072 where memory allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 134_217_728))]
    pub min_entries: Option<i64>,
    /// The most that nf_conntrack_max is set to, 1 to 134217728. Left out: 1048576. Equal to
    /// minEntries: exactly that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 134_217_728))]
    pub max_entries: Option<i64>,
}

/// Behaviour of IPVS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpvsSpec {
    /// net.ipv4.vs.conn_reuse_mode. Auto (default): what is right for each node's kernel. Disabled:
    /// 0. Enabled: 1. Unmanaged: leave it.
    #[serde(default)]
    pub conn_reuse_mode: ConnReuseMode,
}

/// What net.ipv4.vs.conn_reuse_mode is set to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConnReuseMode {
    /// By kernel version.
    #[default]
    Auto,
    /// 0.
    Disabled,
    /// 1.
    Enabled,
    /// Left alone.
    Unmanaged,
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

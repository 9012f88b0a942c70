//! The blocks of a tuning: `spec.neighbors`, `spec.conntrack` and `spec.ipvs`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tuning::rules;

/// Sizes of the neighbor tables. IPv4 and IPv6 get the same sizes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NeighborsSpec {
    /// How pods on different nodes reach each other. Auto (default): detect from the nodes.
    /// Overlay: VXLAN, IPIP or similar. Routed: host-gw, kube-router or Calico BGP. Flat: each pod
    /// has an address on the network of the nodes (AWS VPC CNI, Azure CNI, macvlan).
    #[serde(default)]
    pub pod_network: PodNetwork,
    /// Minimum number of nodes to size for, for clusters that will grow. 1 to 100000. Omit to size
    /// for 1.5 times the current number of nodes (Flat: the current number). Ignored if thresholds
    /// is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub size_for_nodes: Option<i64>,
    /// Fixed thresholds. Omit to compute them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thresholds: Option<ThresholdsSpec>,
}

/// How pods on different nodes reach each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PodNetwork {
    /// Detect from the nodes.
    #[default]
    Auto,
    /// VXLAN, IPIP or similar.
    Overlay,
    /// Routes on the network of the nodes.
    Routed,
    /// Pod addresses on the network of the nodes.
    Flat,
}

/// Fixed thresholds of the neighbor tables, in entries, in ascending order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.gcThresh1 < self.gcThresh2 && self.gcThresh2 < self.gcThresh3").message(rules::THRESHOLDS_MESSAGE))]
pub struct ThresholdsSpec {
    /// Below this number of entries, the garbage collector does not run. With 0, it always removes
    /// stale entries. 0 to 2147483647.
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub gc_thresh1: i64,
    /// Above this number of entries, the garbage collector runs on insertion if its last run was
    /// more than 5 seconds ago. 0 to 2147483647.
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub gc_thresh2: i64,
    /// Maximum number of entries in the table. 0 to 2147483647.
    #[schemars(range(min = 0, max = 2_147_483_647))]
    pub gc_thresh3: i64,
}

/// Size of the connection tracking table: nf_conntrack_max and its hash buckets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.minEntries) || !has(self.maxEntries) || self.minEntries <= self.maxEntries").message("minEntries must not be greater than maxEntries; lower minEntries or raise maxEntries"))]
pub struct ConntrackSpec {
    /// Entries per pod that the node can run. 1 to 1048576. Default 3072, enough for about 20 TCP
    /// connections and 20 DNS lookups per second.
    #[serde(default = "rules::connections_per_pod")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub connections_per_pod: i64,
    /// Minimum for nf_conntrack_max, in entries. Takes precedence over the limit derived from
    /// memory. 1 to 134217728. Omit for 131072, or less on nodes with little memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 134_217_728))]
    pub min_entries: Option<i64>,
    /// Maximum for nf_conntrack_max, in entries. Set it equal to minEntries for a fixed size. 1 to
    /// 134217728. Omit for 1048576.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 134_217_728))]
    pub max_entries: Option<i64>,
}

/// IPVS behavior.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpvsSpec {
    /// Value of net.ipv4.vs.conn_reuse_mode. Auto (default): the right value for the kernel of each
    /// node. Disabled: 0. Enabled: 1. Unmanaged: leave it unchanged.
    #[serde(default)]
    pub conn_reuse_mode: ConnReuseMode,
}

/// Value of net.ipv4.vs.conn_reuse_mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConnReuseMode {
    /// Depends on the kernel version.
    #[default]
    Auto,
    /// 0.
    Disabled,
    /// 1.
    Enabled,
    /// Leave it unchanged.
    Unmanaged,
}

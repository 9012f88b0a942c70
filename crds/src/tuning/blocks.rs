//! The blocks of a tuning: `spec.neighbors`, `spec.conntrack` and `spec.ipvs`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tuning::rules;

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

//! `NodeNetworkProfile`: the desired and the observed sysctls of a node.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tuning::{Mode, ReleasePolicy};

/// The desired sysctls of a node. Written only by the operator.
#[derive(
    CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize,
)]
#[kube(
    group = "nettune.dev",
    version = "v1alpha1",
    kind = "NodeNetworkProfile",
    plural = "nodenetworkprofiles",
    shortname = "nnp",
    category = "nettune",
    status = "NodeNetworkProfileStatus",
    derive = "PartialEq",
    doc = "The sysctls of a node. Has the same name as the node and is owned by it. The operator writes the desired values (spec), the agent on the node the observed ones (status).",
    selectable = ".spec.tuning",
    selectable = ".spec.mode",
    printcolumn(
        name = "Tuning",
        type_ = "string",
        json_path = ".spec.tuning",
        description = "Tuning that applies to this node"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "Whether the kernel has the desired values"
    ),
    printcolumn(
        name = "Drifted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Drifted")].status"#,
        description = "Whether a value differs from the desired one"
    ),
    printcolumn(
        name = "Neighbors",
        type_ = "string",
        json_path = ".status.tables.neighbors.usage",
        description = "Usage of the neighbor table"
    ),
    printcolumn(
        name = "Conntrack",
        type_ = "string",
        json_path = ".status.tables.conntrack.usage",
        description = "Usage of the connection tracking table"
    ),
    printcolumn(
        name = "Neighbor-Pressure",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="NeighborPressure")].reason"#,
        description = "Problem of the neighbor tables",
        priority = 1
    ),
    printcolumn(
        name = "Conntrack-Pressure",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="ConntrackPressure")].reason"#,
        description = "Problem of the connection tracking table",
        priority = 1
    ),
    printcolumn(
        name = "Contested",
        type_ = "string",
        json_path = r#".status.sysctls[?(@.state=="Contested")].name"#,
        description = "Sysctl that another process keeps changing",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        description = "Message of the Ready condition"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetworkProfileSpec {
    /// Name of the tuning that applies to this node.
    #[schemars(length(max = 253))]
    pub tuning: String,
    /// Enforce, ApplyOnce or Observe, as in the tuning.
    #[serde(default)]
    pub mode: Mode,
    /// What happens when no tuning selects this node any more. Copied from the tuning, which may no
    /// longer exist by then.
    #[serde(default)]
    pub release_policy: ReleasePolicy,
    /// All managed sysctls of this node. At most 128.
    #[serde(default)]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub sysctls: Vec<ProfileSysctl>,
    /// Restore the original values. When the agent has reported that it has done so, the operator
    /// deletes this object.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub release: bool,
    /// This change is part of a rollout and was written while the Node was Ready. Its outcome
    /// decides whether the rollout continues.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
}

/// The desired value of a sysctl.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProfileSysctl {
    /// Name of the sysctl with dots.
    #[schemars(length(max = 128))]
    pub name: String,
    /// AtLeast: a limit. A higher value in the kernel is left unchanged, unless nettune wrote it.
    /// Exact: exactly this value.
    pub rule: Rule,
    /// Desired value. For AtLeast, the minimum.
    #[schemars(length(max = 1024))]
    pub value: String,
    /// For AtLeast: the highest value that the memory of the node allows, in entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ceiling: Option<i64>,
    /// How the value was computed when it last changed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Rule {
    /// A limit. A higher value is fine.
    AtLeast,
    /// Exactly this value.
    Exact,
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::AtLeast => "AtLeast",
            Self::Exact => "Exact",
        })
    }
}

/// The observed state of the node. Written only by its agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetworkProfileStatus {
    /// Generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Managed sysctls as read from the kernel. With releasePolicy Restore, also sysctls that are
    /// no longer managed and whose original value is not restored: Waiting if it can still be
    /// restored, otherwise NotApplicable, with the reason in message. At most 128.
    #[serde(default)]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub sysctls: Vec<SysctlStatus>,
    /// Usage of the tables by entries that count against the limit, in coarse bands. The metrics
    /// have exact numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<TablesUse>,
    /// What only the agent can detect about the node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<ProfileFacts>,
    /// Release of the running kernel, as printed by uname -r.
    #[serde(default)]
    pub kernel_release: String,
    /// ID of the boot that this status describes (/proc/sys/kernel/random/boot_id).
    #[serde(default, rename = "bootID")]
    pub boot_id: String,
    /// Version of the agent.
    #[serde(default)]
    pub agent_version: String,
    /// Ready: the kernel has the desired values. Drifted: a value differs from the desired one.
    /// Contested: another process keeps changing a value. NeighborPressure and ConntrackPressure: a
    /// table is full or inefficient; the message has cause and remedy. Released: whether the
    /// original values are restored; the message lists those that are not.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// The observed state of a sysctl.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SysctlStatus {
    /// Name of the sysctl with dots.
    #[schemars(length(max = 128))]
    pub name: String,
    /// Value in the kernel at the last read, after any write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<String>,
    /// Value in the kernel before nettune's first write since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<String>,
    /// Applied, Waiting, NotApplicable, Drifted, Contested or Failed.
    pub state: KeyState,
    /// Details, if the state is not self-explanatory.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// How many times another process has changed the value since the agent started.
    #[serde(default)]
    pub drift_count: i64,
}

/// The state of a sysctl on its node.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum KeyState {
    /// The kernel has the desired value.
    Applied,
    /// Its module is not loaded yet, or the table is too full for the change. The message says
    /// which.
    Waiting,
    /// Not on this kind of node, for example a node that is a container.
    NotApplicable,
    /// The kernel has another value. The mode does not revert it, or the agent reverts it after a
    /// delay that doubles with each foreign write.
    Drifted,
    /// Another process keeps changing it. The agent retries once an hour. The message names likely
    /// writers.
    Contested,
    /// It could not be read or written.
    Failed,
}

/// Usage of the tables of the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TablesUse {
    /// The IPv4 or the IPv6 neighbor table, whichever is fuller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbors: Option<TableUse>,
    /// The connection tracking table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conntrack: Option<TableUse>,
}

/// Usage of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TableUse {
    /// Usage as text, for example `<25% of 16384`.
    pub usage: String,
    /// Usage in percent of the limit, rounded up to the upper end of its band.
    pub usage_percent: i32,
    /// Highest usage since the agent started, in percent of the limit, rounded up to the upper end
    /// of its band.
    pub peak_usage_percent: i32,
    /// Highest number of entries in at least the last hour, rounded up to a power of two of at
    /// least 1024. For neighbors, only entries that count against the limit, of the IP family with
    /// more of them. Used to compute the next size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_entries: Option<i64>,
}

/// What only the agent can detect about the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProfileFacts {
    /// Whether the agent runs in the initial network namespace, which has the limits of the tables.
    pub initial_network_namespace: bool,
    /// Whether the kernel has IPv6.
    pub ipv6: bool,
    /// How pods are connected to the node. Absent while there are no pods to detect it from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_links: Option<PodLinks>,
    /// Number of addresses in the IPv4 prefixes that are on-link on the interfaces of the node,
    /// from the routes in all tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_link_addresses: Option<i64>,
    /// IPv6 prefixes that are on-link, without link-local ones. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    pub on_link_prefixes_ipv6: Vec<String>,
    /// Relevant kernel modules whose sysctls exist.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub modules: Vec<String>,
    /// Upstream kernel version that the kernel of a distribution is based on, if it says so
    /// (/proc/version_signature).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_kernel: Option<String>,
}

impl ProfileFacts {
    /// How many neighbors the on-link prefixes have room for, of the IP family with more of them,
    /// since both get the same size. `None` if there is no on-link IPv4 prefix, as on clouds that
    /// give the node a single address.
    #[must_use]
    pub fn on_link_room(&self) -> Option<u64> {
        let ipv4 = u64::try_from(self.on_link_addresses?).ok()?;
        let ipv6 = self.on_link_prefixes_ipv6.iter().map(|prefix| {
            let length = prefix
                .rsplit_once('/')
                .and_then(|(_, length)| length.parse().ok());
            // An invalid prefix sets no bound.
            let bits = 128_u32.saturating_sub(length.unwrap_or(0));
            1_u64.checked_shl(bits).unwrap_or(u64::MAX)
        });
        Some(ipv6.fold(0, u64::saturating_add).max(ipv4))
    }
}

/// How pods are connected to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PodLinks {
    /// One Linux bridge.
    Bridge,
    /// A veth pair and a host route for each pod.
    PointToPoint,
}

//! `NodeNetworkProfile`: what one node shall hold, and what it holds.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::tuning::{Mode, ReleasePolicy};

/// What one node shall hold: written by the operator alone.
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
    doc = "The sysctls of one node, named after it and owned by it: what they shall be (written by the operator), and what they are (written by the node's agent).",
    selectable = ".spec.tuning",
    selectable = ".spec.mode",
    printcolumn(
        name = "Tuning",
        type_ = "string",
        json_path = ".spec.tuning",
        description = "the tuning that has this node"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#,
        description = "whether the kernel holds what is wanted"
    ),
    printcolumn(
        name = "Drifted",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Drifted")].status"#,
        description = "whether a value differs now"
    ),
    printcolumn(
        name = "Neighbors",
        type_ = "string",
        json_path = ".status.tables.neighbors.usage",
        description = "use of the neighbour table, in coarse bands"
    ),
    printcolumn(
        name = "Conntrack",
        type_ = "string",
        json_path = ".status.tables.conntrack.usage",
        description = "use of the conntrack table, in coarse bands"
    ),
    printcolumn(
        name = "Neighbor-Pressure",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="NeighborPressure")].reason"#,
        description = "what the neighbour tables suffer from",
        priority = 1
    ),
    printcolumn(
        name = "Conntrack-Pressure",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="ConntrackPressure")].reason"#,
        description = "what the conntrack table suffers from",
        priority = 1
    ),
    printcolumn(
        name = "Contested",
        type_ = "string",
        json_path = r#".status.sysctls[?(@.state=="Contested")].name"#,
        description = "a sysctl that somebody keeps writing",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        description = "message of the condition Ready"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetworkProfileSpec {
    /// The tuning that has this node.
    #[schemars(length(max = 253))]
    pub tuning: String,
    /// How strictly values are kept: Enforce, ApplyOnce or Observe.
    #[serde(default)]
    pub mode: Mode,
    /// What happens when no tuning has this node any more, as that tuning said: the tuning itself may
    /// be gone by then.
    #[serde(default)]
    pub release_policy: ReleasePolicy,
    /// Every sysctl that is managed on this node, at most 128.
    #[serde(default)]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub sysctls: Vec<ProfileSysctl>,
    /// The original values shall go back; when the agent has said so, the operator deletes this
    /// object.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub release: bool,
    /// A rollout wrote this while the Node was Ready: what becomes of the node tells whether the next
    /// ones follow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub canary: bool,
}

/// One sysctl as wanted on this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProfileSysctl {
    /// Its name with dots.
    #[schemars(length(max = 128))]
    pub name: String,
    /// AtLeast: a limit, a higher live value stays unless nettune wrote it. Exact: this value.
    pub rule: Rule,
    /// The value, or the least for a limit.
    #[schemars(length(max = 1024))]
    pub value: String,
    /// For a limit: the most that the node's memory bears, in entries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub ceiling: Option<i64>,
    /// The numbers that led to the value, as they were when it was last changed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub reason: String,
}

/// How strictly a value is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Rule {
    /// A limit: more is fine.
    AtLeast,
    /// This value.
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

/// What the node holds: written by its agent alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetworkProfileStatus {
    /// The generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Each managed sysctl as the kernel has it; and with `releasePolicy: Restore` those that are not
    /// managed any more and whose original is not back: Waiting where it may go back yet, NotApplicable
    /// where not, with the reason.
    #[serde(default)]
    #[schemars(length(max = 128))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub sysctls: Vec<SysctlStatus>,
    /// Use of the node's tables by entries that count against their limits, in coarse bands; the
    /// metrics have every digit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<TablesUse>,
    /// What only the node itself can see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<ProfileFacts>,
    /// The kernel that runs, as uname -r prints it.
    #[serde(default)]
    pub kernel_release: String,
    /// The boot that this status speaks of (/proc/sys/kernel/random/boot_id).
    #[serde(default, rename = "bootID")]
    pub boot_id: String,
    /// Version of the agent.
    #[serde(default)]
    pub agent_version: String,
    /// Ready: the kernel holds what is wanted. Drifted: a value differs now. Contested: somebody
    /// keeps writing a value. NeighborPressure and ConntrackPressure: what the tables suffer from,
    /// with cause and remedy. Released: the originals are back, or it says what was left and why.
    #[serde(default)]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// One sysctl as the kernel has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SysctlStatus {
    /// Its name.
    #[schemars(length(max = 128))]
    pub name: String,
    /// What the kernel held when it was last read, after any write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<String>,
    /// What it held before nettune's first write since boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<String>,
    /// Applied, Waiting, NotApplicable, Drifted, Contested or Failed.
    pub state: KeyState,
    /// Why, where the state does not say it all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub message: String,
    /// How often somebody else changed it since the agent was started.
    #[serde(default)]
    pub drift_count: i64,
}

/// Where one sysctl stands on its node.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum KeyState {
    /// The kernel holds what is wanted.
    Applied,
    /// Its module is not loaded yet, or a quiet moment is waited for; the message says which.
    Waiting,
    /// Not on this kind of node, such as one that is a container.
    NotApplicable,
    /// The kernel holds something else: the mode leaves it, or it is set again after a pause that
    /// doubles with each write of somebody else.
    Drifted,
    /// Somebody keeps writing it: it is left alone and tried again once an hour; the message names the
    /// usual suspects.
    Contested,
    /// It could not be read or written.
    Failed,
}

/// Use of the node's tables.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TablesUse {
    /// The fuller of the IPv4 and the IPv6 neighbour table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub neighbors: Option<TableUse>,
    /// The conntrack table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conntrack: Option<TableUse>,
}

/// Usage of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TableUse {
    /// In words, such as `<25% of 16384`.
    pub usage: String,
    /// Usage in percent of the limit, rounded up to the upper end of its band.
    pub usage_percent: i32,
    /// Highest usage since the agent started, in percent of the limit, rounded likewise.
    pub peak_usage_percent: i32,
    /// The most entries of the last hour or more, rounded up to a power of two of at least 1024;
    /// of neighbours only those that count against the limit, and of the family that has more.
    /// The node's next size follows from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_entries: Option<i64>,
}

/// What only the node itself can see.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProfileFacts {
    /// Whether the agent is in the initial network namespace, where the tables' limits are.
    pub initial_network_namespace: bool,
    /// Whether the kernel has IPv6.
    pub ipv6: bool,
    /// How pods are linked to the node; absent while there are none to tell from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_links: Option<PodLinks>,
    /// Addresses of the IPv4 prefixes that are on-link on the node's own interfaces, by the routes of all tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_link_addresses: Option<i64>,
    /// The IPv6 prefixes that are, but for link-local ones; the first 16 of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 64)))]
    pub on_link_prefixes_ipv6: Vec<String>,
    /// Of the modules that matter here, those whose sysctls are there.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub modules: Vec<String>,
    /// The stable kernel that a distribution's kernel is based on, where it tells
    /// (/proc/version_signature).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base_kernel: Option<String>,
}

impl ProfileFacts {
    /// How many neighbours the node's on-link prefixes have room for: those of the family that has more, since both have
    /// one size. `None` where there is no such IPv4 prefix, as on clouds that give the node a single address.
    #[must_use]
    pub fn on_link_room(&self) -> Option<u64> {
        let ipv4 = u64::try_from(self.on_link_addresses?).ok()?;
        let ipv6 = self.on_link_prefixes_ipv6.iter().map(|prefix| {
            let length = prefix
                .rsplit_once('/')
                .and_then(|(_, length)| length.parse().ok());
            // What is no prefix bounds nothing.
            let bits = 128_u32.saturating_sub(length.unwrap_or(0));
            1_u64.checked_shl(bits).unwrap_or(u64::MAX)
        });
        Some(ipv6.fold(0, u64::saturating_add).max(ipv4))
    }
}

/// How pods are linked to the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PodLinks {
    /// One Linux bridge.
    Bridge,
    /// A veth pair and a host route for each.
    PointToPoint,
}

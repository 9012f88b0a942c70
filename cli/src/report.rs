//! A plan as it is printed.

use nettune_crds::ProfileSysctl;
use serde::Serialize;

/// What all nodes would get.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Plan {
    /// One for each set of nodes that get the same values, the largest first.
    pub(crate) groups: Vec<Group>,
    /// Nodes that no tuning selects.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) not_selected: Vec<String>,
}

/// Nodes of one tuning that get the same values.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Group {
    pub(crate) tuning: String,
    pub(crate) nodes: usize,
    /// Empty where the nodes are made up from flags.
    pub(crate) node_names: Vec<String>,
    /// What is known of each node, or of most of them.
    pub(crate) facts: Facts,
    /// The fields of `facts` that are not the same for all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) facts_differ: Vec<&'static str>,
    pub(crate) sysctls: Vec<ProfileSysctl>,
    pub(crate) warnings: Vec<String>,
}

/// What a node's sizes depend on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Facts {
    pub(crate) pods: u32,
    pub(crate) pod_network: &'static str,
    /// What tells it.
    pub(crate) pod_network_from: String,
    pub(crate) pod_links: &'static str,
    /// Version, or `unknown`.
    pub(crate) kernel: String,
    #[serde(rename = "memoryMiB")]
    pub(crate) memory_mib: u64,
    pub(crate) cores: u32,
    pub(crate) ipv6: bool,
    pub(crate) cloud: bool,
}

impl Facts {
    /// The fields in which another node differs, by the names that they are printed with.
    pub(crate) fn differences(&self, other: &Self) -> Vec<&'static str> {
        [
            ("pods", self.pods != other.pods),
            ("podNetwork", self.pod_network != other.pod_network),
            (
                "podNetworkFrom",
                self.pod_network_from != other.pod_network_from,
            ),
            ("podLinks", self.pod_links != other.pod_links),
            ("kernel", self.kernel != other.kernel),
            ("memoryMiB", self.memory_mib != other.memory_mib),
            ("cores", self.cores != other.cores),
            ("ipv6", self.ipv6 != other.ipv6),
            ("cloud", self.cloud != other.cloud),
        ]
        .into_iter()
        .filter_map(|(name, differs)| differs.then_some(name))
        .collect()
    }
}
